package plugin

import (
	"context"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

// gate stands between the facades and the incarnations. It is open (calls go to
// in), shut (calls fail at once with why) or held (calls wait). The owner
// goroutine moves it; anyone may enter.
type gate struct {
	mu    sync.Mutex
	in    incarnation
	why   *sdk.Error
	held  chan struct{} // not nil while held; closed when that ends
	calls int           // entered and not left, whatever the incarnation
	idle  chan struct{} // not nil while someone waits for calls == 0
}

// enter returns the incarnation to call. Each nil error needs one leave.
func (g *gate) enter(ctx context.Context) (incarnation, error) {
	for {
		g.mu.Lock()
		held := g.held
		if held == nil {
			defer g.mu.Unlock()
			if g.in == nil {
				return nil, g.why
			}
			g.calls++
			return g.in, nil
		}
		g.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leave ends what enter began.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.calls == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// open sends calls to in, those that were held first.
func (g *gate) open(in incarnation) { g.move(in, nil) }

// shut fails calls with why, also those that were held.
func (g *gate) shut(why *sdk.Error) { g.move(nil, why) }

func (g *gate) move(in incarnation, why *sdk.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in, g.why = in, why
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// hold makes new calls wait until open or shut.
func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

// settle waits until no call is in flight. Hold or shut first.
func (g *gate) settle(ctx context.Context) error {
	g.mu.Lock()
	if g.calls == 0 {
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
