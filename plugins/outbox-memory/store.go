package main

import (
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
	order      order
	lanes      map[string]*lane
	epochs     int64  // the highest epoch of a lane that was forgotten
	tops       int64  // the highest seq of a lane that was forgotten
	records    int64  // finished rows without a body
	sealed     string // where the rows are; empty: here
}

// row is one message. entry holds what never changes and the body; what ops
// change is in Row.
type row struct {
	outboxstate.Row
	entry sdk.Entry
	seq   int64
	label string // of the import that brought it, until something changes it
}

func newStore(limits outboxstate.Limits, maxRecords int64, now func() time.Time) *store {
	return &store{
		now: now, limits: limits, maxRecords: maxRecords,
		usage: outboxstate.Usage{States: map[sdk.EntryState]int64{}},
		byID:  map[string]*row{},
		byKey: map[sdk.MessageKey]*row{},
		lanes: map[string]*lane{},
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
	s.order.after(0, func(r *row) bool {
		if r.State.Live() && outboxstate.Due(r.DueAt, ms) {
			r.DueAt = min(r.DueAt, ms)
		}
		return true
	})
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
	if refusal, ok := outboxstate.RefuseSealed(s.sealed, op); ok {
		return refusal
	}
	switch op.Kind {
	case sdk.OpAppend:
		return s.append(op.Entry, now)
	case sdk.OpSeal, sdk.OpUnseal:
		var res sdk.OpResult
		s.sealed, res = outboxstate.Seal(s.sealed, op)
		return res
	}
	if op.Kind.Fenced() && !s.lease(op.Lane).Holds(op.Epoch) {
		return sdk.OpResult{Code: sdk.OpFenced, ID: op.ID}
	}
	if op.Kind == sdk.OpWake {
		return s.wake(op, now)
	}
	r := s.byID[op.ID]
	switch {
	case r == nil:
		return sdk.OpResult{Code: sdk.OpNotFound, ID: op.ID}
	case op.Kind == sdk.OpReroute && r.entry.Lane == op.Entry.Lane:
		return sdk.OpResult{Code: sdk.OpAlready, ID: op.ID, Seq: r.seq, State: r.State, BrokerMessageID: r.BrokerMessageID}
	case op.Kind.Fenced() && r.entry.Lane != op.Lane:
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
	r = &row{entry: clone(e), Row: outboxstate.Row{
		State: sdk.StatePending, DueAt: outboxstate.Millis(now), NotAfter: outboxstate.Millis(e.NotAfter), Size: int64(len(e.Body)),
	}}
	prev := s.add(r, s.lastSeq+1)
	return sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: r.seq, Prev: prev, State: sdk.StatePending}
}

// add stores a new row at a place and returns the seq of the live row before it
// in its queue, if it is live.
func (s *store) add(r *row, seq int64) (prev int64) {
	s.byID[r.entry.ID], s.byKey[outboxstate.Key(&r.entry)] = r, r
	s.usage.States[r.State]++
	s.usage.Bytes += r.Size
	if isRecord(&r.Row) {
		s.records++
	}
	return s.settle(r, seq)
}

// settle gives a row that is nowhere its place: in the order of all, in its
// lane, and in what its state says.
func (s *store) settle(r *row, seq int64) (prev int64) {
	l := s.laneOf(r.entry.Lane)
	r.seq = seq
	s.lastSeq, l.top = max(s.lastSeq, seq), max(l.top, seq)
	s.order.put(r)
	return l.join(r)
}

// uproot takes a row out of all that settle put it in.
func (s *store) uproot(r *row) {
	if l := s.lanes[r.entry.Lane]; l != nil { // else it was forgotten, and has no row that is more than a record
		l.part(r, &r.Row)
	}
	s.order.drop(r)
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
	if eff.NewSeq && !was.State.Live() {
		if refusal, ok := s.limits.RefuseLive(s.usage); ok {
			refusal.ID, refusal.State = op.ID, was.State
			return refusal
		}
	}
	switch {
	case eff.NewSeq:
		s.uproot(r)
		if op.Kind == sdk.OpReroute {
			r.entry.Lane, r.entry.Nonce, r.entry.Body = op.Entry.Lane, op.Entry.Nonce, append([]byte(nil), op.Entry.Body...)
		}
		s.count(r, next)
		s.settle(r, s.lastSeq+1)
	case eff.Changed:
		s.move(r, next)
	}
	res.ID, res.Seq = op.ID, r.seq
	return res
}

// move gives a row its next content where it stands.
func (s *store) move(r *row, next outboxstate.Row) {
	l := s.laneOf(r.entry.Lane)
	was := r.Row
	s.count(r, next)
	if was.State.Live() && next.State.Live() {
		l.fix(r, was.State)
	} else {
		l.part(r, &was)
		l.join(r)
	}
	if s.records > s.maxRecords {
		s.forget()
	}
}

// count gives a row its next content and keeps the counts true. It is no longer
// as an import brought it.
func (s *store) count(r *row, next outboxstate.Row) {
	s.usage.States[r.State]--
	s.usage.States[next.State]++
	s.usage.Bytes += next.Size - r.Size
	if isRecord(&r.Row) {
		s.records--
	}
	if isRecord(&next) {
		s.records++
	}
	r.Row, r.label = next, ""
	if r.Size == 0 {
		r.entry.Body = nil
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
	s.order.after(0, func(r *row) bool {
		if isRecord(&r.Row) {
			s.remove(r)
		}
		return s.records > goal
	})
}

// remove drops a row.
func (s *store) remove(r *row) {
	s.uproot(r)
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
			s.move(r, next)
		}
	}
	return sdk.OpResult{Code: sdk.OpApplied}
}
