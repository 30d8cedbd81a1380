package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/meshhost/meshhost/host/wire"
)

// bareEnv names, for a copy of this test binary, the bare server to be.
const bareEnv = "MESHHOST_BENCH_BARE"

// TestBareServer is the other process of the ceilings: an HTTP server on a Unix
// socket that answers at once or after a group fsync, and a WebSocket server
// that decodes sends and acks them. Without bareEnv there is nothing to be.
func TestBareServer(t *testing.T) {
	dir := os.Getenv(bareEnv)
	if dir == "" {
		t.Log("not asked for: the benchmarks start it")
		return
	}
	log, err := newGroupSync(filepath.Join(dir, "bare.log"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) { answerBare(w, r, nil) })
	mux.HandleFunc("POST /sync", func(w http.ResponseWriter, r *http.Request) { answerBare(w, r, log) })
	unixLn, err := net.Listen("unix", filepath.Join(dir, "bare"))
	if err != nil {
		t.Fatal(err)
	}
	tcpLn, err := net.Listen("tcp", os.Getenv(bareEnv+"_TCP"))
	if err != nil {
		t.Fatal(err)
	}
	var servers sync.WaitGroup
	servers.Go(func() { fmt.Fprintln(os.Stderr, http.Serve(unixLn, mux)) })
	servers.Go(func() { fmt.Fprintln(os.Stderr, http.Serve(tcpLn, http.HandlerFunc(ackBare))) })
	servers.Wait() // until the benchmark kills it
}

// bareReply has the length of a daemon's answer to a send.
var bareReply = []byte(`{"client_message_id":"01890a5d-ac96-774b-bcce-b302099a8057","id":"01890a5d-ac96-774b-bcce-b302099a8057","status":"queued",` +
	`"durable":true,"resolved":{"target":"` + strings.Repeat("0", 64) + `","from":"verbatim"}}`)

func answerBare(w http.ResponseWriter, r *http.Request, log *groupSync) {
	body, err := io.ReadAll(r.Body)
	if err == nil && log != nil {
		err = log.write(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(bareReply) // a client that left is its own affair
}

// ackBare answers each send with an ack.
func ackBare(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, raw, err := c.Read(context.Background())
		if err != nil {
			return
		}
		var s wire.Send
		if err := json.Unmarshal(raw, &s); err != nil {
			return
		}
		ack, err := json.Marshal(map[string]any{"type": "ack", "id": s.ID, "messageId": s.ID, "queued": true})
		if err != nil {
			return
		}
		if c.Write(context.Background(), websocket.MessageText, ack) != nil {
			return
		}
	}
}

// groupSync appends to a file with one fdatasync for all who wait: what group
// commit costs without a database.
type groupSync struct {
	file *os.File
	in   chan syncItem
}

type syncItem struct {
	body []byte
	done chan error
}

func newGroupSync(path string) (*groupSync, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	g := &groupSync{file: f, in: make(chan syncItem, 1024)}
	go g.run() // ends at close
	return g, nil
}

func (g *groupSync) write(body []byte) error {
	it := syncItem{body, make(chan error, 1)}
	g.in <- it
	return <-it.done
}

func (g *groupSync) close() { close(g.in) }

func (g *groupSync) run() {
	var batch []syncItem
	var buf []byte
	for it := range g.in {
		batch, buf = append(batch[:0], it), append(buf[:0], it.body...)
		for more := true; more; {
			select {
			case next, ok := <-g.in:
				if more = ok; ok {
					batch, buf = append(batch, next), append(buf, next.body...)
				}
			default:
				more = false
			}
		}
		_, err := g.file.Write(buf)
		err = errors.Join(err, unix.Fdatasync(int(g.file.Fd())))
		for _, it := range batch {
			it.done <- err
		}
	}
	g.file.Close()
}

// bare is a running bare server.
type bare struct {
	proc *process
	sock string
	tcp  string
}

func startBare(b testing.TB) *bare {
	b.Helper()
	dir := shortDir(b)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := &bare{sock: filepath.Join(dir, "bare"), tcp: freePort(b)}
	s.proc = start(b, "bare", append(os.Environ(), bareEnv+"="+dir, bareEnv+"_TCP="+s.tcp), self, "-test.run=^TestBareServer$", "-test.timeout=1h")
	for _, at := range [][2]string{{"unix", s.sock}, {"tcp", s.tcp}} {
		await(b, 10e9, "the bare server listens", func() error {
			c, err := net.Dial(at[0], at[1])
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	return s
}
