package inbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// One call of a handler takes at most these: crossing to a plugin costs the same for one push as for a hundred small ones.
	callItems = 64
	callBytes = 256 << 10
	// callTimeout is what a call has where nothing else is said.
	callTimeout = 30 * time.Second
	// loadPage is how many open work items are read at a time when a handler is taken on.
	loadPage = 5000
	// logEvery is how often at most a handler's failures are logged.
	logEvery = 10 * time.Second
	// While a handler is unavailable it is tried again after minDown doubling to maxDown, or at once on Wake.
	minDown = 500 * time.Millisecond
	maxDown = 10 * time.Second
)

// feeder is the goroutine of one handler, and its open work.
type feeder struct {
	r    *Receiver
	name string
	id   int64
	done chan struct{} // closed when run has ended

	logged   time.Time // when a failure was last logged; run's alone
	unlogged int       // failures since; run's alone

	mu     sync.Mutex
	h      Handler // guarded by mu
	work   *lanes  // guarded by mu
	ending bool    // guarded by mu
	awake  bool    // guarded by mu; Wake came since the last call
	notify chan struct{}
}

func newFeeder(r *Receiver, h Handler, id int64) *feeder {
	return &feeder{r: r, name: h.Name, id: id, h: h, work: newLanes(), done: make(chan struct{}), notify: make(chan struct{}, 1)}
}

// load takes the open work from the journal, before the feeder runs or gets anything new.
func (f *feeder) load(ctx context.Context) error {
	after := int64(0)
	for {
		page, err := f.r.opts.Journal.Work(ctx, f.id, after, loadPage)
		if err != nil {
			return err
		}
		for _, w := range page {
			f.work.add(item{seq: w.Seq, key: w.OrderKey, size: w.Bytes, attempts: w.Attempts, due: w.Due})
			after = w.Seq
		}
		if len(page) < loadPage {
			return nil
		}
	}
}

func (f *feeder) wants(p *sdk.Push) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.h.wants(p)
}

func (f *feeder) replace(h Handler) {
	f.mu.Lock()
	f.h = h
	f.mu.Unlock()
	f.ready()
}

// ready wakes a feeder that waits for its handler.
func (f *feeder) ready() {
	f.mu.Lock()
	f.awake = true
	f.mu.Unlock()
	f.signal()
}

// finish lets run end after the call in flight, if any. What is left is in the journal.
func (f *feeder) finish() {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.signal()
}

func (f *feeder) signal() {
	select {
	case f.notify <- struct{}{}:
	default:
	}
}

func (f *feeder) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.work.count
}

// add appends new work. Opened pushes are kept as far as the cache of all feeders has room.
func (f *feeder) add(items []item) {
	f.mu.Lock()
	for _, it := range items {
		if f.r.cached.Add(int64(it.size)) > cacheBytes {
			f.r.cached.Add(int64(-it.size))
			it.push = nil
		}
		f.work.add(it)
	}
	f.mu.Unlock()
	f.signal()
}

// run feeds the handler until finish or the receiver's context.
func (f *feeder) run() {
	defer close(f.done)
	defer f.release()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	down := time.Duration(0)
	for {
		lanes, items, wait, ending := f.next()
		if ending {
			return
		}
		if len(items) > 0 {
			verdict := f.call(items)
			f.settle(lanes, items, verdict)
			if !verdict.down {
				down = 0
				continue
			}
			down = min(max(2*down, minDown), maxDown)
			wait = jitter(down)
		}
		timer.Reset(wait)
		if !f.sleep(timer.C, down > 0) {
			return
		}
	}
}

// sleep waits for the clock or a signal. While the handler is down, new work is no reason to try it again. It returns false
// when the feeder is to end.
func (f *feeder) sleep(clock <-chan time.Time, down bool) bool {
	for {
		select {
		case <-clock:
			return true
		case <-f.r.ctx.Done():
			return false
		case <-f.notify:
		}
		f.mu.Lock()
		ending, awake := f.ending, f.awake
		f.mu.Unlock()
		if ending {
			return false
		}
		if !down || awake {
			return true
		}
	}
}

// next takes work in hand; without any due, wait says how long there is none by the clock.
func (f *feeder) next() (lanes []*lane, items []item, wait time.Duration, ending bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awake = false
	if f.ending || f.r.ctx.Err() != nil {
		return nil, nil, 0, true
	}
	now := time.Now()
	lanes, items, due := f.work.take(now, callItems, callBytes)
	wait = time.Hour
	if !due.IsZero() {
		wait = max(due.Sub(now), 0)
	}
	return lanes, items, wait, false
}

// call hands items to the handler.
func (f *feeder) call(items []item) verdict {
	f.mu.Lock()
	h := f.h
	f.mu.Unlock()
	outcomes := make([]sdk.Outcome, len(items))
	pushes, index, err := f.pushesOf(&h, items, outcomes)
	if err != nil {
		f.r.log.Warn("inbound: the journal can't be read; tried again", "handler", f.name, "error", err)
		return verdict{down: true}
	}
	if len(pushes) == 0 {
		return verdict{outcomes: outcomes}
	}
	limit := h.CallTimeout
	if limit <= 0 {
		limit = callTimeout
	}
	ctx, cancel := context.WithTimeout(f.r.ctx, limit)
	defer cancel()
	got, err := h.Push.Handle(ctx, pushes)
	switch {
	case f.r.ctx.Err() != nil && err != nil:
		return verdict{down: true} // cut off by us: it costs no attempt
	case errors.Is(err, sdk.ErrUnavailable) && !plugin.OutcomeUnknown(err):
		return verdict{down: true}
	case errors.Is(err, sdk.ErrUnavailable) && len(pushes) > 1:
		// The plugin died with these in hand. One of them may be why: each goes alone once it is back.
		return verdict{down: true, failed: true}
	case err == nil && len(got) != len(pushes):
		err = fmt.Errorf("%d outcomes for %d pushes", len(got), len(pushes))
	}
	if err != nil {
		f.warn(len(pushes), err)
		for _, i := range index {
			outcomes[i] = sdk.Outcome{Decision: sdk.Retry, Reason: err.Error()}
		}
		return verdict{outcomes: outcomes, failed: true}
	}
	for n, i := range index {
		outcomes[i] = got[n]
	}
	return verdict{outcomes: outcomes}
}

// warn logs a failed call, and how many there were since the last line.
func (f *feeder) warn(pushes int, err error) {
	if time.Since(f.logged) < logEvery {
		f.unlogged++
		return
	}
	f.r.log.Warn("inbound: a call of a push handler failed; its pushes are retried one by one", "handler", f.name, "pushes", pushes, "more", f.unlogged, "error", err)
	f.logged, f.unlogged = time.Now(), 0
}

// pushesOf makes the pushes for items, from memory or from the journal. index says which item each push is; an item without a
// push has its outcome already: it can't be had any more, or h doesn't want it, which nobody knew when it was journaled.
func (f *feeder) pushesOf(h *Handler, items []item, outcomes []sdk.Outcome) (pushes []sdk.Push, index []int, err error) {
	var missing []int64
	for i := range items {
		if items[i].push == nil {
			missing = append(missing, items[i].seq)
		}
	}
	frames := make(map[int64]*store.Frame, len(missing))
	if len(missing) > 0 {
		read, err := f.r.opts.Journal.Frames(f.r.ctx, missing)
		if err != nil {
			return nil, nil, err
		}
		for i := range read {
			frames[read[i].Seq] = &read[i]
		}
	}
	pushes, index = make([]sdk.Push, 0, len(items)), make([]int, 0, len(items))
	for i := range items {
		p := items[i].push
		if p == nil {
			fr := frames[items[i].seq]
			if fr == nil { // nothing is left of it: done
				outcomes[i] = sdk.Outcome{Decision: sdk.Drop, Reason: "no more in the journal"}
				continue
			}
			if p, err = f.r.restore(fr.Mesh, fr.ID, fr.ReceivedAt, fr.Sealed, fr.Frame); err != nil {
				outcomes[i] = sdk.Outcome{Decision: lost, Reason: err.Error()}
				continue
			}
		}
		if !h.wants(p) {
			outcomes[i] = sdk.Outcome{Decision: sdk.Drop}
			continue
		}
		push := *p
		push.Attempt = items[i].attempts + 1
		pushes, index = append(pushes, push), append(index, i)
	}
	return pushes, index, nil
}

// release gives the cache back what the open work held of it.
func (f *feeder) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ln := range f.work.byKey {
		for i := range ln.items {
			if ln.items[i].push != nil {
				f.r.cached.Add(int64(-ln.items[i].size))
				ln.items[i].push = nil
			}
		}
	}
}
