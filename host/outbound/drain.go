package outbound

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// retryMax caps the pause after refusals that may pass and after silence.
const retryMax = time.Minute

// fetch asks the backend for due rows that memory lacks, one call at a time.
func (l *Lane) fetch(ctx context.Context) {
	if !l.dirty || l.fetching || l.full() {
		return
	}
	held := make([]string, 0, len(l.queues))
	for t := range l.queues {
		held = append(held, t)
	}
	l.dirty, l.fetching = false, true
	req := sdk.FetchRequest{
		Lane: l.name, Epoch: l.leased.epoch, Held: held,
		MaxQueues: fetchQueues, MaxRows: min(fetchRows, maxLaneRows-l.rows),
	}
	l.calls.Go(func() {
		res, err := l.outbox.Fetch(ctx, req)
		l.post(mailFetched{res, err})
	})
}

func (l *Lane) onFetched(res sdk.FetchResult, err error) {
	l.fetching = false
	now := l.now()
	if err != nil {
		l.leased.failed(err)
		l.logger.Debug("fetch failed", "lane", l.name, "error", err)
		l.due(now.Add(time.Second))
		clear(l.touched)
		return
	}
	if res.More {
		l.dirty = true
	}
	if res.NextDue >= 0 {
		l.due(now.Add(res.NextDue))
	}
	for i := range res.Queues {
		l.load(&res.Queues[i])
	}
	clear(l.touched)
}

// load takes a fetched queue. Rows of a target that memory got hold of since
// the call are left to a later Fetch.
func (l *Lane) load(f *sdk.Queue) {
	if q, known := l.queues[f.Target]; known {
		q.more = true
		return
	}
	if _, left := l.touched[f.Target]; left {
		l.dirty = true
		return
	}
	q := l.queueOf(f.Target)
	for i := range f.Rows {
		if r, ok := l.open(&f.Rows[i]); ok {
			l.push(q, r)
		}
	}
	q.more = f.More
	l.forget(q)
}

// due makes sure that a Fetch happens at t.
func (l *Lane) due(t time.Time) {
	if l.fetchAt.IsZero() || t.Before(l.fetchAt) {
		l.fetchAt = t
	}
}

// send writes the heads of ready queues, as far as the window and the pacer
// allow. A queue has one message on the wire at most, since the broker handles
// pipelined sends concurrently (PROTOCOL 4.2).
func (l *Lane) send(now time.Time) {
	l.pausedTo = time.Time{}
	for p := range l.ready {
		ready := l.ready[p]
		l.ready[p] = nil
		for i, q := range ready {
			q.ready = false
			if q.inflight || q.parked || !l.dropExpired(q, now) {
				l.forget(q)
				continue
			}
			if now.Before(q.notBefore) {
				l.pauseTo(q.notBefore)
				l.enlist(q)
				continue
			}
			if !l.maySend(now) {
				q.ready = true
				l.ready[p] = append(l.ready[p], ready[i:]...)
				return
			}
			l.write(q)
		}
	}
}

// maySend takes a turn: room in the window, a connection, and the rate.
func (l *Lane) maySend(now time.Time) bool {
	if l.inflight >= maxInflight || !l.link.Ready() {
		return false
	}
	if d := l.pacer.Wait(now); d > 0 {
		l.pauseTo(now.Add(d))
		return false
	}
	return true
}

func (l *Lane) pauseTo(t time.Time) {
	if l.pausedTo.IsZero() || t.Before(l.pausedTo) {
		l.pausedTo = t
	}
}

// dropExpired settles heads that are worth nothing any more and reports whether
// a head is left.
func (l *Lane) dropExpired(q *queue, now time.Time) bool {
	for len(q.rows) > 0 && !q.rows[0].notAfter.IsZero() && now.After(q.rows[0].notAfter) {
		r := q.rows[0]
		l.pop(q)
		q.unsettled++
		l.settle(q, r, sdk.Op{Kind: sdk.OpExpire})
	}
	return len(q.rows) > 0
}

func (l *Lane) write(q *queue) {
	r := q.rows[0]
	q.inflight = true
	l.inflight++
	l.flightMu.Lock()
	l.flight[r.msg.ID] = struct{}{}
	l.flightMu.Unlock()
	l.link.Send(r.msg, func(out Outcome) { l.post(mailOutcome{q, r, out}) })
}

// onOutcome settles one attempt.
func (l *Lane) onOutcome(q *queue, r *row, out Outcome) {
	l.inflight--
	l.flightMu.Lock()
	delete(l.flight, r.msg.ID)
	l.flightMu.Unlock()
	q.inflight = false
	if len(q.rows) == 0 || q.rows[0] != r {
		l.orphan(q, r, out)
		return
	}
	now := l.now()
	switch out.Verdict {
	case Accepted:
		l.accepted(q, r, out.MessageID)
	case RateLimited:
		l.pacer.Limited(now, out.PerMinute)
	case NotSent:
		// The row keeps its place; the next connection takes it.
	case NoPeer:
		l.park(q, r, sdk.Op{Kind: sdk.OpWait, After: probeEvery, Error: out.Detail})
		l.watch(q.target)
		return
	case Refused:
		l.pop(q)
		q.unsettled++
		l.settle(q, r, sdk.Op{Kind: sdk.OpDie, Error: out.Detail})
	case Transient:
		l.park(q, r, sdk.Op{Kind: sdk.OpDefer, After: l.pause(r.attempts), Count: true, Error: out.Detail})
		return
	case Unknown:
		l.unanswered(q, r, out, now)
	}
	l.enlist(q)
}

// orphan settles an attempt whose row left memory meanwhile: completed by a late
// ack, or dropped with the lease. That the broker took it is a fact all the same.
func (l *Lane) orphan(q *queue, r *row, out Outcome) {
	if out.Verdict == Accepted {
		q.unsettled++
		l.settle(q, r, sdk.Op{Kind: sdk.OpAccepted, BrokerMessageID: out.MessageID, At: l.now(), Final: r.final})
	}
	l.enlist(q)
	l.forget(q)
}

// unanswered keeps a row that may be stored at its place: it goes again with
// the same client_message_id.
func (l *Lane) unanswered(q *queue, r *row, out Outcome, now time.Time) {
	r.unknown++
	if out.Poisoned {
		r.poisoned++
	}
	if r.poisoned >= 2 {
		l.pop(q)
		q.unsettled++
		l.settle(q, r, sdk.Op{Kind: sdk.OpDie, Error: "the broker closed the connection twice on this frame: " + out.Detail})
		return
	}
	if l.link.Ready() { // the ack timed out: give a late one a moment
		q.notBefore = now.Add(l.pause(r.unknown - 1))
	}
}

// pause is the wait after n earlier failures: 1 s doubling to retryMax, with
// full jitter in its upper half.
func (l *Lane) pause(n int) time.Duration {
	d := min(time.Second<<min(n, 6), retryMax)
	return d/2 + time.Duration(l.jitter()*float64(d/2))
}

func (l *Lane) accepted(q *queue, r *row, messageID string) {
	l.pop(q)
	q.unsettled++
	l.settle(q, r, sdk.Op{Kind: sdk.OpAccepted, BrokerMessageID: messageID, At: l.now(), Final: r.final})
}

// park hands the queue back to the backend until its head is due again. Its
// rows leave memory, so nothing behind the head can pass it.
func (l *Lane) park(q *queue, head *row, op sdk.Op) {
	for len(q.rows) > 0 {
		l.pop(q)
	}
	q.parked, q.more = true, false
	q.unsettled++
	l.settle(q, head, op)
}

// settle hands an op for r to the committer. Fenced ops carry the epoch.
func (l *Lane) settle(q *queue, r *row, op sdk.Op) {
	op.ID = r.msg.ID
	if op.Kind.Fenced() {
		op.Lane, op.Epoch = l.name, l.leased.epoch
	}
	l.committer.Settle(op, func(res sdk.OpResult) { l.post(mailApplied{q, r, op, res}) })
}

// onApplied lets go of a row whose settlement is durable.
func (l *Lane) onApplied(m mailApplied) {
	if m.res.Code == sdk.OpFenced {
		l.leased.lost()
	}
	if c, ok := changeOf(l.mesh, m); ok {
		l.changed(c)
	}
	q := m.q
	if q == nil {
		l.dirty = true // a wake
		return
	}
	q.unsettled--
	if q.parked && q.unsettled == 0 {
		q.parked = false
		if m.op.Kind == sdk.OpDefer || m.op.Kind == sdk.OpWait {
			l.due(l.now().Add(m.op.After))
		}
		if m.res.Code != sdk.OpApplied {
			l.dirty = true // not as expected: look again
		}
		if q.more { // rows came while it was parked; they are behind the head
			q.more = false
		}
	}
	l.forget(q)
	l.enlist(q)
}

// changeOf says which transition an applied op was.
func changeOf(mesh string, m mailApplied) (change, bool) {
	if m.res.Code != sdk.OpApplied || m.r == nil {
		return change{}, false
	}
	c := change{
		id: m.r.msg.ID, clientMessageID: m.r.msg.ClientMessageID, mesh: mesh, target: m.r.msg.Target,
		brokerMessageID: m.op.BrokerMessageID, detail: m.op.Error,
	}
	switch m.op.Kind {
	case sdk.OpAccepted:
		c.state = sdk.StateAccepted
	case sdk.OpDie:
		c.state = sdk.StateDead
	case sdk.OpExpire:
		c.state = sdk.StateExpired
	case sdk.OpWait:
		c.state = sdk.StateWaiting
	case sdk.OpDefer:
		c.state = sdk.StatePending
	default:
		return change{}, false
	}
	return c, true
}

// onDrop takes a cancelled row out of memory; false if it is on the wire.
func (l *Lane) onDrop(id string) bool {
	for _, q := range l.queues {
		for i, r := range q.rows {
			if r.msg.ID != id {
				continue
			}
			if i == 0 && q.inflight {
				return false
			}
			q.rows = append(q.rows[:i:i], q.rows[i+1:]...)
			l.rows--
			l.bytes -= r.size
			l.forget(q)
			return true
		}
	}
	return true
}

// onLate takes an ack that came after its timeout: a fact from any time.
func (l *Lane) onLate(id, messageID string) {
	for _, q := range l.queues {
		if len(q.rows) > 0 && q.rows[0].msg.ID == id {
			r := q.rows[0]
			l.accepted(q, r, messageID)
			l.enlist(q)
			return
		}
	}
	op := sdk.Op{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: messageID, At: l.now()}
	l.committer.Settle(op, func(res sdk.OpResult) { l.post(mailApplied{op: op, res: res}) })
}
