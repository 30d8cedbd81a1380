package link

import (
	"net"
	"sync"
	"time"
)

const (
	maxUnwritten  = 1 << 20          // bytes collected before a writer has to wait
	writeDeadline = 10 * time.Second // one write(2) that takes longer means a half-open socket
	closeFlush    = time.Second      // what is still to be written gets this long at close
)

// coalescer is a net.Conn whose writes are collected while the previous write runs, and then leave together: twice the frames
// a second, and no delay for a lone frame, since there is no timer. A write reports success when the bytes are collected; an
// error of the socket fails every later write and closes the socket, so that its reader learns of it.
type coalescer struct {
	net.Conn

	mu      sync.Mutex
	changed *sync.Cond    // anything below changed
	pending []byte        // collected and not handed to the socket
	writing int           // bytes that the socket is being given; with pending at most maxUnwritten, or one larger write
	err     error         // first failure; sticky
	closed  bool          // no more writes
	done    chan struct{} // closed when the flusher is gone
}

func newCoalescer(conn net.Conn) *coalescer {
	c := &coalescer{Conn: conn, done: make(chan struct{})}
	c.changed = sync.NewCond(&c.mu)
	go c.flush() // ends at Close, which waits for it
	return c
}

// Write collects p; it waits while more than 1 MiB is unwritten.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for unwritten := c.unwritten(); unwritten > 0 && unwritten+len(p) > maxUnwritten && c.err == nil && !c.closed; unwritten = c.unwritten() {
		c.changed.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	if c.closed {
		return 0, net.ErrClosed
	}
	c.pending = append(c.pending, p...)
	if len(c.pending) == len(p) { // was empty: the flusher may be asleep
		c.changed.Broadcast()
	}
	return len(p), nil
}

func (c *coalescer) unwritten() int { return c.writing + len(c.pending) }

func (c *coalescer) flush() {
	defer close(c.done)
	var batch []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.pending) == 0 && !c.closed && c.err == nil {
			c.changed.Wait()
		}
		if c.err != nil || len(c.pending) == 0 {
			return
		}
		c.pending, batch = batch[:0], c.pending
		limit := writeDeadline
		if c.closed {
			limit = closeFlush
		}
		c.writing = len(batch)
		c.mu.Unlock()
		err := c.Conn.SetWriteDeadline(time.Now().Add(limit))
		if err == nil {
			_, err = c.Conn.Write(batch)
		}
		if err != nil {
			_ = c.Conn.Close() // the write's error is the one to tell
		}
		c.mu.Lock()
		c.writing = 0
		if err != nil && c.err == nil {
			c.err = err
		}
		c.changed.Broadcast()          // room for writers
		if cap(batch) > maxUnwritten { // one huge burst must not stay for ever
			batch = nil
		}
	}
}

// Close writes what is collected, for a second at most, and closes the socket.
func (c *coalescer) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	limit := time.AfterFunc(closeFlush, func() { _ = c.Conn.Close() }) // also cuts short a write that is under way
	<-c.done
	limit.Stop()
	return c.Conn.Close()
}

// kill closes the socket at once; what is collected is lost.
func (c *coalescer) kill() {
	_ = c.Conn.Close() // a second close has nothing to tell
	_ = c.Close()
}
