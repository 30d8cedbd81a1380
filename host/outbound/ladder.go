package outbound

import (
	"container/heap"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// Bounds of what a mesh's broker is asked (ARCHITECTURE 5).
const (
	// asksPerSecond is the most asks in any one second, those of who waits
	// included. message_status does not count towards the broker's limit of
	// sends (PROTOCOL 1.7).
	asksPerSecond = 5
	// maxAsking bounds the asks without an answer yet; one takes 5 s at most.
	maxAsking = 8
	// maxLadderRows bounds the accepted rows in memory; the others come when
	// there is room.
	maxLadderRows = 10000
	// maxUrged bounds the rows that somebody waits for.
	maxUrged = 1024
	// askEvery is the time between asks once the steps are used up; each comes up
	// to askJitter later.
	askEvery  = time.Hour
	askJitter = 5 * time.Minute
	// resendWithin is how long after its acceptance a message that the broker no
	// longer knows goes again: the broker itself drops what nobody took for 7
	// days (PROTOCOL 4.6).
	resendWithin = 6 * 24 * time.Hour
	// maxResends is how often that happens to one message: a broker that forgets
	// what it delivered must not make its peers get it for days.
	maxResends = 3
	// maxResent bounds the messages of which that is counted.
	maxResent = 10000
)

// ladder asks the broker what became of the direct rows that it accepted
// (PROTOCOL 7.6): at once for who waits, else at the steps and then hourly. Its
// own goroutine asks, so that neither sends nor other meshes notice. Only the
// holder of the lane asks without being waited for. Rows that find no room are
// known to the backend, which is scanned when there is some.
type ladder struct {
	lane      string
	mesh      string
	outbox    sdk.Outbox
	committer *Committer
	link      Link
	logger    hclog.Logger
	now       func() time.Time
	jitter    func() float64
	changed   func(*change)
	trail     *trail
	// failed ends the wait of who waits for a row; nil: look again.
	failed func(id string, err error)
	post   func(any) // mail to the lane

	wake  chan struct{}
	calls sync.WaitGroup

	mu     sync.Mutex
	online bool
	epoch  int64 // 0: somebody else's lane, as far as known
	until  time.Time
	rows   map[string]*rung
	due    rungs
	// urged are rows that somebody waits for, in turn; they need not be in rows.
	urged  []*rung
	asking map[string]struct{} // ids that are asked for
	// recent are the times of the last asks, next the oldest of them.
	recent [asksPerSecond]time.Time
	next   int
	turns  int // asks made
	listed int
	// resent counts how often a message went again.
	resent map[string]int
	fill   fill
	// paused is true while the lane drains. asks is what the asks under way run on:
	// cancelled by it.
	paused bool
	life   context.Context // run's; nil before it
	asks   context.Context
	cancel context.CancelFunc

	counts *LadderCounts
}

// LadderCounts counts what the ladders of one mesh did since the start.
type LadderCounts struct {
	// Asked counts asks, Delivered those that told of a delivery, Resent messages
	// that the broker had lost and that went again, Unknown those that it had
	// lost and that did not.
	Asked, Delivered, Resent, Unknown atomic.Int64
}

// LadderStats is LadderCounts at one moment, and what there is now.
type LadderStats struct {
	Asked, Delivered, Resent, Unknown int64
	// Rows are the messages in memory that are asked for; More is true when the
	// outbox has others, which come when there is room.
	Rows int
	More bool
}

func newLadder(l *Lane, counts *LadderCounts) *ladder {
	return &ladder{
		lane: l.name, mesh: l.mesh, outbox: l.outbox, committer: l.committer, link: l.link, logger: l.logger,
		now: l.now, jitter: l.jitter, changed: l.changed, post: l.post,
		trail: l.trail, failed: l.failed,
		wake: make(chan struct{}, 1), rows: map[string]*rung{}, asking: map[string]struct{}{},
		resent: map[string]int{}, counts: counts,
	}
}

// run asks until ctx ends.
func (d *ladder) run(ctx context.Context) {
	defer d.calls.Wait()
	d.mu.Lock()
	d.life = ctx
	d.asks, d.cancel = context.WithCancel(ctx)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cancel()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if wait, ok := d.step(ctx); ok {
			timer.Reset(max(wait, time.Millisecond))
		} else {
			timer.Stop()
		}
		select {
		case <-d.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// step starts what is due and returns the time until something else is.
func (d *ladder) step(ctx context.Context) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.online || d.paused {
		return 0, false
	}
	asks := d.asks
	now := d.now()
	d.scan(ctx, now)
	for {
		r, wait, ok := d.take(now)
		if r == nil {
			return d.sooner(wait, ok, now)
		}
		d.recent[d.next], d.next = now, (d.next+1)%asksPerSecond
		d.turns++
		d.counts.Asked.Add(1)
		d.asking[r.id] = struct{}{}
		d.calls.Go(func() { d.ask(asks, r) })
	}
}

// take chooses the next row to ask for, or says how long there is none. Who
// waits goes first, but for each fifth turn.
func (d *ladder) take(now time.Time) (*rung, time.Duration, bool) {
	var scheduled *rung
	if len(d.due) > 0 && d.holds(now) {
		scheduled = d.due[0]
	}
	ready := scheduled != nil && !now.Before(scheduled.due)
	switch {
	case len(d.asking) >= maxAsking:
		return nil, 0, false // an answer wakes us
	case len(d.urged) == 0 && scheduled == nil:
		return nil, 0, false
	case len(d.urged) == 0 && !ready:
		return nil, scheduled.due.Sub(now), true
	case !d.link.Ready():
		return nil, time.Second, true
	}
	if wait := d.recent[d.next].Add(time.Second).Sub(now); !d.recent[d.next].IsZero() && wait > 0 {
		return nil, wait, true
	}
	if ready && (len(d.urged) == 0 || d.turns%asksPerSecond == asksPerSecond-1) {
		heap.Pop(&d.due)
		return scheduled, 0, false
	}
	r := d.urged[0]
	d.urged[0] = nil
	d.urged = d.urged[1:]
	if known := d.rows[r.id]; known != nil {
		r = known
		d.unlist(r)
	}
	return r, 0, false
}

// holds reports whether the lane is ours.
func (d *ladder) holds(now time.Time) bool { return d.epoch != 0 && now.Before(d.until) }

// unlist takes r out of the heap.
func (d *ladder) unlist(r *rung) {
	if r.at >= 0 {
		heap.Remove(&d.due, r.at)
	}
}

// setOnline follows the connection. What became due without one is asked for
// when there is one again.
func (d *ladder) setOnline(online bool) {
	d.mu.Lock()
	d.online = online
	d.mu.Unlock()
	signal(d.wake)
}

// hold tells of the lane's lease. Another epoch begins with what the backend
// has: others may have had the lane meanwhile.
func (d *ladder) hold(epoch int64, until time.Time) {
	d.mu.Lock()
	if epoch != d.epoch {
		d.epoch = epoch
		clear(d.rows)
		d.due = nil
		d.fill = fill{more: epoch != 0, first: true, gen: d.fill.gen + 1, scanning: d.fill.scanning}
	}
	d.until = until
	d.mu.Unlock()
	signal(d.wake)
}

// pause ends the asks under way and starts none until goOn. The lane hears when
// the last has ended and what it found out is settled.
func (d *ladder) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	if d.cancel != nil {
		d.cancel()
	}
}

// goOn ends a pause.
func (d *ladder) goOn() {
	d.mu.Lock()
	d.paused = false
	if d.life != nil {
		d.cancel()
		d.asks, d.cancel = context.WithCancel(d.life)
	}
	d.mu.Unlock()
	signal(d.wake)
}

// idle reports whether nothing is asked for or unsettled.
func (d *ladder) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.asking) == 0
}

// holding reports whether this host sends the lane. Safe for concurrent use.
func (d *ladder) holding() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holds(d.now())
}

// add takes a row that the broker has just accepted.
func (d *ladder) add(r *rung) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch == 0 || d.rows[r.id] != nil {
		return // whoever has the lane finds it
	}
	if len(d.rows) >= maxLadderRows {
		d.fill.more, d.fill.missed = true, true
		return
	}
	d.rows[r.id] = r
	d.list(r, askSteps[0])
}

// list puts r into the heap, due at a time since its acceptance.
func (d *ladder) list(r *rung, after time.Duration) {
	now := d.now()
	if after > askSteps[len(askSteps)-1] {
		after += time.Duration(d.jitter() * float64(askJitter))
	}
	r.due = now.Add(after - r.age(now)) // keeps the monotonic clock
	d.listed++
	r.turn = d.listed
	heap.Push(&d.due, r)
	if r.at == 0 {
		signal(d.wake)
	}
}

// urge asks soon for a row that somebody waits for. The answer comes by changed
// or failed.
func (d *ladder) urge(r *rung) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, asking := d.asking[r.id]; asking || len(d.urged) >= maxUrged {
		return
	}
	if slices.ContainsFunc(d.urged, func(u *rung) bool { return u.id == r.id }) {
		return
	}
	d.urged = append(d.urged, r)
	signal(d.wake)
}

// ask asks once. The row is not in the heap meanwhile.
func (d *ladder) ask(ctx context.Context, r *rung) {
	delivered, at, err := d.link.Delivered(ctx, r.brokerMessageID)
	switch {
	case errors.Is(err, ErrUnknownMessage):
		d.unknown(ctx, r)
	case err == nil && delivered:
		if at.IsZero() {
			at = d.now()
		}
		d.delivered(ctx, r, at.Truncate(time.Millisecond))
	case err != nil && (ctx.Err() != nil || !d.link.Ready()):
		d.putBack(r, false)
	default:
		detail := "not delivered yet"
		if err != nil {
			detail = "the broker gave no answer: " + clip(err.Error())
		}
		d.trail.note(r.id, r.clientMessageID, Hop{At: d.now(), Name: HopAsked, Detail: detail})
		d.putBack(r, true)
	}
}

// putBack ends an ask that settled nothing. A row that has been asked for goes
// to its next step; one that is past the first steps makes room for others if
// the backend has some.
func (d *ladder) putBack(r *rung, asked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered(r)
	if d.rows[r.id] != r || r.at >= 0 {
		return
	}
	now := d.now()
	switch after := askAfter(r.age(now)); {
	case !asked:
		heap.Push(&d.due, r) // due as before: as soon as there is a connection
	case d.fill.more && after > askSteps[len(askSteps)-1]:
		delete(d.rows, r.id)
		d.fill.missed = true
	default:
		d.list(r, after)
	}
}

// answered frees the place of an ask. Called with mu held.
func (d *ladder) answered(r *rung) {
	delete(d.asking, r.id)
	signal(d.wake)
	if d.paused && len(d.asking) == 0 {
		d.post(mailIdle{})
	}
}

// remove forgets a row that is settled. One that was accepted again since has
// another id at the broker and stays.
func (d *ladder) remove(r *rung) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered(r)
	if known := d.rows[r.id]; known != nil && known.brokerMessageID == r.brokerMessageID {
		d.unlist(known)
		delete(d.rows, r.id)
	}
}

// size is how many rows are in memory, and whether there are more.
func (d *ladder) size() (int, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rows), d.fill.more
}

// nextAsk is when a row is asked for; zero if it is not in memory.
func (d *ladder) nextAsk(id string) (at time.Time, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.rows[id]; r != nil {
		return r.due, d.fill.more
	}
	return time.Time{}, d.fill.more
}
