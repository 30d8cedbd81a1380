package plugin

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestGateHoldsCallsUntilItOpensOrTheirTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		in := &fakeRun{}
		g.open(in)
		if _, err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.hold()
		settled := make(chan error, 1)
		go func() { settled <- g.settle(t.Context()) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("held call: %v", err)
		}
		if len(settled) > 0 {
			t.Fatal("settled with a call in flight")
		}
		g.leave()
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got, err := g.enter(t.Context()); err != nil || got != in {
					t.Errorf("%v, %v", got, err)
				}
				g.leave()
			})
		}
		synctest.Wait()
		g.open(in)
		wg.Wait()
		down := &sdk.Error{Reason: ReasonDown}
		g.hold()
		go func() { _, err := g.enter(t.Context()); settled <- err }()
		synctest.Wait()
		g.shut(down)
		if err := <-settled; !errors.Is(err, error(down)) {
			t.Fatalf("held call of a gate that was shut: %v", err)
		}
	})
}
