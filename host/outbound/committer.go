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
	// maxApply and maxApplyBytes bound one Apply: the plugin boundary is made
	// for batches of a megabyte (ARCHITECTURE 4).
	maxApply      = 512
	maxApplyBytes = 1 << 20
	// maxWaiting and maxWaitingBytes bound the ops that wait for their Apply.
	maxWaiting      = 16384
	maxWaitingBytes = 64 << 20
	// applyPause is the wait before ops are repeated after a call that failed;
	// it doubles to applyPauseMax.
	applyPause    = 20 * time.Millisecond
	applyPauseMax = time.Second
	// downGrace is how long senders wait for a backend that is down: a restart
	// after a crash is at once and takes a fraction of it.
	downGrace = time.Second
	// isolateEvery is how many failures of a backend that is up bring an
	// attempt to find the op that it can't stand.
	isolateEvery = 4
)

// pending is an op on its way to the backend.
type pending struct {
	op   sdk.Op
	size int
	// done gets the result, once, and must not block; settlements use it. An
	// append's caller waits for crowd instead, in which this one is the at-th.
	done  func(sdk.OpResult)
	crowd *crowd
	at    int

	// inCall is true while a call carries the op, maybe once a call ended that
	// may have carried it out, gone when nobody waits for the append any more.
	// Guarded by the committer's mu.
	inCall, maybe, gone bool
	// asked is true for what a person asked for: nothing bounds how often.
	asked bool
	// passed, if not nil, makes it no op but a mark, closed when all before it
	// has left the committer.
	passed chan struct{}
}

// reply is what the caller of an append hears.
type reply struct {
	res sdk.OpResult
	err error
}

func (p *pending) isAppend() bool { return p.op.Kind == sdk.OpAppend }

// tell hands out what the caller of an append hears; only the first word counts.
func (p *pending) tell(r reply) { p.crowd.tell(p.at, r) }

// Committer puts the ops of whoever waits into one Apply at a time: who comes
// while a call is in flight rides the next one. An op leaves it only with a
// result: after a failed call the same ops are repeated, in the same order,
// and others join them. It is no plugin.Batcher, which gives a failed batch
// back to its callers: here a repeated op must stay ahead of those that came
// after it, and the result of an append must reach its lane even when its
// caller has left.
type Committer struct {
	outbox sdk.Outbox
	logger hclog.Logger
	// stored is told of every append that was stored, in the order of the
	// results, before the caller that waits for it.
	stored func(*sdk.Entry, sdk.OpResult)
	// doubtful is told of an entry that was given up and may be stored.
	doubtful func(*sdk.Entry)

	mu        sync.Mutex
	queue     []*pending
	bytes     int
	closed    bool
	lastErr   error
	trouble   trouble
	downSince time.Time // zero: up, as far as known
	retrying  bool      // ops are being repeated, so a return will be noticed
	wake      chan struct{}
	kicked    chan struct{} // the backend is back: repeat now
}

func newCommitter(outbox sdk.Outbox, logger hclog.Logger, stored func(*sdk.Entry, sdk.OpResult), doubtful func(*sdk.Entry)) *Committer {
	return &Committer{
		outbox: outbox, logger: logger, stored: stored, doubtful: doubtful,
		wake: make(chan struct{}, 1), kicked: make(chan struct{}, 1),
	}
}

// Append stores an entry and returns the backend's result. The error's Reason
// says what is known: with outcome_unknown the entry may be stored, with any
// other it is not and will not be.
func (c *Committer) Append(ctx context.Context, e sdk.Entry) (sdk.OpResult, error) {
	r := c.appendAll([]*sdk.Entry{&e}).wait(ctx)[0]
	return r.res, r.err
}

// Settle hands over an op whose result done gets, from the committer's
// goroutine. What can be settled is bounded by what is in flight. The error is
// that of a daemon that stops; then done is not called.
func (c *Committer) Settle(op sdk.Op, done func(sdk.OpResult)) error {
	return c.add(&pending{op: op, size: 256 + len(op.Error), done: done})
}

// Ask is Settle for what a person asked for, and refuses when too much waits.
func (c *Committer) Ask(op sdk.Op, done func(sdk.OpResult)) error {
	return c.add(&pending{op: op, size: 256, done: done, asked: true})
}

// Barrier returns when every op that was handed over before has left the
// committer, with ctx's error when that ends first.
func (c *Committer) Barrier(ctx context.Context) error {
	p := &pending{asked: true, passed: make(chan struct{})}
	if err := c.add(p); err != nil {
		return err
	}
	select {
	case <-p.passed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func errStopping() error {
	return sdk.Errorf(sdk.CodeUnavailable, "stopping", "the daemon is stopping").WithNext("Try again when it is back.")
}

func (c *Committer) add(p *pending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer signal(c.wake)
	return c.enqueue(p)
}

// enqueue is called with mu held; the caller wakes the committer.
func (c *Committer) enqueue(p *pending) error {
	switch {
	case c.closed:
		return errStopping()
	case !p.isAppend() && !p.asked:
	case p.isAppend() && c.retrying && c.downTooLong():
		return c.unavailable()
	case len(c.queue) >= maxWaiting || c.bytes+p.size > maxWaitingBytes:
		return sdk.Errorf(sdk.CodeUnavailable, "outbox_busy",
			"the outbox is behind: too much waits to be stored").WithNext("Try again in a second.")
	}
	c.queue = append(c.queue, p)
	c.bytes += p.size
	return nil
}

// signal leaves a token in a channel of room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Kick repeats at once what failed: the backend is back.
func (c *Committer) Kick() { signal(c.kicked) }

// leave ends the wait for an append and returns what its caller hears.
func (c *Committer) leave(p *pending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.gone = true
	if p.inCall || p.maybe {
		return c.outcomeUnknown()
	}
	return c.unavailable() // gone before any call: it is never carried
}

// outcomeUnknown says that the message may be stored, and why that is not
// known. Called with mu held.
func (c *Committer) outcomeUnknown() error {
	why := "the outbox did not answer in time"
	if c.lastErr != nil {
		why = "the outbox fails: " + c.lastErr.Error()
	}
	return sdk.Errorf(sdk.CodeTimeout, "outcome_unknown", "the message may or may not be stored: %s", why).
		WithNext("Send it again with the same client_message_id: it will not be sent twice.")
}

// unavailable says that nothing was stored. Called with mu held.
func (c *Committer) unavailable() error {
	why := "it did not answer"
	if c.lastErr != nil {
		why = c.lastErr.Error()
	}
	return sdk.Errorf(sdk.CodeUnavailable, "outbox_unavailable", "the outbox can't store the message: %s", why).
		WithNext("Nothing was stored. Try again; `meshhost plugin list` shows the state of the outbox.")
}

// downTooLong is called with mu held.
func (c *Committer) downTooLong() bool {
	return !c.downSince.IsZero() && time.Since(c.downSince) >= downGrace
}

// run carries ops until ctx ends; then it refuses new ones and has until final
// later for those that wait.
func (c *Committer) run(ctx context.Context, final time.Duration) {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-calls.Done():
			return
		}
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		pause(calls, final)
		cancel()
	})
	for {
		c.drain(calls)
		select {
		case <-c.wake:
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true // the goroutine above may come later
			c.mu.Unlock()
			c.drain(calls)
			return
		}
	}
}

// drain applies batches until nothing waits or ctx ends.
func (c *Committer) drain(ctx context.Context) {
	var batch []*pending
	wait, failures := applyPause, 0
	for {
		if batch = c.load(batch); len(batch) == 0 {
			return
		}
		err := c.carry(ctx, batch)
		if err == nil {
			clear(batch)
			batch, wait, failures = batch[:0], applyPause, 0
			continue
		}
		if ctx.Err() != nil {
			c.giveUp(batch, err)
			return
		}
		failures++
		c.logger.Debug("outbox call failed; the same ops are repeated", "ops", len(batch), "pause", wait.String(), "error", err)
		if errors.Is(err, sdk.ErrInvalid) || errors.Is(err, sdk.ErrInternal) && failures%isolateEvery == 0 {
			batch = c.isolate(ctx, batch)
		}
		c.rest(ctx, wait)
		wait = min(wait*2, applyPauseMax)
	}
}

// rest waits before a repetition.
func (c *Committer) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.kicked:
	case <-ctx.Done():
	}
}

// load fills a batch from the queue behind what is to be repeated, without the
// appends that nobody waits for.
func (c *Committer) load(batch []*pending) []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := batch
	batch = batch[:0]
	size := 0
	for _, p := range old {
		if !p.gone {
			batch = append(batch, p)
			size += p.size
		} else if p.maybe {
			c.doubtful(p.op.Entry)
		}
	}
	clear(old[len(batch):])
	c.retrying = len(batch) > 0
	n := 0
	for ; n < len(c.queue) && len(batch) < maxApply; n++ {
		p := c.queue[n]
		if p.gone {
			c.bytes -= p.size
			continue
		}
		if p.passed != nil {
			if len(batch) > 0 {
				break
			}
			close(p.passed)
			continue
		}
		if len(batch) > 0 && size+p.size > maxApplyBytes {
			break
		}
		c.bytes -= p.size
		size += p.size
		batch = append(batch, p)
	}
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	for _, p := range batch {
		p.inCall = true
	}
	return batch
}

// carry makes one call and hands out the results. After an error it has noted
// what may have been carried out.
func (c *Committer) carry(ctx context.Context, batch []*pending) error {
	ops := make([]sdk.Op, len(batch))
	for i, p := range batch {
		ops[i] = p.op
	}
	results, err := c.outbox.Apply(ctx, ops)
	if err == nil && len(results) != len(ops) {
		err = sdk.Errorf(sdk.CodeInternal, "bad_reply", "the outbox answered %d results for %d ops", len(results), len(ops))
	}
	if err != nil {
		c.failed(batch, err)
		return err
	}
	c.mu.Lock()
	c.lastErr, c.downSince = nil, time.Time{}
	c.trouble.ended(c.logger, "the outbox stores and settles messages: it works again")
	c.mu.Unlock()
	for i, p := range batch {
		c.finish(p, results[i])
	}
	return nil
}

// finish hands out one result.
func (c *Committer) finish(p *pending, r sdk.OpResult) {
	if !p.isAppend() {
		p.done(r)
		return
	}
	told := r
	switch {
	case r.Code == sdk.OpStored:
		c.stored(p.op.Entry, r)
	case r.Code == sdk.OpExists && r.ID == p.op.Entry.ID && r.State.Live():
		r.Prev = unknownPrev // stored by a call whose answer was lost
		c.stored(p.op.Entry, r)
	}
	p.tell(reply{res: told})
}
