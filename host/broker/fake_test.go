package broker

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"

	"github.com/meshhost/meshhost/host/identity"
)

// fakeBroker answers what a test tells it to. It takes the hello of every socket and acks it.
type fakeBroker struct {
	conns chan net.Conn
	gone  chan struct{}
	// frame gets what a client wrote; it answers by say. socket counts from 1.
	frame func(say func(string), socket int, f map[string]any)
	hook  func(body string) // POST /hook/set-status
	deaf  atomic.Int32      // so many more of them are refused

	mu      sync.Mutex
	sockets []*websocket.Conn
	hellos  []map[string]any
}

func (b *fakeBroker) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.gone:
		return nil, net.ErrClosed
	}
}
func (b *fakeBroker) Close() error   { return nil }
func (b *fakeBroker) Addr() net.Addr { return &net.TCPAddr{} }

func (b *fakeBroker) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case b.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.gone:
		return nil, io.EOF
	}
}

// cut ends the current socket: with a close frame, or as the network would for code 0.
func (b *fakeBroker) cut(code websocket.StatusCode, reason string) {
	b.mu.Lock()
	c := b.sockets[len(b.sockets)-1]
	b.mu.Unlock()
	if code == 0 {
		_ = c.CloseNow()
		return
	}
	_ = c.Close(code, reason)
}

// beat pings the current socket every 30 s, as a broker does, until stop.
func (b *fakeBroker) beat() (stop func()) {
	b.mu.Lock()
	c := b.sockets[len(b.sockets)-1]
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(30 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				_ = c.Ping(ctx)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// push writes a frame to the current socket.
func (b *fakeBroker) push(frame string) {
	b.mu.Lock()
	c := b.sockets[len(b.sockets)-1]
	b.mu.Unlock()
	_ = c.Write(context.Background(), websocket.MessageText, []byte(frame))
}

func (b *fakeBroker) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hook/set-status" {
		body, _ := io.ReadAll(r.Body)
		if b.hook != nil {
			b.hook(string(body))
		}
		if b.deaf.Add(-1) >= 0 {
			http.Error(w, `{"ok":false,"error":"not now"}`, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"ok":true,"presence_id":"p"}`)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	say := func(s string) { _ = c.Write(context.Background(), websocket.MessageText, []byte(s)) }
	for first := true; ; first = false {
		_, raw, err := c.Read(context.Background())
		if err != nil {
			return
		}
		var f map[string]any
		if err := json.Unmarshal(raw, &f); err != nil {
			panic("a client wrote " + string(raw))
		}
		b.mu.Lock()
		if first {
			b.sockets = append(b.sockets, c)
			b.hellos = append(b.hellos, f)
		}
		n := len(b.sockets)
		b.mu.Unlock()
		if first {
			say(fmt.Sprintf(`{"type":"hello_ack","presenceId":"p%d","memberDisplayName":"a","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"}}`, n))
		} else if b.frame != nil {
			b.frame(say, n, f)
		}
	}
}

func startFake(t *testing.T, b *fakeBroker) (stop func()) {
	t.Helper()
	b.conns, b.gone = make(chan net.Conn), make(chan struct{})
	var wg sync.WaitGroup
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		b.serve(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(b) }()
	return func() {
		close(b.gone)
		_ = server.Close()
		<-served
		b.mu.Lock()
		for _, c := range b.sockets {
			_ = c.CloseNow()
		}
		b.mu.Unlock()
		wg.Wait()
	}
}

func testKey(t testing.TB, digit string) *identity.Key {
	t.Helper()
	k, err := identity.ParseSecret(strings.Repeat(digit, 64))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testMesh(t testing.TB, dial func(context.Context) (net.Conn, error), change func(*Options)) *Mesh {
	t.Helper()
	opts := Options{
		MeshID: "MESH1", Slug: "team", MemberID: "MEMBER1", Key: testKey(t, "1"), URL: "ws://127.0.0.1:7900/ws",
		Presence: Presence{SessionID: "s1", PID: 4242, Cwd: "/srv"}, Dial: dial,
		Random: func() float64 { return 0.5 },
	}
	if change != nil {
		change(&opts)
	}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func runMesh(m *Mesh) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	return func() { cancel(); <-done }
}

func wsCode(code int) websocket.StatusCode { return websocket.StatusCode(code) }
