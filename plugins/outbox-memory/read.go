package main

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// Lookup implements sdk.Outbox.
func (s *store) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]*sdk.Entry, len(keys))
	for i, key := range keys {
		if r := s.byKey[key]; r != nil {
			e := r.read(false)
			found[i] = &e
		}
	}
	return found, ctx.Err()
}

// Get implements sdk.Outbox.
func (s *store) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]*sdk.Entry, len(ids))
	for i, id := range ids {
		if r := s.byID[id]; r != nil {
			e := r.read(true)
			found[i] = &e
		}
	}
	return found, ctx.Err()
}

// List implements sdk.Outbox. A cursor is the seq of the last row of its page.
func (s *store) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if err := outboxstate.CheckList(req); err != nil {
		return sdk.ListPage{}, err
	}
	before := int64(1<<63 - 1)
	if req.Before != "" {
		n, err := strconv.ParseInt(req.Before, 10, 64)
		if err != nil {
			return sdk.ListPage{}, sdk.Errorf(sdk.CodeInvalid, "bad_cursor", "outbox: %q is not a cursor of this outbox", req.Before)
		}
		before = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page sdk.ListPage
	var last int64
	for el := s.arrival.Back(); el != nil; el = el.Prev() {
		r := el.Value.(*row)
		if r.seq >= before || !chosen(r, req) {
			continue
		}
		if len(page.Entries) == req.Limit {
			page.Next = strconv.FormatInt(last, 10)
			break
		}
		page.Entries, last = append(page.Entries, r.read(false)), r.seq
	}
	return page, ctx.Err()
}

func chosen(r *row, req sdk.ListRequest) bool {
	return (len(req.States) == 0 || slices.Contains(req.States, r.State)) &&
		(req.Mesh == "" || req.Mesh == r.entry.Mesh) && (req.Target == "" || req.Target == r.entry.Target)
}

// Stats implements sdk.Outbox.
func (s *store) Stats(ctx context.Context, _ sdk.StatsRequest) (sdk.OutboxStats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := sdk.OutboxStats{States: maps.Clone(s.usage.States), Bytes: s.usage.Bytes}
	for el := s.arrival.Front(); el != nil; el = el.Next() {
		if r := el.Value.(*row); r.State.Live() {
			stats.OldestLive = r.entry.EnqueuedAt
			break
		}
	}
	return stats, ctx.Err()
}

// Prune implements sdk.Outbox.
func (s *store) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	if err := outboxstate.CheckPrune(req); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, count := outboxstate.Millis(req.Before), 0
	for el := s.arrival.Front(); el != nil && count < req.Limit; {
		r := el.Value.(*row)
		el = el.Next()
		if !r.State.Live() && r.NotAfter < before {
			s.remove(r)
			count++
		}
	}
	s.forgetLanes(before)
	return count, ctx.Err()
}
