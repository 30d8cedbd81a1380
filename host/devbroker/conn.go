package devbroker

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxBacklog is how many unwritten bytes a slow client may have waiting before it is cut off. It is looked at before a
	// frame is added, so that one frame of 16 MiB still goes through: the true bound is twice this.
	maxBacklog = 16 << 20
	// drainPause stops a drain whose pushes the socket does not take; drainResume continues it.
	drainPause  = 4 << 20
	drainResume = 1 << 20
	// closeWait is how long a client may take to answer a close frame.
	closeWait = 5 * time.Second
	// headWait bounds the HTTP request; after the upgrade there is no deadline (PROTOCOL 1.3).
	headWait = 15 * time.Second
)

// conn is one WebSocket. Its reader goroutine (serve) handles frames in order; its writer goroutine empties out.
type conn struct {
	b  *Broker
	id int64
	nc net.Conn

	// Of the last hello that came to something; both set under mesh.mu by the reader goroutine alone, mesh read by it alone.
	mesh     *mesh
	presence *presence

	mu      sync.Mutex
	out     []byte        // frames not yet handed to the socket
	wake    chan struct{} // cap 1: out, hangup or drainer changed
	ws      bool          // the upgrade is done
	closing bool          // a close frame is in out: nothing may follow it, inbound data is ignored
	hangup  bool          // close the socket once out is empty
	dead    bool          // the socket is closed
	drainer *presence     // a paused drain to go on with when out has emptied
}

// serve runs a connection from its HTTP request to its end.
func (b *Broker) serve(nc net.Conn) {
	c := &conn{b: b, id: b.nextConn.Add(1), nc: nc, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		nc.Close()
		return
	}
	b.conns[c] = struct{}{}
	b.mu.Unlock()
	defer func() {
		c.terminate()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	br, ok := b.accept(c)
	if !ok {
		return
	}
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read(&frameReader{r: br})
	if !c.finishing() {
		c.terminate()
	}
	writer.Wait()
	if c.mesh != nil {
		c.mesh.socketClosed(c)
	}
}

func (c *conn) upgraded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws
}

// read handles frames until the socket ends or the closing handshake is over.
func (c *conn) read(fr *frameReader) {
	for {
		op, payload, err := fr.next()
		switch {
		case errors.Is(err, errBadFrame):
			c.finish(closePayload(1002, "protocol error"))
			return
		case err != nil:
			return
		}
		switch op {
		case opPing:
			c.enqueue(opPong, payload)
		case opPong:
			if c.mesh != nil {
				c.mesh.pong(c)
			}
		case opClose:
			// The presence becomes a lease before the client sees the handshake end.
			if c.mesh != nil {
				c.mesh.socketClosed(c)
			}
			c.finish(payload[:min(len(payload), 2)]) // the code, not the reason
			return
		default:
			if !c.isClosing() {
				c.handle(payload)
			}
		}
	}
}

// finish writes a last close frame, unless one is out already, and lets the writer hang up after it.
func (c *conn) finish(payload []byte) {
	// The client may be gone already, and then nobody takes the frame.
	_ = c.nc.SetDeadline(time.Now().Add(closeWait))
	c.mu.Lock()
	if !c.closing {
		c.out = appendFrame(c.out, opClose, payload)
	}
	c.closing, c.hangup = true, true
	c.mu.Unlock()
	c.poke()
}

func (c *conn) finishing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hangup
}

// isClosing is true from the first close frame on.
func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// open says whether frames still go out on c.
func (c *conn) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closing && !c.dead
}

// enqueue queues one frame for the writer; a client that has not taken 16 MiB is cut off instead.
func (c *conn) enqueue(op byte, payload []byte) {
	c.mu.Lock()
	if c.closing || c.dead {
		c.mu.Unlock()
		return
	}
	if len(c.out) > maxBacklog {
		c.mu.Unlock()
		c.b.log.Warn("slow client cut off: 16 MiB of frames not taken", "conn", c.id)
		c.terminate()
		return
	}
	c.out = appendFrame(c.out, op, payload)
	c.mu.Unlock()
	c.poke()
}

// closeWith starts a closing handshake: nothing is sent after the close frame, nothing received is looked at.
func (c *conn) closeWith(code uint16, reason string) {
	c.mu.Lock()
	if c.closing || c.dead {
		c.mu.Unlock()
		return
	}
	c.out = appendFrame(c.out, opClose, closePayload(code, reason))
	c.closing = true
	c.mu.Unlock()
	_ = c.nc.SetDeadline(time.Now().Add(closeWait))
	c.poke()
}

// terminate closes the socket without a close frame; the client sees 1006.
func (c *conn) terminate() {
	c.mu.Lock()
	c.dead = true
	c.out = nil
	c.mu.Unlock()
	c.nc.Close()
	c.poke()
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// backlog is the number of bytes that the socket has not taken yet.
func (c *conn) backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}

// pauseDrain makes the writer continue p's drain once the client has caught up.
func (c *conn) pauseDrain(p *presence) {
	c.mu.Lock()
	c.drainer = p
	c.mu.Unlock()
	c.poke()
}

// write empties out until the connection is dead. Frames that pile up during one write leave in the next, together.
func (c *conn) write() {
	var spare []byte
	for range c.wake {
		c.mu.Lock()
		dead, batch := c.dead, c.out
		c.out = spare[:0]
		hangup := c.hangup
		c.mu.Unlock()
		if dead {
			return
		}
		if len(batch) > 0 {
			if _, err := c.nc.Write(batch); err != nil {
				c.terminate()
				return
			}
		}
		if hangup {
			c.terminate()
			return
		}
		if cap(batch) > 1<<20 {
			batch = nil
		}
		spare = batch
		c.mu.Lock()
		p := c.drainer
		if p != nil && len(c.out) <= drainResume {
			c.drainer = nil
		} else {
			p = nil
		}
		c.mu.Unlock()
		if p != nil {
			p.mesh.resumeDrain(p, c)
		}
	}
}

// handle treats one inbound message. Whatever the broker can't make sense of is met with silence (PROTOCOL 1.6).
func (c *conn) handle(msg []byte) {
	if c.b.frames != nil {
		c.b.frames.write(c.id, "in", msg)
	}
	if kind := jsontext.Value(msg).Kind(); kind != '{' {
		// A JavaScript broker looks for .type on anything but null.
		if c.presence == nil && kind != 'n' && jsontext.Value(msg).IsValid(loose) {
			c.refuse("no_hello", "must send hello first", 0)
		}
		return
	}
	var env envelope
	if unmarshal(msg, &env) != nil {
		return
	}
	switch env.Type.S {
	case "hello":
		c.hello(msg)
		return
	case "session_hello":
		c.sessionHello(msg)
		return
	}
	if c.presence == nil {
		c.refuse("no_hello", "must send hello first", 0)
		return
	}
	if h := handlers[env.Type.S]; h != nil {
		c.mesh.turn(c, func(t *turn) {
			if !c.presence.gone {
				h(t, msg, env.ReqID)
			}
		})
	}
}
