package outbound

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// maxApply bounds one Apply; at 1 KiB an entry it is about half the batch
	// size of 1 MiB that the plugin boundary is made for.
	maxApply = 512
	// maxWaiting bounds the ops that wait for their Apply.
	maxWaiting = 16384
	// applyPause is the wait before the same ops are repeated after a call
	// that failed; it doubles to applyPauseMax.
	applyPause    = 20 * time.Millisecond
	applyPauseMax = time.Second
)

// errBusy is the answer when maxWaiting ops wait already.
var errBusy = sdk.Errorf(sdk.CodeUnavailable, "outbox_busy",
	"the outbox is behind: too many messages wait to be stored").WithNext("Try again in a second.")

// pending is an op on its way to the backend.
type pending struct {
	op sdk.Op
	// done gets the result, once, and must not block; settlements use it. An
	// append's caller waits on reply instead.
	done  func(sdk.OpResult)
	reply chan sdk.OpResult
}

// Committer puts the ops of whoever waits into one Apply at a time: who comes
// while a call is in flight rides the next one. An op leaves it only with a
// result: after a failed call the same ops are repeated, in the same order.
type Committer struct {
	outbox sdk.Outbox
	logger hclog.Logger
	// stored is told of every append that was stored, in the order of the
	// results, before the caller that waits for it.
	stored func(sdk.Entry, sdk.OpResult)

	mu      sync.Mutex
	queue   []pending
	closed  bool
	lastErr error
	wake    chan struct{}
}

func newCommitter(outbox sdk.Outbox, logger hclog.Logger, stored func(sdk.Entry, sdk.OpResult)) *Committer {
	return &Committer{outbox: outbox, logger: logger, stored: stored, wake: make(chan struct{}, 1)}
}

// Append stores an entry and returns the backend's result. If ctx ends first or
// the backend can't be reached, the error says whether the outcome is unknown.
func (c *Committer) Append(ctx context.Context, e sdk.Entry) (sdk.OpResult, error) {
	p := pending{op: sdk.Op{Kind: sdk.OpAppend, Entry: &e}, reply: make(chan sdk.OpResult, 1)}
	if err := c.add(p, true); err != nil {
		return sdk.OpResult{}, err
	}
	if ackBeforeStore {
		return sdk.OpResult{Code: sdk.OpStored, ID: e.ID}, nil
	}
	select {
	case r := <-p.reply:
		return r, nil
	case <-ctx.Done():
	}
	if c.withdraw(&p) {
		return sdk.OpResult{}, c.unavailable()
	}
	select {
	case r := <-p.reply:
		return r, nil
	default:
	}
	return sdk.OpResult{}, sdk.Errorf(sdk.CodeTimeout, "outcome_unknown",
		"the outbox did not answer in time: the message may or may not be stored").
		WithNext("Send it again with the same client_message_id: it will not be sent twice.")
}

// Settle hands over an op whose result done gets. It never refuses: what can be
// settled is bounded by what is in flight.
func (c *Committer) Settle(op sdk.Op, done func(sdk.OpResult)) {
	_ = c.add(pending{op: op, done: done}, false) // unbounded adds fail only after close
}

func (c *Committer) add(p pending, bounded bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return sdk.Errorf(sdk.CodeUnavailable, "stopping", "the daemon is stopping").WithNext("Try again when it is back.")
	}
	if bounded && len(c.queue) >= maxWaiting {
		return errBusy
	}
	c.queue = append(c.queue, p)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// withdraw takes an append back that no call has carried yet.
func (c *Committer) withdraw(p *pending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.queue {
		if c.queue[i].reply == p.reply {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return true
		}
	}
	return false
}

func (c *Committer) unavailable() error {
	c.mu.Lock()
	err := c.lastErr
	c.mu.Unlock()
	why := "it did not answer"
	if err != nil {
		why = err.Error()
	}
	return sdk.Errorf(sdk.CodeUnavailable, "outbox_unavailable", "the outbox can't store the message: %s", why).
		WithNext("Nothing was stored. Try again; `meshhost plugin list` shows the state of the outbox.")
}

// run carries ops until ctx ends and then makes one last attempt for what
// waits, within the time that final allows.
func (c *Committer) run(ctx context.Context, final time.Duration) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), final)
			c.drain(last)
			cancel()
			return
		}
		c.drain(ctx)
	}
}

// drain applies batches until nothing waits or ctx ends.
func (c *Committer) drain(ctx context.Context) {
	ops := make([]sdk.Op, 0, maxApply)
	for {
		batch := c.take()
		if len(batch) == 0 {
			return
		}
		ops = ops[:0]
		for i := range batch {
			ops = append(ops, batch[i].op)
		}
		results, err := c.apply(ctx, ops)
		if err != nil {
			// The daemon is stopping. Nobody was told "stored"; callers hear
			// that the outcome is unknown when their own wait ends.
			c.logger.Warn("outbox ops were not settled before the stop; they will be repeated or sent again",
				"ops", len(ops), "error", err)
			return
		}
		for i := range batch {
			p := &batch[i]
			if p.op.Kind == sdk.OpAppend {
				if r := results[i]; r.Code == sdk.OpStored || r.Code == sdk.OpExists && r.ID == p.op.Entry.ID && r.State == sdk.StatePending {
					if r.Code == sdk.OpExists {
						r.Prev = unknownPrev
					}
					c.stored(*p.op.Entry, r)
				}
				p.reply <- results[i]
				continue
			}
			p.done(results[i])
		}
	}
}

func (c *Committer) take() []pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxApply)
	batch := append([]pending(nil), c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	return batch
}

// apply calls the backend until it answers for every op.
func (c *Committer) apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	pause := applyPause
	for {
		results, err := c.outbox.Apply(ctx, ops)
		if err == nil && len(results) != len(ops) {
			err = errors.New("the outbox answered with a wrong number of results")
		}
		c.mu.Lock()
		c.lastErr = err
		c.mu.Unlock()
		if err == nil {
			return results, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		c.logger.Debug("outbox call failed; the same ops are repeated", "ops", len(ops), "pause", pause, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
		pause = min(pause*2, applyPauseMax)
	}
}
