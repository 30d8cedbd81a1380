package broker

import (
	"sync"
	"sync/atomic"

	"github.com/meshhost/meshhost/host/wire"
)

// frameQueue holds frames between a socket's reader, which never waits, and one consumer, which may be slow. It is bounded by
// count and by bytes; what doesn't fit is dropped and counted.
type frameQueue struct {
	dropped atomic.Uint64
	wake    chan struct{} // holds one: something is there, or the end

	mu     sync.Mutex
	frames []wire.Frame
	bytes  int
	closed bool
}

func (q *frameQueue) init() { q.wake = make(chan struct{}, 1) }

// push appends a frame; false if it was dropped.
func (q *frameQueue) push(f wire.Frame) bool {
	q.mu.Lock()
	full := q.closed || len(q.frames) >= maxQueuedFrame || (len(q.frames) > 0 && q.bytes+len(f.Raw) > maxQueuedBytes)
	if !full {
		q.frames = append(q.frames, f)
		q.bytes += len(f.Raw)
	}
	q.mu.Unlock()
	if full {
		q.dropped.Add(1)
		return false
	}
	q.signal()
	return true
}

func (q *frameQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for frames and returns them, at most maxBatch, in order; false when the queue is closed and empty.
func (q *frameQueue) take() ([]wire.Frame, bool) {
	for {
		q.mu.Lock()
		if n := len(q.frames); n > 0 {
			batch := q.frames
			if n > maxBatch {
				batch = q.frames[:maxBatch:maxBatch]
				q.frames = q.frames[maxBatch:]
				q.signal()
			} else {
				q.frames = nil
			}
			for i := range batch {
				q.bytes -= len(batch[i].Raw)
			}
			q.mu.Unlock()
			return batch, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil, false
		}
		<-q.wake
	}
}

// close lets take return what is left, and then false.
func (q *frameQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (c *Conn) consumePushes() {
	handler := c.mesh.opts.Handlers.OnPush
	for {
		batch, ok := c.pushes.take()
		if !ok {
			return
		}
		pushes := make([]*Push, 0, len(batch))
		for i := range batch {
			p, err := wire.DecodePush(batch[i].Raw)
			if err != nil {
				c.unreadable++
				if n := c.unreadable; n&(n-1) == 0 { // a flood must not flood the log
					c.log.Warn("push can't be read; left to the broker", "bytes", len(batch[i].Raw), "error", err, "so_far", n)
				}
				continue
			}
			pushes = append(pushes, p)
		}
		if handler != nil && len(pushes) > 0 {
			handler(c, pushes)
		}
	}
}

func (c *Conn) consumeFrames() {
	handler := c.mesh.opts.Handlers.OnFrame
	for {
		batch, ok := c.frames.take()
		if !ok {
			return
		}
		if handler == nil {
			continue
		}
		for _, f := range batch {
			handler(c, f)
		}
	}
}
