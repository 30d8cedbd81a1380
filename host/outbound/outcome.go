package outbound

import (
	"context"
	"strings"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// retryMax caps the pause after refusals that may pass and after silence.
	retryMax = time.Minute
	// notSentPause is the wait after a connection that took nothing although it
	// said that it was ready.
	notSentPause = 50 * time.Millisecond
	// maxDetail bounds the broker's words that are kept, in bytes.
	maxDetail = 1000
)

// onOutcome settles one attempt.
func (l *Lane) onOutcome(q *queue, r *row, out Outcome) {
	l.inflight--
	l.flightMu.Lock()
	delete(l.flight, r.msg.ID)
	l.flightMu.Unlock()
	q.inflight = false
	now := l.now()
	l.trail.note(r.msg.ID, r.msg.ClientMessageID, Hop{At: r.sentAt, Name: HopSent, Detail: out.why()})
	switch out.Verdict {
	case RateLimited:
		l.pacer.Limited(now, out.PerMinute)
	case NotSent:
		l.holdTo = now.Add(notSentPause)
	}
	if len(q.rows) == 0 || q.rows[0] != r {
		l.orphan(q, r, out)
		return
	}
	if !out.Poisoned && out.Verdict != NotSent && r.poisoned > 0 {
		r.poisoned = 0 // it went alone, and the socket did not die of it
		delete(l.suspects, r)
	}
	switch out.Verdict {
	case Accepted:
		l.accepted(q, r, out.MessageID)
	case RateLimited, NotSent:
		// The row keeps its place and goes again; that costs no attempt.
	case NoPeer:
		l.park(q, r, sdk.Op{Kind: sdk.OpWait, After: l.probeIn(), Error: out.Detail})
		l.watch(q.target, r.msg.ID, r.msg.ClientMessageID)
	case Refused:
		l.die(q, r, out.Detail)
	case Transient:
		l.park(q, r, sdk.Op{Kind: sdk.OpDefer, After: l.pause(r.attempts), Count: true, Error: out.Detail})
	default:
		l.unanswered(q, r, out, now)
	}
	l.enlist(q)
}

// why says what became of an attempt that leaves the row as it is; other
// attempts end with a transition, which says it.
func (o *Outcome) why() string {
	switch o.Verdict {
	case RateLimited:
		return "the broker's rate limit; that costs no attempt"
	case NotSent:
		return "not written: the connection was gone"
	case Unknown:
		return "no ack came: " + clip(o.Detail)
	default:
		return ""
	}
}

// orphan settles an attempt whose row left memory meanwhile: completed by a late
// ack, or dropped with the lease. That the broker took it is a fact all the same.
func (l *Lane) orphan(q *queue, r *row, out Outcome) {
	if out.Verdict == Accepted {
		l.settle(q, r, acceptedOp(r, out.MessageID, l.now()))
	}
	l.enlist(q)
	l.forget(q)
}

// unanswered keeps a row that may be stored at its place: it goes again with
// the same client_message_id.
func (l *Lane) unanswered(q *queue, r *row, out Outcome, now time.Time) {
	if out.Poisoned {
		if r.poisoned++; r.poisoned >= 2 {
			l.die(q, r, "the broker closed the connection twice on this frame: "+out.Detail)
			return
		}
		l.suspects[r] = q
		return
	}
	r.unknown++
	if l.link.Ready() { // the ack timed out: give a late one a moment
		q.notBefore = now.Add(l.pause(r.unknown - 1))
	}
}

// pause is the wait after n earlier failures: 1 s doubling to retryMax, with
// full jitter in its upper half.
func (l *Lane) pause(n int) time.Duration {
	d := min(time.Second<<max(min(n, 6), 0), retryMax)
	return d/2 + time.Duration(l.jitter()*float64(d/2))
}

func acceptedOp(r *row, messageID string, now time.Time) sdk.Op {
	return sdk.Op{Kind: sdk.OpAccepted, BrokerMessageID: messageID, At: now, Final: r.final}
}

func (l *Lane) accepted(q *queue, r *row, messageID string) {
	delete(l.waiting, q.target)
	l.pop(q)
	l.settle(q, r, acceptedOp(r, messageID, l.now()))
}

func (l *Lane) die(q *queue, r *row, why string) {
	l.pop(q)
	l.settle(q, r, sdk.Op{Kind: sdk.OpDie, Error: why})
}

// park hands the queue back to the backend until its head is due again. Its
// rows leave memory, so nothing behind the head can pass it.
func (l *Lane) park(q *queue, head *row, op sdk.Op) {
	for len(q.rows) > 0 {
		l.pop(q)
	}
	q.parked, q.more = true, false
	l.settle(q, head, op)
}

// settlement is an op on its way to the backend for a row that left memory.
type settlement struct {
	q   *queue
	r   *row
	op  sdk.Op
	res sdk.OpResult
}

// settle hands an op for r to the committer. Fenced ops carry the epoch. A
// committer that is closed leaves the row to the next run.
func (l *Lane) settle(q *queue, r *row, op sdk.Op) {
	op.ID = r.msg.ID
	op.Error, op.BrokerMessageID = clip(op.Error), clip(op.BrokerMessageID)
	if op.Kind.Fenced() {
		op.Lane, op.Epoch = l.name, l.leased.epoch
	}
	s := &settlement{q: q, r: r, op: op}
	q.unsettled++
	l.unsettled++
	_ = l.committer.Settle(op, func(res sdk.OpResult) {
		s.res = res
		l.post(s)
	})
}

// clip makes a text of others fit to be stored.
func clip(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// onApplied lets go of a row whose settlement is durable.
func (l *Lane) onApplied(s *settlement) {
	q := s.q
	q.unsettled--
	l.unsettled--
	switch s.res.Code {
	case sdk.OpApplied:
		l.changed(changeOf(l.mesh, s))
		if s.op.Kind == sdk.OpAccepted && !s.op.Final {
			l.ladder.add(&rung{
				id: s.r.msg.ID, clientMessageID: s.r.msg.ClientMessageID, target: s.r.msg.Target,
				brokerMessageID: s.op.BrokerMessageID, acceptedAt: s.op.At, at: -1,
			})
		}
	case sdk.OpAlready, sdk.OpConflict, sdk.OpNotFound:
		// Finished by someone else: a late ack, a person, another host.
		q.more = true
	case sdk.OpFenced:
		l.fenced(s.op.Epoch)
		q.more = true
	default:
		l.logger.Error("the outbox did not settle a message; it stays as it was and is tried again later",
			"id", s.op.ID, "op", s.op.Kind, "answer", s.res.Code, "detail", s.res.Detail)
		l.keep(q)
	}
	if s.op.Kind == sdk.OpDefer || s.op.Kind == sdk.OpWait {
		q.parked = false
		if s.res.Code == sdk.OpApplied {
			l.due(l.now().Add(s.op.After))
		}
	}
	l.enlist(q)
	l.forget(q)
}

// keep holds on to a queue that has a row which the backend does not settle:
// forgotten, it would come back by the next Fetch and its row go again.
func (l *Lane) keep(q *queue) {
	q.keptTo = l.now().Add(retryMax)
	l.kept = append(l.kept, q)
}

// letGo ends that for the queues whose time is up.
func (l *Lane) letGo(now time.Time) {
	for len(l.kept) > 0 && !now.Before(l.kept[0].keptTo) {
		q := l.kept[0]
		l.kept[0] = nil
		l.kept = l.kept[1:]
		q.keptTo, q.more = time.Time{}, true
		l.forget(q)
	}
}

// fenced gives up a lease that the backend no longer knows. An op of an earlier
// epoch says nothing about the present one.
func (l *Lane) fenced(epoch int64) {
	if epoch == l.leased.epoch {
		l.leased.lost()
	}
}

// change is a transition that others want to hear of; JSON is the event's data.
type change struct {
	ID              string         `json:"id"`
	ClientMessageID string         `json:"client_message_id"`
	Target          string         `json:"target"`
	State           sdk.EntryState `json:"state"`
	BrokerMessageID string         `json:"broker_message_id"`
	Detail          string         `json:"detail"`

	mesh string
	hop  string    // its word in the trail
	at   time.Time // zero: now
}

// changeOf says which transition a settlement was.
func changeOf(mesh string, s *settlement) *change {
	states := [...]struct {
		kind  sdk.OpKind
		state sdk.EntryState
		hop   string
	}{
		{sdk.OpAccepted, sdk.StateAccepted, HopAccepted},
		{sdk.OpWait, sdk.StateWaiting, HopWaiting},
		{sdk.OpDefer, sdk.StatePending, HopDeferred},
		{sdk.OpDie, sdk.StateDead, HopDead},
		{sdk.OpExpire, sdk.StateExpired, HopExpired},
	}
	c := &change{
		ID: s.r.msg.ID, ClientMessageID: s.r.msg.ClientMessageID, Target: s.r.msg.Target,
		BrokerMessageID: s.op.BrokerMessageID, Detail: s.op.Error, mesh: mesh, at: s.op.At,
	}
	for _, k := range states {
		if k.kind == s.op.Kind {
			c.State, c.hop = k.state, k.hop
		}
	}
	return c
}

// onLate takes an ack that came after its timeout: a fact from any time.
func (l *Lane) onLate(id, messageID string) {
	if messageID == "" {
		return // malformed: the message may be stored, as without an ack
	}
	for _, q := range l.queues {
		if len(q.rows) > 0 && q.rows[0].msg.ID == id {
			l.accepted(q, q.rows[0], messageID)
			l.enlist(q)
			return
		}
	}
	// It waits or backs off, or it was cancelled meanwhile.
	l.late = append(l.late, sdk.Op{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: clip(messageID), At: l.now()})
}

// settleLate records late acks of rows that are not in memory. What else there is
// to know of such a row only the backend tells; without that the ack is a fact all the same.
func (l *Lane) settleLate(ctx context.Context) {
	for _, op := range l.late {
		l.lateOut++
		l.calls.Go(func() {
			e := &sdk.Entry{ID: op.ID}
			if found, err := l.outbox.Get(ctx, []string{op.ID}); err == nil && len(found) == 1 && found[0] != nil {
				e = found[0]
			}
			op.Final = isMulticast(e.Target)
			err := l.committer.Settle(op, func(res sdk.OpResult) { l.post(mailLateSet{op, e, res}) })
			if err != nil {
				l.post(mailLateSet{op, e, sdk.OpResult{}})
			}
		})
	}
	l.late = nil
}

// onLateSet tells of a row that a late ack completed outside of memory. What is
// behind it may be due now.
func (l *Lane) onLateSet(m mailLateSet) {
	l.lateOut--
	if m.res.Code != sdk.OpApplied {
		return
	}
	e := m.entry
	l.changed(&change{
		ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target, State: sdk.StateAccepted,
		BrokerMessageID: m.op.BrokerMessageID, mesh: l.mesh, hop: HopAccepted, at: m.op.At,
	})
	if e.State == sdk.StateWaiting {
		delete(l.waiting, e.Target) // who else waits finds out when tried
	}
	if !m.op.Final {
		l.ladder.add(&rung{
			id: e.ID, clientMessageID: e.ClientMessageID, target: e.Target,
			brokerMessageID: m.op.BrokerMessageID, acceptedAt: m.op.At, at: -1,
		})
	}
	l.dirty = true
	if l.fetching {
		l.discard = true // it may bring the row that is done
	}
}
