package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// acquire takes benchLane.
func acquire(t *testing.T, s *store) int64 {
	t.Helper()
	lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: benchLane, Owner: "o", Incarnation: "1", TTL: time.Minute})
	if err != nil || lease.Held {
		t.Fatalf("%+v %v", lease, err)
	}
	return lease.Epoch
}

// seen is what a scan shows, as "id seq".
func seen(t *testing.T, s *store, req sdk.ScanRequest) (lines []string) {
	t.Helper()
	err := s.Scan(context.Background(), req, func(page sdk.ScanPage) error {
		for _, e := range page.Entries {
			lines = append(lines, fmt.Sprint(e.ID, " ", e.Seq))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestAScanOfFewAmongManyGoesOnUntilTheEnd(t *testing.T) {
	s := open(t, wide)
	first := fill(t, s, 1, func(int) string { return "t" })
	other := newEntry("t")
	other.Lane = "team/other"
	fill(t, s, scanWalk+10, func(int) string { return "t" })
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: other}, {Kind: sdk.OpCancel, ID: first[0]}})
	if got := seen(t, s, sdk.ScanRequest{Lane: other.Lane}); len(got) != 1 {
		t.Errorf("of a lane: %q", got)
	}
	if got := seen(t, s, sdk.ScanRequest{States: []sdk.EntryState{sdk.StateCancelled}}); len(got) != 1 {
		t.Errorf("of a state: %q", got)
	}
	if got := seen(t, s, sdk.ScanRequest{}); len(got) != scanWalk+12 {
		t.Errorf("of all: %d", len(got))
	}
}

func TestASlowConsumerOfAScanHoldsNothing(t *testing.T) {
	s := open(t, wide)
	fill(t, s, 2*scanRows, func(int) string { return "t" })
	pages := 0
	err := s.Scan(context.Background(), sdk.ScanRequest{Bodies: true}, func(sdk.ScanPage) error {
		pages++
		fill(t, s, 1, func(int) string { return "t" })
		return s.file.Write(context.Background(), func(*sqlite.Conn) error { return nil })
	})
	if err != nil || pages < 3 {
		t.Fatalf("%d pages, %v", pages, err)
	}
	// While page runs, the whole WAL can be moved into the file: no snapshot is open.
	err = s.Scan(context.Background(), sdk.ScanRequest{}, func(sdk.ScanPage) error {
		if busy := checkpointBusy(t, s); busy != 0 {
			t.Error("a snapshot is open while the consumer works")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkpointBusy tries to empty the WAL by a connection of its own, and is 0 if
// nobody was in its way.
func checkpointBusy(t *testing.T, s *store) (busy int64) {
	t.Helper()
	conn, err := sqlite.OpenConn(s.path(t), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := sqlitefile.One(conn, "PRAGMA wal_checkpoint(RESTART)", func(stmt *sqlite.Stmt) { busy = stmt.ColumnInt64(0) }); err != nil {
		t.Fatal(err)
	}
	return busy
}

// path is the file of an open store.
func (s *store) path(t *testing.T) string {
	t.Helper()
	return explain(t, s, "", "SELECT file FROM pragma_database_list WHERE name = 'main'", 0)
}

func TestNoFetchAndNoApplyStandsBehindListsAndScans(t *testing.T) {
	s := open(t, wide)
	epoch := acquire(t, s)
	ids := fill(t, s, 3, func(int) string { return "t" })
	let := make(chan struct{})
	done := make(chan error)
	busy := make(chan struct{})
	const readers = 8 // more than there are connections
	for range readers {
		go func() {
			done <- s.file.Browse(context.Background(), func(*sqlite.Conn) error {
				select {
				case busy <- struct{}{}:
				case <-let:
				}
				<-let
				return nil
			})
		}()
	}
	<-busy
	<-busy // all of them are taken
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	work, err := s.Fetch(ctx, sdk.FetchRequest{Lane: benchLane, Epoch: epoch, MaxQueues: 1, MaxRows: 5})
	if err != nil || len(work.Queues) != 1 {
		t.Errorf("fetch: %+v, %v", work, err)
	}
	if _, err := s.Apply(ctx, []sdk.Op{{Kind: sdk.OpCancel, ID: ids[0]}}); err != nil {
		t.Errorf("apply: %v", err)
	}
	if got, err := s.Get(ctx, ids); err != nil || got[0] == nil {
		t.Errorf("get: %v, %v", got, err)
	}
	if _, err := s.Stats(ctx, sdk.StatsRequest{}); err != nil {
		t.Errorf("stats: %v", err)
	}
	close(let)
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAWatchSaysGapOnceAndEndsWithItsCallerOrTheStore(t *testing.T) {
	s := open(t, wide)
	ctx, cancel := context.WithCancel(context.Background())
	var events []sdk.WatchEvent
	err := s.Watch(ctx, func(e sdk.WatchEvent) error {
		events = append(events, e)
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(events) != 1 || events[0].Kind != sdk.WatchGap {
		t.Errorf("%+v, %v", events, err)
	}
	if err := s.Watch(context.Background(), func(sdk.WatchEvent) error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a listener that fails: %v", err)
	}
	told := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- s.Watch(context.Background(), func(sdk.WatchEvent) error { close(told); return nil })
	}()
	<-told
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, sqlitefile.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestATextThatNoRowHasIsForgottenAndCanComeBack(t *testing.T) {
	s := open(t, wide)
	names := func() string { return explain(t, s, "", "SELECT text FROM name ORDER BY text", 0) }
	gone, stays := newEntry("gone"), newEntry("stays")
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: gone}, {Kind: sdk.OpAccepted, ID: gone.ID, Final: true}})
	prune := func() {
		t.Helper()
		if _, err := s.Prune(context.Background(), sdk.PruneRequest{Before: time.Now().Add(9999 * time.Hour), Limit: 10}); err != nil {
			t.Fatal(err)
		}
	}
	prune()
	if got := names(); got == "" {
		t.Error("a text is gone though its number is promised to the rows that come")
	}
	// As if all the seqs that it was promised for had gone by.
	err := s.file.Write(context.Background(), func(*sqlite.Conn) error {
		s.lastSeq += 2 * nameSpan
		s.dirty = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: stays}})
	prune()
	if got, want := names(), "member\nnext\nstays\nteam\n"+benchLane; got != want {
		t.Errorf("names:\n%s\nwant:\n%s", got, want)
	}
	again := newEntry("gone")
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: again}})
	got, err := s.Get(context.Background(), []string{again.ID, stays.ID})
	if err != nil || got[0].Target != "gone" || got[1].Target != "stays" {
		t.Fatalf("%+v %v", got, err)
	}
	wantConsistent(t, s)
}

func TestARowThatMovesTakesThePromiseOfItsTextsAlong(t *testing.T) {
	s := open(t, wide)
	id := fill(t, s, 1, func(int) string { return "t" })[0]
	must(t, s, sdk.Op{Kind: sdk.OpCancel, ID: id}, sdk.OpApplied)
	err := s.file.Write(context.Background(), func(*sqlite.Conn) error {
		s.lastSeq += 2 * nameSpan
		s.dirty = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, s, sdk.Op{Kind: sdk.OpRequeue, ID: id, NotAfter: time.Now().Add(time.Hour)}, sdk.OpApplied)
	wantConsistent(t, s)
}

func TestATextOfATransactionThatWasUndoneIsNotTakenForTheNext(t *testing.T) {
	s := open(t, wide)
	lost := newEntry("lost")
	err := s.file.Write(context.Background(), func(conn *sqlite.Conn) error {
		x := tx{store: s, conn: conn, at: s.now()}
		if _, err := x.append(lost); err != nil {
			return err
		}
		if _, _, err := x.replay(lost); err != nil { // reads the texts
			return err
		}
		return errors.ErrUnsupported
	})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	kept := newEntry("kept")
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: kept}})
	got, err := s.Get(context.Background(), []string{kept.ID, lost.ID})
	if err != nil || got[0] == nil || got[0].Target != "kept" || got[1] != nil {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestAKeyIsOneWhetherItIsSomeonesIDOrNot(t *testing.T) {
	for _, idFirst := range []bool{true, false} {
		s := open(t, wide)
		own, other := newEntry("t"), newEntry("t")
		other.ClientMessageID = own.ID
		pair := []*sdk.Entry{own, other}
		if !idFirst {
			slices.Reverse(pair)
		}
		res := apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: pair[0]}, {Kind: sdk.OpAppend, Entry: pair[1]}})
		if res[0].Code != sdk.OpStored || res[1].Code != sdk.OpExists || res[1].ID != pair[0].ID {
			t.Errorf("id first %v: %+v", idFirst, res)
		}
		// Another sender's key is another key.
		third := newEntry("t")
		third.Sender, third.ClientMessageID = "someone", pair[0].ClientMessageID
		must(t, s, sdk.Op{Kind: sdk.OpAppend, Entry: third}, sdk.OpStored)
	}
}

func TestRandomOpsOfEveryKindKeepTheTablesConsistent(t *testing.T) {
	for seed := range uint64(4) {
		at := time.Now()
		s := open(t, wide)
		s.now = func() time.Time { return at }
		r := &roulette{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, s: s, epoch: map[string]int64{}}
		for _, lane := range lanes {
			lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: lane, Owner: "o", Incarnation: "1", TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			r.epoch[lane] = lease.Epoch
		}
		for round := range 40 {
			for range 40 {
				r.turn()
			}
			at = at.Add(time.Second)
			if round%8 == 7 {
				// What is kept in memory must not matter.
				s.rows, s.loaded = recent{}, false
			}
		}
		wantConsistent(t, s)
		if len(r.did) < 12 {
			t.Errorf("seed %d did only %v", seed, r.did)
		}
	}
}

var lanes = []string{benchLane, "team/two"}

// roulette plays random ops and counts those that were applied.
type roulette struct {
	*rand.Rand
	t     *testing.T
	s     *store
	epoch map[string]int64
	ids   []string
	moved []sdk.Entry
	did   map[string]int
}

func (r *roulette) turn() {
	kinds := []sdk.OpKind{
		sdk.OpAppend, sdk.OpAppend, sdk.OpAppend, sdk.OpAccepted, sdk.OpDelivered, sdk.OpDefer, sdk.OpWait, sdk.OpWake, sdk.OpDie,
		sdk.OpExpire, sdk.OpCancel, sdk.OpRequeue, sdk.OpResend, sdk.OpReroute, "import", "again", "prune",
	}
	kind := kinds[r.IntN(len(kinds))]
	target := benchTarget(r.IntN(3))
	lane := lanes[r.IntN(2)]
	switch kind {
	case "import", "again":
		r.bring(kind, target, lane)
		return
	case "prune":
		req := sdk.PruneRequest{Label: "label", Limit: 3}
		if r.IntN(2) == 0 {
			req = sdk.PruneRequest{Before: time.Now().Add(9999 * time.Hour), Limit: 3}
		}
		n, err := r.s.Prune(context.Background(), req)
		r.note(string(kind), n > 0, err)
		return
	}
	op := sdk.Op{
		Kind: kind, Lane: lane, Epoch: r.epoch[lane], Target: target, After: time.Duration(r.IntN(3)) * time.Second, Count: true, Error: "no",
		At: time.Now(), BrokerMessageID: "m", Final: r.IntN(4) == 0, NotAfter: time.Now().Add(time.Hour),
	}
	switch {
	case kind == sdk.OpAppend:
		op.Entry = newEntry(target)
		op.Entry.Lane = lane
		r.ids = append(r.ids, op.Entry.ID)
	case len(r.ids) == 0:
		return
	default:
		op.ID = r.ids[max(0, len(r.ids)-1-r.IntN(60))]
	}
	if kind == sdk.OpReroute {
		op.Entry = &sdk.Entry{Lane: lanes[r.IntN(2)], Nonce: "bm9uY2U=", Body: make([]byte, 77)}
	}
	res, err := r.s.Apply(context.Background(), []sdk.Op{op})
	r.note(string(kind), err == nil && (res[0].Code == sdk.OpApplied || res[0].Code == sdk.OpStored), err)
}

// bring imports new entries, or those of an earlier turn again in another state.
func (r *roulette) bring(kind sdk.OpKind, target, lane string) {
	if kind == "import" || len(r.moved) == 0 {
		r.moved = nil
		for range 1 + r.IntN(3) {
			e := newEntry(target)
			e.Lane, e.Seq, e.State, e.DueAt = lane, r.Int64N(r.s.lastSeq+10), states[1+r.IntN(len(states)-1)], time.Now()
			r.moved = append(r.moved, *e)
			r.ids = append(r.ids, e.ID)
		}
	} else {
		r.moved[0].State = states[1+r.IntN(len(states)-1)]
		r.moved[0].Seq += r.Int64N(3)
	}
	res, err := r.s.Import(context.Background(), sdk.ImportRequest{Label: "label", Entries: r.moved})
	r.note(string(kind), err == nil && res[0].Code != sdk.OpExists, err)
}

func (r *roulette) note(kind string, done bool, err error) {
	if err != nil {
		r.t.Fatalf("%s: %v", kind, err)
	}
	if r.did == nil {
		r.did = map[string]int{}
	}
	if done {
		r.did[kind]++
	}
}
