package outbound

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// Bounds of what a lane has in memory and on the wire.
const (
	maxInflight  = 256
	maxLaneRows  = 8192
	maxLaneBytes = 32 << 20
	fetchQueues  = 512
	fetchRows    = 2048
	// probeEvery is how often a message for an absent peer is tried at most.
	probeEvery = 10 * time.Minute
	// relistEvery is how often the peers are listed while something waits.
	relistEvery = time.Minute
	// maxWaitingTargets bounds the targets whose coming a lane watches for.
	maxWaitingTargets = 10000
)

// Lane sends what leaves as one identity on one mesh. Its goroutine owns all
// fields below mail; everything else reaches it by mail.
type Lane struct {
	name      string
	mesh      string
	outbox    sdk.Outbox
	committer *Committer
	link      Link
	pacer     *Pacer
	atRest    *identity.AtRest
	lease     leaseOptions
	logger    hclog.Logger
	now       func() time.Time
	jitter    func() float64
	changed   func(change)
	relist    func()

	mu    sync.Mutex
	inbox []any
	wake  chan struct{}

	queues map[string]*queue
	// ready are queues whose head may go, by priority: now, next, low.
	ready    [3][]*queue
	rows     int
	bytes    int
	inflight int
	// dirty is true when the backend may have due rows that memory lacks.
	dirty    bool
	fetching bool
	fetchAt  time.Time // zero: no known moment
	leased   leased
	waiting  map[string]struct{}
	relistAt time.Time
	// touched are targets that left memory while a Fetch was under way: what it
	// brings of them may be out of date.
	touched map[string]struct{}
	// pausedTo is when a ready queue may go that may not go now.
	pausedTo time.Time
	online   bool
	// drained is closed when draining and nothing is in flight or unsettled.
	draining bool
	drained  chan struct{}
	calls    sync.WaitGroup

	flightMu sync.Mutex
	flight   map[string]struct{} // ids on the wire, for InFlight
}

// change is a transition that others want to hear of.
type change struct {
	id, clientMessageID, mesh, target string
	state                             sdk.EntryState
	brokerMessageID, detail           string
}

// The mail of a lane.
type (
	mailStored struct {
		entry sdk.Entry
		res   sdk.OpResult
	}
	mailOutcome struct {
		q   *queue
		r   *row
		out Outcome
	}
	mailApplied struct {
		q   *queue
		r   *row
		op  sdk.Op
		res sdk.OpResult
	}
	mailFetched struct {
		res sdk.FetchResult
		err error
	}
	mailOnline struct{ online, fresh bool }
	mailPeers  struct{ keys []string }
	mailLease  struct {
		res sdk.Lease
		err error
		at  time.Time
	}
	mailDrop struct { // cancelled by a person
		id     string
		answer chan bool
	}
	mailLate    struct{ id, messageID string }
	mailDirty   struct{}
	mailWaiting struct{ targets []string }
	mailDrain   struct{}
)

func (l *Lane) post(m any) {
	l.mu.Lock()
	l.inbox = append(l.inbox, m)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run owns the lane until ctx ends.
func (l *Lane) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	l.dirty = true
	for {
		l.step(ctx)
		if d, ok := l.nextWake(); ok {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			l.calls.Wait()
			l.release(context.WithoutCancel(ctx))
			return
		}
	}
}

// step handles the mail and then does whatever is due.
func (l *Lane) step(ctx context.Context) {
	l.mu.Lock()
	mail := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, m := range mail {
		l.handle(m)
	}
	now := l.now()
	if l.draining {
		l.finishDrain()
		return
	}
	l.renew(ctx, now)
	if !l.mayWork(now) {
		return
	}
	if !l.fetchAt.IsZero() && !now.Before(l.fetchAt) {
		l.fetchAt, l.dirty = time.Time{}, true
	}
	l.fetch(ctx)
	l.send(now)
	if len(l.waiting) > 0 && !now.Before(l.relistAt) {
		l.relistAt = now.Add(relistEvery)
		l.relist()
	}
}

// mayWork reports whether rows may leave: connected and holding the lease.
func (l *Lane) mayWork(now time.Time) bool {
	return l.online && l.leased.valid(now)
}

// nextWake is the time until something is due without mail.
func (l *Lane) nextWake() (time.Duration, bool) {
	now := l.now()
	var at time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	earlier(l.leased.nextAt)
	if l.mayWork(now) {
		earlier(l.fetchAt)
		earlier(l.pausedTo)
		if len(l.waiting) > 0 {
			earlier(l.relistAt)
		}
	}
	if at.IsZero() {
		return 0, false
	}
	return max(at.Sub(now), time.Millisecond), true
}

func (l *Lane) handle(m any) {
	switch m := m.(type) {
	case mailStored:
		l.onStored(m.entry, m.res)
	case mailOutcome:
		l.onOutcome(m.q, m.r, m.out)
	case mailApplied:
		l.onApplied(m)
	case mailFetched:
		l.onFetched(m.res, m.err)
	case mailOnline:
		l.onOnline(m)
	case mailPeers:
		l.onPeers(m.keys)
	case mailLease:
		l.onLease(m)
	case mailDrop:
		m.answer <- l.onDrop(m.id)
	case mailLate:
		l.onLate(m.id, m.messageID)
	case mailDirty:
		l.dirty = true
	case mailDrain:
		l.draining = true
	case mailWaiting:
		for _, t := range m.targets {
			l.watch(t)
		}
	}
}

// queueOf returns the queue of a target, making it if need be.
func (l *Lane) queueOf(target string) *queue {
	q := l.queues[target]
	if q == nil {
		q = &queue{target: target}
		l.queues[target] = q
	}
	return q
}

func (l *Lane) full() bool { return l.rows >= maxLaneRows || l.bytes >= maxLaneBytes }

func (l *Lane) push(q *queue, r *row) {
	q.rows = append(q.rows, r)
	q.lastSeq = r.seq
	l.rows++
	l.bytes += r.size
	l.enlist(q)
}

// pop removes the head of q.
func (l *Lane) pop(q *queue) {
	r := q.rows[0]
	q.rows[0] = nil
	q.rows = q.rows[1:]
	l.rows--
	l.bytes -= r.size
}

// enlist puts q into the ready list if its head may go.
func (l *Lane) enlist(q *queue) {
	if q.ready || q.inflight || q.parked || len(q.rows) == 0 {
		return
	}
	q.ready = true
	p := rank(q.rows[0].msg.Priority)
	l.ready[p] = append(l.ready[p], q)
}

// rank orders priorities among due queues (PROTOCOL 4.1).
func rank(priority string) int {
	switch priority {
	case "now":
		return 0
	case "low":
		return 2
	default:
		return 1
	}
}

// InFlight reports whether an entry is on the wire. Safe for concurrent use.
func (l *Lane) InFlight(id string) bool {
	l.flightMu.Lock()
	defer l.flightMu.Unlock()
	_, ok := l.flight[id]
	return ok
}

// finishDrain closes drained once nothing is on the wire or unsettled.
func (l *Lane) finishDrain() {
	if l.inflight > 0 {
		return
	}
	for _, q := range l.queues {
		if q.unsettled > 0 {
			return
		}
	}
	select {
	case <-l.drained:
	default:
		close(l.drained)
	}
}

// forget drops q from memory if nothing is left of it; rows that only the
// backend has make the lane dirty.
func (l *Lane) forget(q *queue) {
	if !q.idle() {
		return
	}
	if q.more {
		l.dirty = true
	}
	if l.fetching {
		l.touched[q.target] = struct{}{}
	}
	delete(l.queues, q.target)
}

// stale drops what is in memory after the lease was somebody else's: rows may
// have left from there. What is on the wire is settled as it comes.
func (l *Lane) stale() {
	l.ready = [3][]*queue{}
	for _, q := range l.queues {
		q.ready = false
		for i := len(q.rows); i > 0; i-- {
			l.pop(q)
		}
		q.more = true
		l.forget(q)
	}
	l.dirty = true
}

// onStored takes a fresh row from memory if the backend put it directly behind
// what is here; otherwise Fetch will bring it in its turn.
func (l *Lane) onStored(e sdk.Entry, res sdk.OpResult) {
	e.Seq = res.Seq
	q, known := l.queues[e.Target]
	if !known {
		if res.Prev != 0 || l.full() {
			l.dirty = true // behind a head that backs off or waits, or no room
			return
		}
		q = l.queueOf(e.Target)
	}
	if len(q.rows) > 0 && res.Seq <= q.lastSeq {
		return // a Fetch brought it already
	}
	if l.full() || !q.follows(res.Prev) {
		q.more = true
		l.forget(q)
		return
	}
	if r, ok := l.open(&e); ok {
		l.push(q, r)
	}
}

// open unseals an entry; one that can't be opened is dead.
func (l *Lane) open(e *sdk.Entry) (*row, bool) {
	body, err := l.atRest.Open(e.Body)
	if err != nil {
		q := l.queueOf(e.Target)
		q.unsettled++
		q.lastSeq = e.Seq
		r := &row{msg: Message{ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target}, seq: e.Seq}
		l.settle(q, r, sdk.Op{Kind: sdk.OpDie, Error: "the stored body can't be opened with this member's key: " + err.Error()})
		return nil, false
	}
	return rowOf(e, hex.EncodeToString(e.Fingerprint), string(body)), true
}
