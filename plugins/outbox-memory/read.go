package main

import (
	"context"
	"math"
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

// cursor reads the seq that a page ended with; empty is first.
func cursor(text string, first int64) (int64, error) {
	if text == "" {
		return first, nil
	}
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seq < 0 || seq == math.MaxInt64 {
		return 0, sdk.Errorf(sdk.CodeInvalid, "bad_cursor", "outbox: %q is not a cursor of this outbox", text)
	}
	return seq, nil
}

// List implements sdk.Outbox. A cursor is the seq of the last row of its page.
func (s *store) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if err := outboxstate.CheckList(req); err != nil {
		return sdk.ListPage{}, err
	}
	before, err := cursor(req.Before, math.MaxInt64)
	if err != nil {
		return sdk.ListPage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page sdk.ListPage
	s.order.before(before, func(r *row) bool {
		if !chosen(r, req.States) || req.Mesh != "" && req.Mesh != r.entry.Mesh || req.Target != "" && req.Target != r.entry.Target {
			return true
		}
		if n := len(page.Entries); n == req.Limit {
			page.Next = strconv.FormatInt(page.Entries[n-1].Seq, 10)
			return false
		}
		page.Entries = append(page.Entries, r.read(false))
		return true
	})
	return page, ctx.Err()
}

func chosen(r *row, states []sdk.EntryState) bool {
	return len(states) == 0 || slices.Contains(states, r.State)
}

// Bounds of one page of a Scan, for which the lock is held: rows that are
// returned and rows that are looked at. outboxstate.FetchBytes bounds its bodies.
const (
	scanRows = 500
	scanWalk = 20_000
)

// Scan implements sdk.Outbox. A cursor is the seq of the last row of its page;
// between pages others may work.
func (s *store) Scan(ctx context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	if err := outboxstate.CheckScan(req); err != nil {
		return err
	}
	after, err := cursor(req.After, 0)
	if err != nil {
		return err
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var next sdk.ScanPage
		next, after, more = s.scanPage(req, after)
		if len(next.Entries) == 0 {
			continue
		}
		if err := page(next); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// scanPage reads the rows behind a place. last is the place that it came to,
// more whether there are others behind it.
func (s *store) scanPage(req sdk.ScanRequest, after int64) (page sdk.ScanPage, last int64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := &s.order
	if req.Unconfirmed {
		l := s.lanes[req.Lane]
		if l == nil {
			return page, after, false
		}
		from = &l.unconfirmed
	}
	last = after
	walked, bytes := 0, int64(outboxstate.FetchBytes)
	from.after(after, func(r *row) bool {
		wanted := chosen(r, req.States) && (req.Lane == "" || req.Lane == r.entry.Lane)
		if wanted && req.Bodies {
			bytes -= r.Size
		}
		full := len(page.Entries) == scanRows || len(page.Entries) > 0 && bytes < 0
		if more = walked == scanWalk || wanted && full; more {
			return false
		}
		walked++
		last = r.seq
		if wanted {
			page.Entries = append(page.Entries, r.read(req.Bodies))
			page.Cursor = strconv.FormatInt(last, 10)
		}
		return true
	})
	return page, last, more
}

// Watch implements sdk.Outbox. Nobody else can change what is in this process.
func (s *store) Watch(ctx context.Context, tell func(sdk.WatchEvent) error) error {
	if err := tell(sdk.WatchEvent{Kind: sdk.WatchGap}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
