package outbound

import (
	"context"
	"sync"
)

// gate stands before what changes rows. Open, it lets everybody through; shut,
// it makes them wait, or refuses them with a reason. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // not nil while shut; closed when it opens
	why    error         // while shut; nil: who comes waits
	inside int
	idle   chan struct{} // not nil while somebody waits for inside == 0
}

// enter goes in, waiting at a gate that is shut without a reason until ctx
// ends. Each nil error needs one leave.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		opened, why := g.opened, g.why
		if opened == nil {
			g.inside++
		}
		g.mu.Unlock()
		switch {
		case opened == nil:
			return nil
		case why != nil:
			return why
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// shut lets nobody in any more; why is what they hear, nil makes them wait.
func (g *gate) shut(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = why
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = nil
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// empty returns when nobody is inside, or with ctx's error. Shut first.
func (g *gate) empty(ctx context.Context) error {
	g.mu.Lock()
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
