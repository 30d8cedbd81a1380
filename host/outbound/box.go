package outbound

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// box is one outbox with what serves it.
type box struct {
	Backend
	name      string
	committer *Committer
	reads     *reads // from Start on
	// gate stands before everything that people change in it.
	gate gate
	// stop ends the committer; stopPruning ends the removal of old records and
	// returns when it has.
	stop, stopPruning func()
	// held is true between Hold and Resume; guarded by Outbound.turn.
	held bool
}

// enter keeps the outbox open to changes until gate.leave is called.
func (b *box) enter(ctx context.Context) error {
	err := b.gate.enter(ctx)
	if err != nil && err == ctx.Err() {
		err = reloading("outbox " + b.name + " is being changed")
	}
	return err
}

// serve starts the committer and what reads.
func (o *Outbound) serve(b *box) {
	var ctx context.Context
	ctx, b.stop = context.WithCancel(o.storeCtx)
	b.reads = newReads(b.Outbox)
	o.wg.Go(func() { b.committer.run(ctx, 2*time.Second) })
	o.keepPruned(b)
}

// keepPruned starts the removal of old records.
func (o *Outbound) keepPruned(b *box) {
	ctx, cancel := context.WithCancel(o.laneCtx)
	ended := make(chan struct{})
	b.stopPruning = func() { cancel(); <-ended }
	o.wg.Go(func() {
		defer close(ended)
		o.pruneLoop(ctx, b.Outbox)
	})
}

// pruneLoop removes finished records that are too old, at start and hourly.
func (o *Outbound) pruneLoop(ctx context.Context, outbox sdk.Outbox) {
	var unpruned trouble
	for {
		n, err := outbox.Prune(ctx, sdk.PruneRequest{Before: time.Now().Add(-recordLifetime), Limit: pruneBatch})
		wait := pruneEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = time.Minute
			o.opts.Logger.Debug("prune failed", "error", err)
			unpruned.failed(o.opts.Logger, "finished messages can't be removed from the outbox", err)
		case n == pruneBatch:
			wait = time.Second
		}
		if err == nil {
			unpruned.ended(o.opts.Logger, "finished messages can be removed from the outbox again")
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// pause waits d; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
