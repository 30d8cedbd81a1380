package sdk

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/stats"
)

// connWatch tells when the last connection of the host has been gone for a
// while, on every operating system: a host that was killed can't tell.
type connWatch struct {
	grace time.Duration

	mu    sync.Mutex
	conns int
	timer *time.Timer // runs while conns is 0
}

// newConnWatch calls gone once, unless a connection comes within first and one
// is never missing for longer than grace.
func newConnWatch(first, grace time.Duration, gone func()) *connWatch {
	var once sync.Once
	return &connWatch{grace: grace, timer: time.AfterFunc(first, func() { once.Do(gone) })}
}

// HandleConn counts connections.
func (w *connWatch) HandleConn(_ context.Context, s stats.ConnStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		w.conns++
		w.timer.Stop()
	case *stats.ConnEnd:
		w.conns--
		if w.conns == 0 {
			w.timer.Reset(w.grace)
		}
	}
}

// TagConn does nothing.
func (*connWatch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC does nothing.
func (*connWatch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC does nothing.
func (*connWatch) HandleRPC(context.Context, stats.RPCStats) {}

// stop ends the watch.
func (w *connWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}
