package link

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/wire"
)

const (
	ackFrame      = `{"type":"hello_ack","presenceId":"p1","memberDisplayName":"a","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"},"services":[]}`
	reattachFrame = `{"type":"hello_ack","presenceId":"p1","memberDisplayName":"a"}`
)

// fakeBroker serves each dial with one call of serve, numbered from 1. It lives in memory, inside a synctest bubble or not.
type fakeBroker struct {
	conns chan net.Conn
	gone  chan struct{}
	serve func(n int, c *websocket.Conn, w *peer)
	http  func(n int, w http.ResponseWriter) bool // true: it has answered, no upgrade

	mu     sync.Mutex
	dials  int
	refuse error // what Dial answers, when set
}

// peer is one served socket as the fake sees it.
type peer struct {
	t *testing.T
	c *websocket.Conn
}

func (p *peer) read() (string, error) {
	_, raw, err := p.c.Read(context.Background())
	return string(raw), err
}

func (p *peer) write(frame string) {
	// An error here is the test's own doing: it closed the socket.
	_ = p.c.Write(context.Background(), websocket.MessageText, []byte(frame))
}

func (p *peer) ping(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.c.Ping(ctx)
}

// drain reads until the socket ends, so that pongs are seen.
func (p *peer) drain() {
	for {
		if _, err := p.read(); err != nil {
			return
		}
	}
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
	b.mu.Lock()
	err := b.refuse
	if err != nil {
		b.dials++
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	select {
	case b.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.gone:
		return nil, errors.New("connection refused")
	}
}

func (b *fakeBroker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

// startBroker runs a fake broker until the returned function is called.
func startBroker(t *testing.T, b *fakeBroker) (stop func()) {
	t.Helper()
	b.conns, b.gone = make(chan net.Conn), make(chan struct{})
	var wg sync.WaitGroup
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.dials++
		n := b.dials
		b.mu.Unlock()
		if b.http != nil && b.http(n, w) {
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		c.SetReadLimit(-1)
		wg.Add(1)
		defer wg.Done()
		defer c.CloseNow()
		b.serve(n, c, &peer{t: t, c: c})
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(b) }()
	return func() {
		close(b.gone)
		_ = server.Close()
		<-served
		wg.Wait()
	}
}

// recorder keeps what a link tells.
type recorder struct {
	mu     sync.Mutex
	states []State
	frames []string
	stateC chan State
}

func (r *recorder) onState(s State) {
	r.mu.Lock()
	r.states = append(r.states, s)
	r.mu.Unlock()
	if r.stateC != nil {
		r.stateC <- s
	}
}

func (r *recorder) onFrame(_ *Socket, f *wire.Frame) {
	r.mu.Lock()
	r.frames = append(r.frames, string(f.Raw))
	r.mu.Unlock()
}

func (r *recorder) phases(p Phase) (out []State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		if s.Phase == p {
			out = append(out, s)
		}
	}
	return out
}

// await returns the next state of that phase; states of other phases pass by.
func (r *recorder) await(p Phase) State {
	for s := range r.stateC {
		if s.Phase == p {
			return s
		}
	}
	panic("unreachable: stateC is never closed")
}

func testLink(t *testing.T, b *fakeBroker, r *recorder, change func(*Options)) *Link {
	t.Helper()
	opts := Options{
		URL:     "ws://127.0.0.1:7900/ws",
		Dial:    b.dial,
		Hello:   testHello,
		OnFrame: r.onFrame,
		OnState: r.onState,
		Random:  func() float64 { return 1 },
	}
	if change != nil {
		change(&opts)
	}
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// running starts a link and returns the function that stops it and waits.
func running(l *Link) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	return func() { cancel(); <-done }
}

func testHello(time.Time) ([]byte, error) { return []byte(`{"type":"hello"}`), nil }
