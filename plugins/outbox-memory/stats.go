package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// Stats implements sdk.Outbox. Counts of one lane cost its live rows.
func (s *store) Stats(ctx context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := sdk.OutboxStats{Sealed: s.sealed, Holders: s.holders()}
	if req.Lane != "" {
		stats.States = map[sdk.EntryState]int64{}
		if l := s.lanes[req.Lane]; l != nil {
			l.count(&stats)
			stats.OldestLive = enqueued(first(l, nil))
		}
		return stats, ctx.Err()
	}
	stats.States, stats.Bytes = maps.Clone(s.usage.States), s.usage.Bytes
	var oldest *row
	for _, l := range s.lanes {
		oldest = first(l, oldest)
	}
	stats.OldestLive = enqueued(oldest)
	return stats, ctx.Err()
}

// holders are the owners whose lease runs.
func (s *store) holders() (owners []string) {
	now := outboxstate.Millis(s.now())
	for _, l := range s.lanes {
		if l.Live(now) {
			owners = append(owners, l.Owner)
		}
	}
	slices.Sort(owners)
	return slices.Compact(owners)
}

// count counts the live rows of a lane.
func (l *lane) count(stats *sdk.OutboxStats) {
	var last int64
	for _, q := range l.queues {
		for _, r := range q.live() {
			stats.States[r.State]++
			stats.Bytes += r.Size
			last = max(last, r.NotAfter)
		}
	}
	stats.LastNotAfter = outboxstate.Time(last)
}

// first is the live row of a lane, or r, whose seq is lower. Only heads can be.
func first(l *lane, r *row) *row {
	for _, q := range l.queues {
		if head := q.head(); r == nil || head.seq < r.seq {
			r = head
		}
	}
	return r
}

// enqueued is when r was enqueued; zero if there is no r.
func enqueued(r *row) (at time.Time) {
	if r != nil {
		at = r.entry.EnqueuedAt
	}
	return at
}

// Prune implements sdk.Outbox.
func (s *store) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	if err := outboxstate.CheckPrune(req); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.All && s.sealed == "" {
		return 0, outboxstate.NotSealedError()
	}
	before, count := outboxstate.Millis(req.Before), 0
	s.order.after(0, func(r *row) bool {
		switch {
		case req.All, req.Label != "" && r.label == req.Label, !req.Before.IsZero() && !r.State.Live() && r.NotAfter < before:
			s.remove(r)
			count++
		}
		return count < req.Limit
	})
	if !req.Before.IsZero() {
		s.forgetLanes(before)
	}
	return count, ctx.Err()
}
