package control

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// gate admits connections: a bounded number, of our user only.
type gate struct {
	net.Listener
	slots chan struct{}
	done  <-chan struct{}
	check func(*net.UnixConn) error // checkPeer, but in tests
	log   hclog.Logger

	mu     sync.Mutex
	silent map[*admitted]struct{} // connections that have asked nothing yet
	closed bool                   // no more of them
}

func newGate(ln net.Listener, done <-chan struct{}, log hclog.Logger) *gate {
	return &gate{
		Listener: ln, slots: make(chan struct{}, maxConns), done: done, check: checkPeer, log: log,
		silent: make(map[*admitted]struct{}),
	}
}

// refusal is the whole answer to a process of another user.
const refusal = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"

// Accept returns the next connection that may talk to us.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.done:
		return nil, net.ErrClosed
	}
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			<-g.slots
			return nil, err
		}
		if uc, ok := c.(*net.UnixConn); ok {
			if err := g.check(uc); err != nil {
				g.refuse(c, err)
				continue
			}
		}
		a := &admitted{Conn: c, gate: g}
		if !g.expect(a) {
			a.Close()
			return nil, net.ErrClosed
		}
		return a, nil
	}
}

// expect notes a connection that has asked nothing yet. It reports false when
// Close has hung up on the others already.
func (g *gate) expect(a *admitted) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.silent[a] = struct{}{}
	return true
}

// Close stops accepting and hangs up on who has asked nothing: net/http would
// wait five seconds for such a connection at Shutdown.
func (g *gate) Close() error {
	err := g.Listener.Close()
	g.mu.Lock()
	silent := g.silent
	g.closed = true
	g.silent = make(map[*admitted]struct{})
	g.mu.Unlock()
	for a := range silent {
		a.Conn.Close() // its reader sees the end and gives the slot back
	}
	return err
}

// refuse writes one answer and hangs up. The answer fits any socket buffer, so
// this blocks nobody.
func (g *gate) refuse(c net.Conn, why error) {
	g.log.Warn("connection refused", "reason", why.Error())
	body := appendProblem(nil, &Problem{Code: "wrong_user", Message: why.Error(), Next: "run the command as the daemon's user"})
	c.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, refusal, len(body), body)
	c.Close()
}

// admitted is a connection that has a slot until it is closed.
type admitted struct {
	net.Conn
	gate  *gate
	heard bool // touched by Read alone, whose calls do not overlap
	once  sync.Once
}

// Read notes that something was asked.
func (a *admitted) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	if n > 0 && !a.heard {
		a.heard = true
		a.forget()
	}
	return n, err
}

func (a *admitted) forget() {
	a.gate.mu.Lock()
	delete(a.gate.silent, a)
	a.gate.mu.Unlock()
}

// Close closes the connection and gives its slot back.
func (a *admitted) Close() error {
	err := a.Conn.Close()
	a.once.Do(func() {
		a.forget()
		<-a.gate.slots
	})
	return err
}
