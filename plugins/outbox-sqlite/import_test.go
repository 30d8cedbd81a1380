package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// bringAll imports entries under label "move" and wants these codes.
func bringAll(t *testing.T, s *store, entries []sdk.Entry, codes ...sdk.OpCode) []sdk.OpResult {
	t.Helper()
	res, err := s.Import(context.Background(), sdk.ImportRequest{Label: "move", Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	for i, code := range codes {
		if res[i].Code != code {
			t.Fatalf("entry %d: got %+v, want %s", i, res[i], code)
		}
	}
	return res
}

// moving makes an entry as another outbox had it.
func moving(lane, target string, state sdk.EntryState, seq int64) sdk.Entry {
	e := *newEntry(target)
	e.Lane, e.State, e.Seq, e.DueAt = lane, state, seq, e.EnqueuedAt
	return e
}

func seqs(res []sdk.OpResult) (all []int64) {
	for _, r := range res {
		all = append(all, r.Seq)
	}
	return all
}

func TestAnImportKeepsTheSeqWhereItIsAboveThoseOfItsLane(t *testing.T) {
	s := open(t, wide)
	one := []sdk.Entry{moving("l1", "a", sdk.StatePending, 10), moving("l1", "a", sdk.StateDelivered, 30), moving("l1", "a", sdk.StatePending, 50)}
	if got := seqs(bringAll(t, s, one)); !slices.Equal(got, []int64{10, 30, 50}) {
		t.Errorf("into an empty store: %v", got)
	}
	two := []sdk.Entry{moving("l2", "a", sdk.StatePending, 20), moving("l2", "a", sdk.StatePending, 40)}
	if got := seqs(bringAll(t, s, two)); !slices.Equal(got, []int64{20, 40}) {
		t.Errorf("another lane, between: %v", got)
	}
	three := []sdk.Entry{moving("l1", "a", sdk.StatePending, 45), moving("l3", "a", sdk.StatePending, 50), moving("l1", "a", sdk.StatePending, 60)}
	if got := seqs(bringAll(t, s, three)); got[0] <= 50 || got[1] <= 50 || got[2] <= got[0] {
		t.Errorf("not above, taken, and behind these: %v", got)
	}
	wantConsistent(t, s)
	again := bringAll(t, s, slices.Concat(one, two, three), sdk.OpApplied, sdk.OpApplied, sdk.OpApplied, sdk.OpApplied, sdk.OpApplied, sdk.OpApplied)
	if got := seqs(again); !slices.Equal(got[:5], []int64{10, 30, 50, 20, 40}) || got[5] >= got[7] {
		t.Errorf("the same once more: %v", got)
	}
	wantConsistent(t, s)
	if res := apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("a")}}); res[0].Seq <= again[7].Seq {
		t.Errorf("an append after: %+v", res[0])
	}
}

func TestASeqThatALaneEverHadIsNotGivenBack(t *testing.T) {
	s := open(t, wide)
	epoch := acquire(t, s)
	bringAll(t, s, []sdk.Entry{moving(benchLane, "a", sdk.StatePending, 10), moving("pruned", "a", sdk.StateDelivered, 20)}, sdk.OpStored, sdk.OpStored)
	rows := seen(t, s, sdk.ScanRequest{Lane: benchLane})
	id, _, _ := strings.Cut(rows[0], " ")
	must(t, s, sdk.Op{
		Kind: sdk.OpReroute, ID: id, Lane: benchLane, Epoch: epoch, Entry: &sdk.Entry{Lane: "elsewhere", Body: []byte("b")},
	}, sdk.OpApplied)
	if n, err := s.Prune(context.Background(), sdk.PruneRequest{Label: "move", Limit: 10}); err != nil || n != 1 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	s.loaded = false // what is kept in memory must not matter
	res := bringAll(t, s, []sdk.Entry{moving(benchLane, "a", sdk.StatePending, 9), moving("pruned", "a", sdk.StatePending, 19)})
	if res[0].Seq <= 10 || res[1].Seq <= 20 {
		t.Errorf("%+v", res)
	}
}

func TestAnImportReplacesOnlyWhatNothingHasTouched(t *testing.T) {
	s := open(t, wide)
	own := newEntry("a")
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: own}})
	rows := []sdk.Entry{
		moving("l", "a", sdk.StatePending, 10), moving("l", "a", sdk.StatePending, 11), moving("l", "a", sdk.StateAccepted, 12), *own,
	}
	rows[3].State = sdk.StateDelivered
	bringAll(t, s, rows, sdk.OpStored, sdk.OpStored, sdk.OpStored, sdk.OpExists)
	must(t, s, sdk.Op{Kind: sdk.OpDelivered, ID: rows[2].ID, At: time.Now()}, sdk.OpApplied)
	// At the source the head was sent in between.
	rows[0].State, rows[0].AcceptedAt, rows[0].BrokerMessageID = sdk.StateAccepted, time.UnixMilli(1e12).UTC(), "m-1"
	bringAll(t, s, rows, sdk.OpApplied, sdk.OpApplied, sdk.OpExists, sdk.OpExists)
	wantConsistent(t, s)
	got, err := s.Get(context.Background(), []string{rows[0].ID, rows[2].ID, own.ID})
	if err != nil || got[0].State != sdk.StateAccepted || got[0].BrokerMessageID != "m-1" || got[1].State != sdk.StateDelivered || got[2].State != sdk.StatePending {
		t.Fatalf("%+v %v", got, err)
	}
	// Another id with the same key is another row's.
	rows[1].ID = newEntry("a").ID
	bringAll(t, s, rows[1:2], sdk.OpExists)
	// And another key of the same id.
	otherKey := rows[0]
	otherKey.ClientMessageID = "another"
	bringAll(t, s, []sdk.Entry{otherKey}, sdk.OpExists)
	n, err := s.Prune(context.Background(), sdk.PruneRequest{Label: "move", Limit: 100})
	if err != nil || n != 2 {
		t.Errorf("pruned %d, %v; rows 0 and 1 are untouched", n, err)
	}
	wantConsistent(t, s)
	if left := seen(t, s, sdk.ScanRequest{}); len(left) != 2 {
		t.Errorf("left: %q", left)
	}
}

func TestASealedStoreTakesFactsOnlyUntilItIsUnsealed(t *testing.T) {
	s := open(t, wide)
	ctx := context.Background()
	epoch := acquire(t, s)
	ids := fill(t, s, 3, func(int) string { return "t" })
	if _, err := s.Prune(ctx, sdk.PruneRequest{All: true, Limit: 10}); !errors.Is(err, sdk.ErrConflict) {
		t.Errorf("prune of all in use: %v", err)
	}
	must(t, s, sdk.Op{Kind: sdk.OpSeal, Error: "moved to postgres"}, sdk.OpApplied)
	must(t, s, sdk.Op{Kind: sdk.OpSeal, Error: "moved to postgres"}, sdk.OpAlready)
	path := s.path(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(ctx, path, wide, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must(t, s, sdk.Op{Kind: sdk.OpAppend, Entry: newEntry("t")}, sdk.OpSealed)
	must(t, s, sdk.Op{Kind: sdk.OpCancel, ID: ids[2]}, sdk.OpSealed)
	must(t, s, sdk.Op{Kind: sdk.OpAccepted, ID: ids[0], At: time.Now()}, sdk.OpApplied)
	_, acquired := s.Acquire(ctx, sdk.AcquireRequest{Lane: "l", Owner: "o", Incarnation: "1", TTL: time.Second})
	_, fetched := s.Fetch(ctx, sdk.FetchRequest{Lane: benchLane, Epoch: epoch, MaxQueues: 1, MaxRows: 1})
	_, imported := s.Import(ctx, sdk.ImportRequest{Label: "move", Entries: []sdk.Entry{moving("l", "a", sdk.StatePending, 99)}})
	for what, err := range map[string]error{"acquire": acquired, "fetch": fetched, "import": imported} {
		if !errors.Is(err, sdk.ErrSealed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if stats, err := s.Stats(ctx, sdk.StatsRequest{}); err != nil || stats.Sealed != "moved to postgres" {
		t.Errorf("%+v %v", stats, err)
	}
	if n, err := s.Prune(ctx, sdk.PruneRequest{All: true, Limit: 2}); err != nil || n != 2 {
		t.Errorf("pruned %d, %v", n, err)
	}
	wantConsistent(t, s)
	must(t, s, sdk.Op{Kind: sdk.OpUnseal}, sdk.OpApplied)
	must(t, s, sdk.Op{Kind: sdk.OpAppend, Entry: newEntry("t")}, sdk.OpStored)
}

func TestStatsOfALaneCountItsLiveRowsAndWhenTheyEnd(t *testing.T) {
	at := time.Now()
	s := open(t, wide)
	s.now = func() time.Time { return at }
	acquire(t, s)
	late, other, done := newEntry("a"), newEntry("a"), newEntry("b")
	late.NotAfter = at.Add(48 * time.Hour).Truncate(time.Millisecond)
	other.Lane = "team/other"
	for _, e := range []*sdk.Entry{newEntry("a"), late, other, done} {
		if e != late {
			e.NotAfter = at.Add(time.Hour)
		}
		must(t, s, sdk.Op{Kind: sdk.OpAppend, Entry: e}, sdk.OpStored)
	}
	must(t, s, sdk.Op{Kind: sdk.OpAccepted, ID: done.ID, At: at}, sdk.OpApplied)
	got, err := s.Stats(context.Background(), sdk.StatsRequest{Lane: benchLane})
	if err != nil || got.States[sdk.StatePending] != 2 || got.States[sdk.StateAccepted] != 0 || got.Bytes != 800 || !got.LastNotAfter.Equal(late.NotAfter) {
		t.Errorf("%+v %v", got, err)
	}
	if !slices.Equal(got.Holders, []string{"o"}) {
		t.Errorf("holders: %q", got.Holders)
	}
	at = at.Add(2 * time.Minute) // the lease is over
	if got, err = s.Stats(context.Background(), sdk.StatsRequest{Lane: "team/none"}); err != nil || len(got.Holders) != 0 || !got.LastNotAfter.IsZero() {
		t.Errorf("%+v %v", got, err)
	}
}
