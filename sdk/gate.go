package sdk

import (
	"context"
	"sync"
)

// gate keeps the promise that calls of a kind come only after Configure and
// that none is in flight while Configure or Drain runs, whatever the host does.
type gate struct {
	mu     sync.Mutex
	state  gateState
	calls  int           // in flight
	closed bool          // Configure or Drain is running or waiting
	idle   chan struct{} // closed when calls falls to 0; nil while nobody waits
	// streams end the calls that would last for ever, when the gate shuts.
	streams map[*context.CancelCauseFunc]struct{}
}

type gateState int

const (
	gateNew gateState = iota
	gateServing
	gateDrained
)

// enter lets a call in; leave must follow unless it answers an error.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return Errorf(CodeUnavailable, "busy", "the plugin is being configured or drained")
	case g.state == gateNew:
		return Errorf(CodeUnavailable, "not_configured", "the plugin is not configured yet")
	case g.state == gateDrained:
		return Errorf(CodeUnavailable, "drained", "the plugin has been drained")
	}
	g.calls++
	return nil
}

// enterStream is enter for a call that may last: the context that it returns
// ends when the gate shuts.
func (g *gate) enterStream(ctx context.Context) (context.Context, func(), error) {
	if err := g.enter(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed { // it shut since
		cancel(errShut)
	}
	if g.streams == nil {
		g.streams = map[*context.CancelCauseFunc]struct{}{}
	}
	g.streams[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		g.mu.Lock()
		delete(g.streams, &cancel)
		g.mu.Unlock()
		g.leave()
	}, nil
}

// errShut is why a stream ended that did not end by itself.
var errShut = Errorf(CodeUnavailable, "busy", "the plugin is being configured or drained")

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.calls == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// shut keeps calls out and waits for those inside, until ctx ends. open must
// follow unless it answers an error.
func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return Errorf(CodeConflict, "busy", "the plugin is being configured or drained already")
	}
	g.closed = true
	for cancel := range g.streams {
		(*cancel)(errShut)
	}
	if g.calls == 0 {
		g.mu.Unlock()
		return nil
	}
	idle := make(chan struct{})
	g.idle = idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		g.closed, g.idle = false, nil
		g.mu.Unlock()
		return ctx.Err()
	}
}

// open ends what shut began and sets the state, unless next is negative.
func (g *gate) open(next gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	if next >= 0 {
		g.state = next
	}
}

// gateSame keeps the state as it was.
const gateSame gateState = -1

// drained reports whether the last thing that came was Drain.
func (g *gate) drained() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == gateDrained
}
