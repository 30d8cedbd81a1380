package outboxtest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var readCases = []conformance{
	{name: "lookup finds by the sender's key, nil where nothing is, without bodies", run: readLookup},
	{name: "get finds by id, nil where nothing is, with bodies", run: readGet},
	{name: "list pages newest first, each row once, without bodies", run: readList},
	{name: "list chooses by state, mesh and target", run: readChoose},
	{name: "list refuses a limit outside 1 to 500 and a cursor that it never gave", run: readInvalid},
	{name: "stats count rows by state and the bytes of bodies", run: readStats},
	{name: "prune removes finished records of the past, at most as many as told", run: readPrune},
	{name: "prune spares live rows however old", run: readPruneLive},
	{name: "a pruned key can be used again", run: readPruneKey},
}

func readLookup(b *bench) {
	one, two := b.put("a"), b.put("b")
	b.one(acceptedOp(two.ID), sdk.OpApplied)
	key := func(e *sdk.Entry) sdk.MessageKey {
		return sdk.MessageKey{Mesh: e.Mesh, Sender: e.Sender, ClientMessageID: e.ClientMessageID}
	}
	other := key(one)
	other.Sender = "session-9"
	got, err := b.store.Lookup(context.Background(), []sdk.MessageKey{key(two), other, key(one), key(two)})
	if err != nil || len(got) != 4 {
		b.Fatalf("lookup: %v %v", got, err)
	}
	if got[1] != nil {
		b.Fatalf("lookup of a key of another sender found %+v", got[1])
	}
	for i, e := range map[int]*sdk.Entry{0: two, 2: one, 3: two} {
		if got[i] == nil || got[i].ID != e.ID {
			b.Fatalf("lookup %d: got %+v, want %s", i, got[i], e.ID)
		}
		want := *b.row(e.ID)
		want.Body = nil
		same(b, got[i], &want)
	}
	if got, err := b.store.Lookup(context.Background(), nil); err != nil || len(got) != 0 {
		b.Fatalf("lookup of nothing: %v %v", got, err)
	}
}

func readGet(b *bench) {
	one, two := b.put("a"), b.put("b")
	got, err := b.store.Get(context.Background(), []string{two.ID, id(777), "no id at all", one.ID})
	if err != nil || len(got) != 4 || got[1] != nil || got[2] != nil {
		b.Fatalf("get: %v %v", got, err)
	}
	if got[0] == nil || string(got[0].Body) != string(two.Body) || got[3] == nil || string(got[3].Body) != string(one.Body) {
		b.Fatalf("get: %+v and %+v", got[0], got[3])
	}
}

// pages reads a whole list.
func (b *bench) pages(req sdk.ListRequest) (ids []string) {
	b.Helper()
	for range 1000 {
		page, err := b.store.List(context.Background(), req)
		if err != nil {
			b.Fatalf("list %+v: %v", req, err)
		}
		if len(page.Entries) > req.Limit {
			b.Fatalf("list %+v: %d entries", req, len(page.Entries))
		}
		for _, e := range page.Entries {
			if len(e.Body) != 0 {
				b.Fatalf("list shows a body of %s", e.ID)
			}
			ids = append(ids, e.ID)
		}
		if page.Next == "" {
			return ids
		}
		req.Before = page.Next
	}
	b.Fatalf("list %+v has no end", req)
	return nil
}

func readList(b *bench) {
	if got := b.pages(sdk.ListRequest{Limit: 10}); len(got) != 0 {
		b.Fatalf("list of nothing: %q", got)
	}
	epoch := b.acquire()
	var want []string
	for i := range 25 {
		e := b.put([]string{"a", "b", "c"}[i%3])
		want = append(want, e.ID)
		states[i%len(states)].reach(b, e.ID, epoch)
	}
	slices.Reverse(want)
	for _, limit := range []int{1, 7, 24, 25, 26, 500} {
		if got := b.pages(sdk.ListRequest{Limit: limit}); !slices.Equal(got, want) {
			b.Fatalf("pages of %d: got %q, want %q", limit, got, want)
		}
	}
	// A row that comes between two pages is on neither of the later ones.
	page, err := b.store.List(context.Background(), sdk.ListRequest{Limit: 10})
	if err != nil {
		b.Fatalf("list: %v", err)
	}
	b.put("a")
	if got := b.pages(sdk.ListRequest{Limit: 10, Before: page.Next}); !slices.Equal(got, want[10:]) {
		b.Fatalf("rest of the pages: got %q, want %q", got, want[10:])
	}
}

func readChoose(b *bench) {
	epoch := b.acquire()
	var all []*sdk.Entry
	for i := range 3 * len(states) {
		e := b.entry([]string{"a", "b"}[i%2])
		if i%3 == 0 {
			e.Mesh = "other"
		}
		b.one(appendOp(e), sdk.OpStored)
		states[i%len(states)].reach(b, e.ID, epoch)
		e.State = states[i%len(states)].state
		all = append(all, e)
	}
	slices.Reverse(all)
	for _, req := range []sdk.ListRequest{
		{States: []sdk.EntryState{sdk.StatePending}},
		{States: []sdk.EntryState{sdk.StateDead}},
		{States: []sdk.EntryState{sdk.StateCancelled}},
		{States: []sdk.EntryState{sdk.StateAccepted}},
		{States: []sdk.EntryState{sdk.StatePending, sdk.StateWaiting}},
		{States: []sdk.EntryState{sdk.StateDelivered, sdk.StateDead, sdk.StateExpired}},
		{Mesh: "other"},
		{Target: "b"},
		{Mesh: "team", Target: "a"},
		{Mesh: "nowhere"},
		{States: []sdk.EntryState{sdk.StateWaiting, sdk.StateExpired}, Mesh: "team", Target: "b"},
	} {
		var want []string
		for _, e := range all {
			if (len(req.States) == 0 || slices.Contains(req.States, e.State)) &&
				(req.Mesh == "" || req.Mesh == e.Mesh) && (req.Target == "" || req.Target == e.Target) {
				want = append(want, e.ID)
			}
		}
		req.Limit = 2
		if got := b.pages(req); !slices.Equal(got, want) {
			b.Fatalf("list %+v: got %q, want %q", req, got, want)
		}
	}
}

func readInvalid(b *bench) {
	for _, req := range []sdk.ListRequest{{}, {Limit: -1}, {Limit: 501}, {Limit: 10, Before: "no cursor"}} {
		if _, err := b.store.List(context.Background(), req); !errors.Is(err, sdk.ErrInvalid) {
			b.Fatalf("list %+v: got error %v, want one that is sdk.ErrInvalid", req, err)
		}
	}
	if _, err := b.store.Prune(context.Background(), sdk.PruneRequest{}); !errors.Is(err, sdk.ErrInvalid) {
		b.Fatalf("prune without a limit: got error %v, want one that is sdk.ErrInvalid", err)
	}
}

func readStats(b *bench) {
	if s := b.stats(); s.Bytes != 0 || !s.OldestLive.IsZero() {
		b.Fatalf("stats of nothing: %+v", s)
	}
	epoch := b.acquire()
	want, bytes := map[sdk.EntryState]int64{}, int64(0)
	var oldest *sdk.Entry
	for i := range 3 * len(states) {
		e := b.put("a")
		from := states[i%len(states)]
		from.reach(b, e.ID, epoch)
		want[from.state]++
		if from.body {
			bytes += int64(len(e.Body))
		}
		if from.state.Live() && oldest == nil {
			oldest = e
		}
	}
	s := b.stats()
	for _, from := range states {
		if s.States[from.state] != want[from.state] {
			b.Fatalf("stats %v, want %v", s.States, want)
		}
	}
	if s.Bytes != bytes || !s.OldestLive.Equal(oldest.EnqueuedAt) {
		b.Fatalf("stats %d bytes, oldest %v; want %d, %v", s.Bytes, s.OldestLive, bytes, oldest.EnqueuedAt)
	}
}

func (b *bench) prune(before time.Time, limit int) int {
	b.Helper()
	n, err := b.store.Prune(context.Background(), sdk.PruneRequest{Before: before, Limit: limit})
	if err != nil {
		b.Fatalf("prune: %v", err)
	}
	return n
}

func readPrune(b *bench) {
	epoch := b.acquire()
	var gone, kept []*sdk.Entry
	border := b.clock.now().Add(24 * time.Hour)
	for i, from := range append(slices.Clone(states), states...) {
		e := b.entry("a")
		e.NotAfter = border
		if i < len(states) {
			e.NotAfter = border.Add(-time.Millisecond)
		}
		b.one(appendOp(e), sdk.OpStored)
		from.reach(b, e.ID, epoch)
		if i < len(states) && !from.state.Live() {
			gone = append(gone, e)
		} else {
			kept = append(kept, e)
		}
	}
	if n := b.prune(border, 4); n != 4 {
		b.Fatalf("pruned %d of %d with limit 4", n, len(gone))
	}
	if n := b.prune(border, 100); n != len(gone)-4 {
		b.Fatalf("pruned %d then, want %d", n, len(gone)-4)
	}
	if n := b.prune(border, 100); n != 0 {
		b.Fatalf("pruned %d of nothing", n)
	}
	for _, e := range gone {
		if b.get(e.ID) != nil {
			b.Fatalf("%s is still there", e.ID)
		}
	}
	var bytes int64
	for _, e := range kept {
		bytes += int64(len(b.row(e.ID).Body))
	}
	if n := b.stats().Bytes; n != bytes {
		b.Fatalf("stats say %d bytes, rows have %d", n, bytes)
	}
}

func readPruneLive(b *bench) {
	epoch := b.acquire()
	one, two := b.put("a"), b.put("b")
	b.one(scheduleOp(sdk.OpWait, two.ID, epoch), sdk.OpApplied)
	if n := b.prune(b.clock.now().Add(9999*time.Hour), 100); n != 0 {
		b.Fatalf("pruned %d live rows", n)
	}
	b.wantHeads(epoch, "after prune", "a "+one.ID, "b "+two.ID)
}

func readPruneKey(b *bench) {
	e := b.put("a")
	b.one(acceptedOp(e.ID), sdk.OpApplied)
	b.prune(b.clock.now().Add(9999*time.Hour), 100)
	if res := b.one(appendOp(e), sdk.OpStored); res.Seq <= e.Seq {
		b.Fatalf("seq %d after %d", res.Seq, e.Seq)
	}
}
