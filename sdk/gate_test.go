package sdk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateLetsCallsInOnlyWhileServing(t *testing.T) {
	var g gate
	if err := g.enter(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("before Configure: %v", err)
	}
	if err := g.shut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.enter(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("during Configure: %v", err)
	}
	if err := g.shut(t.Context()); !errors.Is(err, ErrConflict) {
		t.Errorf("two Configures at once: %v", err)
	}
	g.open(gateServing)
	if err := g.enter(); err != nil {
		t.Errorf("after Configure: %v", err)
	}
	g.leave()
	if err := g.shut(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.open(gateDrained)
	if err := g.enter(); !errors.Is(err, ErrUnavailable) || !g.drained() {
		t.Errorf("after Drain: %v", err)
	}
}

func TestGateWaitsForCallsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{state: gateServing}
		for range 3 {
			if err := g.enter(); err != nil {
				t.Fatal(err)
			}
		}
		shut := make(chan error, 1)
		go func() { shut <- g.shut(t.Context()) }()
		synctest.Wait()
		g.leave()
		g.leave()
		synctest.Wait()
		select {
		case <-shut:
			t.Fatal("shut with a call in flight")
		default:
		}
		g.leave()
		if err := <-shut; err != nil {
			t.Error(err)
		}
		g.open(gateSame)
		if err := g.enter(); err != nil {
			t.Errorf("the state was lost: %v", err)
		}
	})
}

func TestGateGivesUpWithItsContextAndServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{state: gateServing}
		if err := g.enter(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.shut(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := g.enter(); err != nil {
			t.Errorf("after giving up: %v", err)
		}
	})
}
