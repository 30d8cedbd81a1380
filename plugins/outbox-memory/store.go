package main

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// store implements sdk.Outbox in RAM.
type store struct {
	now func() time.Time

	mu         sync.Mutex // guards what follows
	latest     time.Time  // the farthest that now has come
	limits     outboxstate.Limits
	maxRecords int64
	usage      outboxstate.Usage
	lastSeq    int64
	byID       map[string]*row
	byKey      map[sdk.MessageKey]*row
	arrival    *list.List // of *row, in the order of seq
	lanes      map[string]*lane
	epochs     int64 // the highest epoch of a lane that was forgotten
	records    int64 // finished rows without a body
}

// row is one message. entry holds what never changes and the body; what ops
// change is in Row.
type row struct {
	outboxstate.Row
	entry sdk.Entry
	seq   int64
	place *list.Element
}

func newStore(limits outboxstate.Limits, maxRecords int64, now func() time.Time) *store {
	return &store{
		now: now, limits: limits, maxRecords: maxRecords,
		usage:   outboxstate.Usage{States: map[sdk.EntryState]int64{}},
		byID:    map[string]*row{},
		byKey:   map[sdk.MessageKey]*row{},
		arrival: list.New(),
		lanes:   map[string]*lane{},
	}
}

func (s *store) limit(limits outboxstate.Limits, maxRecords int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits, s.maxRecords = limits, maxRecords
	s.forget()
}

// clock reads now, and makes due what a clock that has gone back left too far
// ahead. Small steps are not worth the walk: they delay a row by as much.
func (s *store) clock() time.Time {
	now := s.now()
	if !now.Before(s.latest.Add(-time.Minute)) {
		if now.After(s.latest) {
			s.latest = now
		}
		return now
	}
	s.latest = now
	ms := outboxstate.Millis(now)
	for el := s.arrival.Front(); el != nil; el = el.Next() {
		if r := el.Value.(*row); r.State.Live() && outboxstate.Due(r.DueAt, ms) {
			r.DueAt = min(r.DueAt, ms)
		}
	}
	for _, l := range s.lanes {
		l.reorder()
	}
	return now
}

// Apply implements sdk.Outbox.
func (s *store) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	if err := outboxstate.CheckOps(ops); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	results := make([]sdk.OpResult, len(ops))
	for i := range ops {
		results[i] = s.apply(&ops[i], now)
	}
	return results, nil
}

func (s *store) apply(op *sdk.Op, now time.Time) sdk.OpResult {
	if op.Kind == sdk.OpAppend {
		return s.append(op.Entry, now)
	}
	if op.Kind.Fenced() && !s.lease(op.Lane).Holds(op.Epoch) {
		return sdk.OpResult{Code: sdk.OpFenced, ID: op.ID}
	}
	if op.Kind == sdk.OpWake {
		return s.wake(op, now)
	}
	r := s.byID[op.ID]
	if r == nil || op.Kind.Fenced() && r.entry.Lane != op.Lane {
		return sdk.OpResult{Code: sdk.OpNotFound, ID: op.ID}
	}
	return s.change(r, op, now)
}

func (s *store) append(e *sdk.Entry, now time.Time) sdk.OpResult {
	key := outboxstate.Key(e)
	r := s.byKey[key]
	if r == nil {
		r = s.byID[e.ID]
	}
	if r != nil {
		return outboxstate.Replay(e, r.entry.ID, outboxstate.Key(&r.entry), r.entry.Fingerprint, r.seq, &r.Row)
	}
	if refusal, ok := s.limits.Refuse(s.usage, e); ok {
		return refusal
	}
	s.lastSeq++
	r = &row{entry: clone(e), seq: s.lastSeq, Row: outboxstate.Row{
		State: sdk.StatePending, DueAt: outboxstate.Millis(now), NotAfter: outboxstate.Millis(e.NotAfter), Size: int64(len(e.Body)),
	}}
	s.byID[e.ID], s.byKey[key] = r, r
	r.place = s.arrival.PushBack(r)
	prev := s.laneOf(e.Lane).enter(r)
	s.usage.States[sdk.StatePending]++
	s.usage.Bytes += r.Size
	return sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: r.seq, Prev: prev, State: sdk.StatePending}
}

// clone copies what an append keeps; the caller may reuse its memory.
func clone(e *sdk.Entry) sdk.Entry {
	c := *e
	c.Fingerprint = append([]byte(nil), e.Fingerprint...)
	c.Body = append([]byte(nil), e.Body...)
	c.EnqueuedAt = outboxstate.Time(outboxstate.Millis(e.EnqueuedAt))
	return c
}

func (s *store) change(r *row, op *sdk.Op, now time.Time) sdk.OpResult {
	was := r.Row
	next := r.Row
	res, eff := outboxstate.Decide(&next, op, now)
	if eff.NewSeq {
		if refusal, ok := s.limits.RefuseLive(s.usage); ok {
			refusal.ID, refusal.State = op.ID, was.State
			return refusal
		}
	}
	if eff.Changed {
		s.move(r, next, eff.NewSeq)
	}
	res.ID, res.Seq = op.ID, r.seq
	return res
}

// move gives a row its next content and keeps queues, counts and records true.
func (s *store) move(r *row, next outboxstate.Row, newSeq bool) {
	was := r.Row
	l := s.laneOf(r.entry.Lane)
	if newSeq {
		s.lastSeq++
		r.seq = s.lastSeq
		s.arrival.MoveToBack(r.place)
	}
	r.Row = next
	if r.Size == 0 {
		r.entry.Body = nil
	}
	switch {
	case was.State.Live() && next.State.Live():
		l.fix(r, was.State)
	case was.State.Live():
		l.leave(r, was.State)
	case next.State.Live():
		l.enter(r)
	}
	s.usage.States[was.State]--
	s.usage.States[next.State]++
	s.usage.Bytes += next.Size - was.Size
	if isRecord(&next) != isRecord(&was) {
		if isRecord(&next) {
			s.records++
			s.forget()
		} else {
			s.records--
		}
	}
}

// isRecord reports whether nothing but the small record is left of a row.
func isRecord(r *outboxstate.Row) bool { return !r.State.Live() && r.Size == 0 }

// forget drops the oldest records beyond the limit. It walks from the oldest
// row, behind which records are dense; a walk over many others is paid for by
// dropping several at once.
func (s *store) forget() {
	if s.records <= s.maxRecords {
		return
	}
	goal := s.maxRecords - s.maxRecords/16
	for el := s.arrival.Front(); el != nil && s.records > goal; {
		r := el.Value.(*row)
		el = el.Next()
		if isRecord(&r.Row) {
			s.remove(r)
		}
	}
}

// remove drops a finished row.
func (s *store) remove(r *row) {
	s.arrival.Remove(r.place)
	delete(s.byID, r.entry.ID)
	delete(s.byKey, outboxstate.Key(&r.entry))
	s.usage.States[r.State]--
	s.usage.Bytes -= r.Size
	if isRecord(&r.Row) {
		s.records--
	}
}

func (s *store) wake(op *sdk.Op, now time.Time) sdk.OpResult {
	q := s.laneOf(op.Lane).queues[op.Target]
	if q == nil || q.waiting == 0 {
		return sdk.OpResult{Code: sdk.OpAlready}
	}
	for _, r := range q.live() {
		if q.waiting == 0 {
			break // in most queues only the head waited
		}
		if r.State == sdk.StateWaiting {
			next := r.Row
			outboxstate.Wake(&next, now)
			s.move(r, next, false)
		}
	}
	return sdk.OpResult{Code: sdk.OpApplied}
}
