package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// refetchMin is the least wait for a head that is due soon, refetchErr the
	// wait after a Fetch that failed or brought nothing of use.
	refetchMin = 5 * time.Millisecond
	refetchErr = time.Second
)

// fetch asks the backend for due rows that memory lacks, one call at a time,
// and not for every row that leaves a full memory.
func (l *Lane) fetch(ctx context.Context, now time.Time) {
	if !l.dirty || l.fetching || !l.room(now) {
		return
	}
	held := make([]string, 0, len(l.queues))
	for t := range l.queues {
		held = append(held, t)
	}
	l.dirty, l.fetching = false, true
	req := sdk.FetchRequest{
		Lane: l.name, Epoch: l.leased.epoch, Held: held, MaxQueues: fetchQueues, MaxRows: fetchRows,
	}
	l.calls.Go(func() {
		res, err := l.outbox.Fetch(ctx, req)
		l.post(mailFetched{req.Epoch, res, err})
	})
}

// room reports whether memory has room for a Fetch, and makes some if it has
// been without for long: its targets are slow.
func (l *Lane) room(now time.Time) bool {
	free := func() bool { return l.rows < maxLaneRows/2 && l.bytes < maxLaneBytes/2 }
	switch {
	case free():
	case l.crowded.IsZero():
		l.crowded = now
		return false
	case now.Sub(l.crowded) < crowdedFor:
		return false
	default:
		l.trim()
		if l.crowded = now; !free() {
			return false
		}
	}
	l.crowded = time.Time{}
	return true
}

func (l *Lane) onFetched(m mailFetched) {
	now := l.now()
	switch {
	case m.epoch != l.leased.epoch || l.discard:
		l.dirty = true // rows may have left elsewhere since
	case m.err != nil:
		l.leased.failed(m.err)
		l.logger.Debug("fetch failed", "lane", l.name, "error", m.err)
		if !errors.Is(m.err, sdk.ErrFenced) {
			l.unfetched.failed(l.logger, "the outbox gives no messages to send", m.err)
		}
		l.due(now.Add(refetchErr))
	default:
		l.unfetched.ended(l.logger, "the outbox gives messages to send: it works again")
		l.take(&m.res, now)
	}
	l.fetching, l.discard = false, false
	clear(l.left)
	clear(l.grew)
}

// take loads what a Fetch brought.
func (l *Lane) take(res *sdk.FetchResult, now time.Time) {
	useful := false
	for i := range res.Queues {
		ok, err := l.load(&res.Queues[i])
		if err != nil {
			l.logger.Error("the outbox brought rows that can't be used; they stay there", "lane", l.name, "error", err)
			l.due(now.Add(refetchErr))
			continue
		}
		useful = useful || ok
	}
	switch {
	case res.More && useful:
		l.dirty = true
	case res.More:
		l.due(now.Add(refetchErr))
	}
	if res.NextDue >= 0 {
		l.due(now.Add(max(res.NextDue, refetchMin)))
	}
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
	if len(l.suspects) > 0 {
		l.sendSuspect(now)
		return
	}
	for p := range l.ready {
		ready := &l.ready[p]
		for n := ready.len(); n > 0; n-- {
			q := ready.pop()
			q.ready = false
			if !l.sendable(q, now) {
				continue
			}
			if !l.maySend() {
				q.ready = true
				ready.unpop(q)
				return
			}
			l.write(q)
		}
	}
}

// sendSuspect sends one of the rows that were on the wire when the broker
// closed the socket over a frame: alone, so that the next such close tells
// which of them it was. The others wait until all suspects are judged.
func (l *Lane) sendSuspect(now time.Time) {
	if l.inflight > 0 {
		return
	}
	for r, q := range l.suspects {
		if len(q.rows) == 0 || q.rows[0] != r || !l.sendable(q, now) {
			continue
		}
		if l.maySend() {
			l.write(q)
		}
		return
	}
}

// sendable reports whether the head of q may go, now that it is q's turn.
func (l *Lane) sendable(q *queue, now time.Time) bool {
	if q.inflight || q.parked {
		return false
	}
	l.dropExpired(q, now)
	if len(q.rows) == 0 {
		l.forget(q)
		return false
	}
	if _, frozen := l.cancelling[q.rows[0].msg.ID]; frozen {
		return false // onCancelled goes on
	}
	if now.Before(q.notBefore) {
		l.pauseTo(q.notBefore)
		l.enlist(q)
		return false
	}
	return true
}

// maySend takes a turn: the lease, room in the window, a backend that settles, a
// connection, the rate.
// A write may have taken seconds, so the clock is read for each.
func (l *Lane) maySend() bool {
	now := l.now()
	switch {
	case l.inflight >= maxInflight || l.unsettled >= maxUnsettled || !l.leased.valid(now):
		return false
	case now.Before(l.holdTo):
		l.pauseTo(l.holdTo)
		return false
	case !l.link.Ready(): // onOnline tells; this is for a link that was quicker
		l.pauseTo(now.Add(time.Second))
		return false
	}
	if d := l.pacer.Wait(l.name, now); d > 0 {
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

// dropExpired settles heads that are worth nothing any more, by a clock that the
// broker has checked: one that jumps ahead loses no message. One that is being
// cancelled is left to that.
func (l *Lane) dropExpired(q *queue, now time.Time) {
	wall := l.helloWall.Add(now.Sub(l.helloAt))
	for len(q.rows) > 0 && !q.rows[0].notAfter.IsZero() && wall.After(q.rows[0].notAfter) {
		r := q.rows[0]
		if _, frozen := l.cancelling[r.msg.ID]; frozen {
			return
		}
		delete(l.waiting, q.target) // who comes next finds out when tried
		l.pop(q)
		l.settle(q, r, sdk.Op{Kind: sdk.OpExpire})
	}
}

// attempt is one row on the wire.
type attempt struct {
	q   *queue
	r   *row
	out Outcome
}

func (l *Lane) write(q *queue) {
	a := &attempt{q: q, r: q.rows[0]}
	a.r.sentAt = l.now()
	q.inflight = true
	l.inflight++
	l.flightMu.Lock()
	l.flight[a.r.msg.ID] = struct{}{}
	l.flightMu.Unlock()
	l.link.Send(a.r.msg, func(out Outcome) {
		a.out = out
		l.post(a)
	})
}
