package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// poster is a lean HTTP/1.1 client on one connection: the driver shares the
// cores with what it measures.
type poster struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte // of the last answer
}

func dialPoster(sock string) (*poster, error) {
	c, err := net.Dial("unix", sock)
	if err != nil {
		return nil, err
	}
	return &poster{conn: c, in: bufio.NewReader(c)}, nil
}

// post sends a body and returns the status; p.body has the answer.
func (p *poster) post(path string, body []byte) (int, error) {
	p.out = append(p.out[:0], "POST "...)
	p.out = append(p.out, path...)
	p.out = append(p.out, " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "...)
	p.out = strconv.AppendInt(p.out, int64(len(body)), 10)
	p.out = append(append(p.out, "\r\n\r\n"...), body...)
	if _, err := p.conn.Write(p.out); err != nil {
		return 0, err
	}
	line, err := p.in.ReadSlice('\n')
	if err != nil || len(line) < 12 {
		return 0, fmt.Errorf("status line %q: %w", line, err)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := p.in.ReadSlice('\n')
		if err != nil {
			return status, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return status, err
			}
		}
	}
	if cap(p.body) < length {
		p.body = make([]byte, length)
	}
	p.body = p.body[:length]
	_, err = io.ReadFull(p.in, p.body)
	return status, err
}

// volley is n requests by so many clients, each on a connection of its own and
// with one request at a time.
type volley struct {
	sock, path string
	clients    int
	n          int
	body       func(client, i int) []byte
	// took gets each answer's body, one call at a time for a client; may be nil.
	took func(client int, body []byte) error
}

// shots are the latencies of a volley in ms and its wall time.
type shots struct {
	ms   []float64
	wall time.Duration
}

func (s shots) rate() float64 { return float64(len(s.ms)) / s.wall.Seconds() }

// fire runs a volley; any answer but 202 is an error.
func (v volley) fire() (shots, error) {
	posters := make([]*poster, v.clients)
	for i := range posters {
		p, err := dialPoster(v.sock)
		if err != nil {
			return shots{}, err
		}
		defer p.conn.Close()
		posters[i] = p
	}
	each := v.n / v.clients
	ms := make([][]float64, v.clients)
	errs := make(chan error, v.clients)
	var wg sync.WaitGroup
	begin := time.Now()
	for c, p := range posters {
		wg.Go(func() {
			lat := make([]float64, 0, each)
			for i := range each {
				body := v.body(c, i)
				at := time.Now()
				status, err := p.post(v.path, body)
				lat = append(lat, float64(time.Since(at).Nanoseconds())/1e6)
				if err == nil && status != 202 {
					err = fmt.Errorf("status %d: %s", status, p.body)
				}
				if err == nil && v.took != nil {
					err = v.took(c, p.body)
				}
				if err != nil {
					errs <- fmt.Errorf("client %d, request %d: %w", c, i, err)
					return
				}
			}
			ms[c] = lat
		})
	}
	wg.Wait()
	s := shots{wall: time.Since(begin)}
	select {
	case err := <-errs:
		return s, err
	default:
	}
	for _, l := range ms {
		s.ms = append(s.ms, l...)
	}
	return s, nil
}

// text is a message of textBytes.
var text = strings.Repeat("x", textBytes)

// sendRequest is the body of a POST /v1/send without a key, as `meshhost send`
// makes it.
func sendRequest(to string) []byte {
	raw, err := json.Marshal(map[string]string{"to": to, "message": text})
	if err != nil {
		panic(err) // strings
	}
	return raw
}

// clientID takes the client_message_id out of an answer or a push.
func clientID(raw []byte) string {
	const name = `"client_message_id":"`
	_, rest, ok := bytes.Cut(raw, []byte(name))
	if !ok {
		return ""
	}
	id, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return ""
	}
	return string(id)
}
