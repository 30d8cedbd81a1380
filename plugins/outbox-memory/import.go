package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// Import implements sdk.Outbox.
func (s *store) Import(ctx context.Context, req sdk.ImportRequest) ([]sdk.OpResult, error) {
	if err := outboxstate.CheckImport(req); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed != "" {
		return nil, outboxstate.SealedError(s.sealed)
	}
	now := outboxstate.Millis(s.clock())
	results := make([]sdk.OpResult, len(req.Entries))
	for i := range req.Entries {
		results[i] = s.bring(&req.Entries[i], req.Label, now)
	}
	s.forget()
	return results, nil
}

// bring stores one entry as it is.
func (s *store) bring(e *sdk.Entry, label string, now int64) sdk.OpResult {
	there, byKey := s.byID[e.ID], s.byKey[outboxstate.Key(e)]
	if there != byKey || there != nil && there.label == "" {
		if byKey != nil {
			there = byKey
		}
		return outboxstate.Replay(e, there.entry.ID, outboxstate.Key(&there.entry), there.entry.Fingerprint, there.seq, &there.Row)
	}
	res := sdk.OpResult{Code: sdk.OpStored, ID: e.ID, State: e.State}
	usage := s.usage
	if there != nil {
		res.Code = sdk.OpApplied
		usage = usage.Without(there.State, there.Size)
	}
	if refusal, ok := s.limits.RefuseImport(usage, e); ok {
		return refusal
	}
	res.Seq = s.placeFor(e, there)
	if there != nil {
		s.remove(there)
	}
	r := &row{entry: clone(e), label: label, Row: outboxstate.Row{
		State: e.State, Attempts: e.Attempts, DueAt: outboxstate.Millis(e.DueAt), NotAfter: outboxstate.Millis(e.NotAfter),
		AcceptedAt: outboxstate.Millis(e.AcceptedAt), DeliveredAt: outboxstate.Millis(e.DeliveredAt),
		LastError: outboxstate.Shorten(e.LastError), BrokerMessageID: e.BrokerMessageID, Size: int64(len(e.Body)),
	}}
	if outboxstate.Due(r.DueAt, now) {
		r.DueAt = min(r.DueAt, now)
	}
	s.add(r, res.Seq)
	return res
}

// placeFor is the seq of an entry that is brought: its own where that is free
// and above those of its lane; that of the row that it replaces; else a new one.
func (s *store) placeFor(e *sdk.Entry, there *row) int64 {
	stays := there != nil && there.entry.Lane == e.Lane
	switch {
	case stays && e.Seq == there.seq:
		return e.Seq
	case e.Seq > s.laneOf(e.Lane).top && e.Seq <= outboxstate.MaxSeq && !s.order.has(e.Seq):
		return e.Seq
	case stays:
		return there.seq
	default:
		return s.lastSeq + 1
	}
}
