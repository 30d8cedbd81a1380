package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/wire"
)

// rawConn is a lean WebSocket client; frames of servers are not masked, and ours
// are masked with zero, which changes nothing.
type rawConn struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
	mu   sync.Mutex // of writes
}

func dialRaw(addr, path string) (*rawConn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &rawConn{conn: c, in: bufio.NewReaderSize(c, 64<<10)}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path, addr)
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("upgrade: %s", resp.Status)
	}
	return r, nil
}

const (
	opText = 1
	opPing = 9
	opPong = 10
)

func appendWS(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	return append(append(dst, 0, 0, 0, 0), payload...)
}

func (r *rawConn) write(frames []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.conn.Write(frames)
	return err
}

// next returns the next text frame, valid until the call after; pings are
// answered.
func (r *rawConn) next() ([]byte, error) {
	for {
		head, err := r.in.Peek(2)
		if err != nil {
			return nil, err
		}
		op, n := head[0]&15, int(head[1]&127)
		_, _ = r.in.Discard(2) // peeked
		var long [8]byte
		switch n {
		case 126:
			_, err = io.ReadFull(r.in, long[6:])
			n = int(binary.BigEndian.Uint64(long[:]))
		case 127:
			_, err = io.ReadFull(r.in, long[:])
			n = int(binary.BigEndian.Uint64(long[:]))
		}
		if err != nil {
			return nil, err
		}
		if cap(r.buf) < n {
			r.buf = make([]byte, n)
		}
		r.buf = r.buf[:n]
		if _, err = io.ReadFull(r.in, r.buf); err != nil {
			return nil, err
		}
		switch op {
		case opText:
			return r.buf, nil
		case opPing:
			if err := r.write(appendWS(nil, opPong, r.buf)); err != nil {
				return nil, err
			}
		case 8:
			return nil, fmt.Errorf("closed: %q", r.buf)
		}
	}
}

// rawMember is a member of the mesh that the driver plays itself.
type rawMember struct {
	*rawConn
	key *identity.Key
}

// join connects member i of the seed and waits for its hello_ack.
func (w *world) join(i int) (*rawMember, error) {
	m := w.members[i]
	key, err := identity.LoadKeyFile(filepath.Join(w.dir, m.DisplayName+".key"))
	if err != nil {
		return nil, err
	}
	c, err := dialRaw(w.addr, "/ws")
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	hello, err := wire.Encode(wire.Hello{
		MeshID: m.meshID, MemberID: m.MemberID, Pubkey: m.PublicKey, SessionID: uuid.NewString(), PID: int32(i + 1), Cwd: "/",
		Timestamp: now, Signature: key.SignHello(m.meshID, m.MemberID, now),
	})
	if err != nil {
		return nil, err
	}
	if err := c.write(appendWS(nil, opText, hello)); err != nil {
		return nil, err
	}
	for {
		f, err := c.next()
		if err != nil {
			return nil, err
		}
		if bytes.Contains(f, []byte(`"type":"hello_ack"`)) {
			return &rawMember{c, key}, nil
		}
	}
}

// audience is the members that are sent to. They read; they don't client_ack,
// since in a mesh that work is other machines'.
type audience struct {
	members []*rawMember
	wg      sync.WaitGroup

	mu    sync.Mutex
	ids   map[string]int // pushes by client_message_id
	first time.Time
	last  time.Time
	want  int
	done  chan struct{} // closed at want pushes
}

// seats joins members from to from+n-1.
func (w *world) seats(from, n int) *audience {
	w.t.Helper()
	a := &audience{}
	a.expect(0)
	for i := range n {
		m, err := w.join(from + i)
		if err != nil {
			w.t.Fatalf("member %d: %v", from+i, err)
		}
		a.members = append(a.members, m)
	}
	for _, m := range a.members {
		a.wg.Go(func() { a.listen(m) })
	}
	return a
}

// expect makes the audience count anew up to want pushes.
func (a *audience) expect(want int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ids, a.want, a.done = make(map[string]int, want), want, make(chan struct{})
}

func (a *audience) listen(m *rawMember) {
	for {
		f, err := m.next()
		if err != nil {
			return // leave closes it; a missing push shows in the count
		}
		id := clientID(f)
		if id == "" {
			continue // a system event
		}
		now := time.Now()
		a.mu.Lock()
		if len(a.ids) == 0 {
			a.first = now
		}
		a.ids[id]++
		a.last = now
		if len(a.ids) == a.want {
			select {
			case <-a.done:
			default:
				close(a.done)
			}
		}
		a.mu.Unlock()
	}
}

// wait returns when everything was pushed.
func (a *audience) wait(b testing.TB, limit time.Duration) {
	b.Helper()
	a.mu.Lock()
	done, want := a.done, a.want
	a.mu.Unlock()
	select {
	case <-done:
	case <-time.After(limit):
		a.mu.Lock()
		defer a.mu.Unlock()
		b.Fatalf("%d of %d messages were pushed within %v", len(a.ids), want, limit)
	}
}

func (a *audience) leave() {
	for _, m := range a.members {
		m.conn.Close()
	}
	a.wg.Wait()
}

// frames makes n finished send frames for target, sealed once: what they carry
// differs in its ids alone.
func (m *rawMember) frames(target string, n int) (frames [][]byte, ids []string, err error) {
	to, err := identity.ParsePublicKey(target)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		nonce, ciphertext, err := m.key.Seal(to, []byte(text))
		if err != nil {
			return nil, nil, err
		}
		id := uuid.NewString()
		raw, err := wire.AppendSend(nil, &wire.Send{
			ID: id, ClientMessageID: id, RequestFingerprint: fmt.Sprintf("%x", fingerprint()), TargetSpec: target, Priority: "next", Nonce: nonce, Ciphertext: ciphertext,
		})
		if err != nil {
			return nil, nil, err
		}
		frames, ids = append(frames, appendWS(nil, opText, raw)), append(ids, id)
	}
	return frames, ids, nil
}

func fingerprint() (f [32]byte) {
	_, _ = rand.Read(f[:]) // never fails
	return f
}

// pipeline writes frames with at most window of them unanswered and returns
// when each has its ack.
func (r *rawConn) pipeline(frames [][]byte, window int) error {
	acks, errs := make(chan struct{}, window), make(chan error, 1)
	go func() {
		for range frames {
			for {
				f, err := r.next()
				if err != nil {
					errs <- err
					return
				}
				if bytes.Contains(f, []byte(`"type":"ack"`)) {
					if bytes.Contains(f, []byte(`"error"`)) {
						errs <- fmt.Errorf("refused: %s", f)
						return
					}
					break
				}
			}
			acks <- struct{}{}
		}
	}()
	sent, acked := 0, 0
	var out []byte
	for acked < len(frames) {
		for out = out[:0]; sent < len(frames) && sent-acked < window; sent++ {
			out = append(out, frames[sent]...)
		}
		if len(out) > 0 {
			if err := r.write(out); err != nil {
				return err
			}
		}
		select {
		case <-acks:
			acked++
		case err := <-errs:
			return err
		}
		for more := true; more; { // whoever else is answered leaves room too
			select {
			case <-acks:
				acked++
			default:
				more = false
			}
		}
	}
	return nil
}
