package main

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// lease returns who has a lane.
func (s *store) lease(name string) outboxstate.Lane {
	if l := s.lanes[name]; l != nil {
		return l.Lane
	}
	return outboxstate.Lane{Epoch: s.epochs}
}

// laneOf returns a lane, made if it is new.
func (s *store) laneOf(name string) *lane {
	l := s.lanes[name]
	if l == nil {
		l = &lane{
			Lane: outboxstate.Lane{Epoch: s.epochs, Expires: outboxstate.Millis(s.now())},
			top:  s.tops, queues: map[string]*queue{},
		}
		s.lanes[name] = l
	}
	return l
}

// Acquire implements sdk.Outbox.
func (s *store) Acquire(ctx context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	if err := outboxstate.CheckAcquire(req); err != nil {
		return sdk.Lease{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed != "" {
		return sdk.Lease{}, outboxstate.SealedError(s.sealed)
	}
	l := s.laneOf(req.Lane)
	next, lease := l.Acquire(req, s.now())
	l.Lane = next
	return lease, ctx.Err()
}

// Release implements sdk.Outbox.
func (s *store) Release(ctx context.Context, req sdk.ReleaseRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[req.Lane]
	if l == nil {
		return ctx.Err()
	}
	if free, ok := l.Release(req); ok {
		free.Expires = outboxstate.Millis(s.now())
		l.Lane = free
	}
	return ctx.Err()
}

// forgetLanes drops lanes without rows that nobody held for long.
func (s *store) forgetLanes(before int64) {
	before = min(before, outboxstate.Millis(s.now().Add(-outboxstate.LaneMemory)))
	for name, l := range s.lanes {
		if len(l.queues) == 0 && l.unconfirmed.len() == 0 && l.Expires < before {
			s.epochs, s.tops = max(s.epochs, l.Epoch), max(s.tops, l.top)
			delete(s.lanes, name)
		}
	}
}

// Fetch implements sdk.Outbox.
func (s *store) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	if err := outboxstate.CheckFetch(req); err != nil {
		return sdk.FetchResult{}, err
	}
	if err := ctx.Err(); err != nil {
		return sdk.FetchResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed != "" {
		return sdk.FetchResult{}, outboxstate.SealedError(s.sealed)
	}
	if !s.lease(req.Lane).Holds(req.Epoch) {
		return sdk.FetchResult{}, outboxstate.FencedError(req.Lane, req.Epoch)
	}
	var res sdk.FetchResult
	var due []*queue
	due, res.NextDue, res.More = s.laneOf(req.Lane).dueQueues(req, outboxstate.Millis(s.clock()))
	rows, bytes := req.MaxRows, int64(outboxstate.FetchBytes)
	for i, q := range due {
		if i > 0 && bytes <= 0 {
			res.More = true
			break
		}
		got := q.read(outboxstate.Share(rows, len(due)-i), &bytes)
		rows -= len(got.Rows)
		res.Queues = append(res.Queues, got)
	}
	return res, nil
}

// dueQueues returns the due queues within the bounds, the time to the next, and
// whether the bounds left some out.
func (l *lane) dueQueues(req sdk.FetchRequest, now int64) (due []*queue, next time.Duration, more bool) {
	held := make(map[string]bool, len(req.Held))
	for _, target := range req.Held {
		held[target] = true
	}
	next = -1
	l.ripen(now)
	bound := min(req.MaxQueues, req.MaxRows)
	l.due.inOrder(func(q *queue) bool {
		if held[q.target] {
			return true
		}
		if at := q.head().DueAt; at > now { // the clock went back
			next = time.Duration(at-now) * time.Millisecond
			return false
		}
		if more = len(due) == bound; !more {
			due = append(due, q)
		}
		return !more
	})
	l.later.inOrder(func(q *queue) bool {
		if held[q.target] {
			return true
		}
		if in := time.Duration(q.head().DueAt-now) * time.Millisecond; next < 0 || in < next {
			next = in
		}
		return false
	})
	return due, next, more
}

// read copies the first rows of a queue: at most limit and, past the head, no
// more than *bytes of bodies, which it counts down.
func (q *queue) read(limit int, bytes *int64) sdk.Queue {
	out := sdk.Queue{Target: q.target}
	for _, r := range q.live() {
		if len(out.Rows) == limit || len(out.Rows) > 0 && r.Size > *bytes {
			out.More = true
			return out
		}
		*bytes -= r.Size
		out.Rows = append(out.Rows, r.read(true))
	}
	return out
}

// read makes an entry of a row. The body is shared: nobody changes it.
func (r *row) read(body bool) sdk.Entry {
	e := r.entry
	if !body {
		e.Body = nil
	}
	e.Seq, e.State, e.Attempts, e.LastError, e.BrokerMessageID = r.seq, r.State, r.Attempts, r.LastError, r.BrokerMessageID
	e.DueAt, e.NotAfter = outboxstate.Time(r.DueAt), outboxstate.Time(r.NotAfter)
	e.AcceptedAt, e.DeliveredAt = outboxstate.Time(r.AcceptedAt), outboxstate.Time(r.DeliveredAt)
	return e
}
