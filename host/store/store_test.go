package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestMain(m *testing.M) {
	if loadMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// crashImage copies the files of an open store, as a crash at this moment leaves them.
func crashImage(t testing.TB, s *Store) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		in, err := os.Open(s.Path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, FileName+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func key(s string) (k DedupKey) { copy(k[:], s); return k }

func row(id byte, order int64, handlers []int64, keys ...string) JournalRow {
	r := JournalRow{ID: [16]byte{id}, Mesh: "team", OrderKey: order, ReceivedAt: time.Now(), Frame: []byte{id, 'f'}, Handlers: handlers}
	for _, k := range keys {
		r.Keys = append(r.Keys, key(k))
	}
	return r
}

func handlers(t testing.TB, s *Store, names ...string) []int64 {
	t.Helper()
	ids, _, err := s.Handlers(context.Background(), names)
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for _, n := range names {
		out = append(out, ids[n])
	}
	return out
}

func journal(t testing.TB, s *Store, rows []JournalRow, marks ...Mark) []JournalResult {
	t.Helper()
	res, _, err := s.Journal(context.Background(), rows, marks)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestWhatAWriteAnsweredSurvivesACrash(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{})
	h := handlers(t, s, "inbox", "hook")
	res := journal(t, s, []JournalRow{row(1, 7, h, "a"), row(2, 8, h[:1], "b"), row(3, 7, h, "c")})
	journal(t, s, nil, Mark{Seq: res[0].Seq, Handler: h[0]}, Mark{Kind: MarkRetry, Seq: res[2].Seq, Handler: h[0], Attempts: 4, Due: time.UnixMilli(12345)})
	id, err := s.MeshIdentity(ctx, "team")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.KVPut(ctx, "p", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}

	again := open(t, crashImage(t, s), Options{})
	work, err := again.Work(ctx, h[0], 0, 10)
	if err != nil || len(work) != 2 || work[0].Seq != res[1].Seq || work[1].Attempts != 4 || work[1].Due.UnixMilli() != 12345 || work[1].OrderKey != 7 {
		t.Errorf("work of inbox after a crash: %+v, %v", work, err)
	}
	if work, _ := again.Work(ctx, h[1], 0, 10); len(work) != 2 {
		t.Errorf("work of hook after a crash: %+v", work)
	}
	frames, err := again.Frames(ctx, []int64{res[0].Seq, 999, res[2].Seq})
	if err != nil || len(frames) != 2 || string(frames[1].Frame) != "\x03f" || frames[1].ID != [16]byte{3} || frames[1].Mesh != "team" {
		t.Errorf("frames after a crash: %+v, %v", frames, err)
	}
	if got := journal(t, again, []JournalRow{row(9, 7, h, "b")}); got[0].State != Duplicate {
		t.Errorf("a known key after a crash: %v, want a duplicate", got[0].State)
	}
	if got, _ := again.MeshIdentity(ctx, "team"); got != id || got.PID <= 0 || again.InstallID() != s.InstallID() || len(s.InstallID()) != 32 {
		t.Errorf("identity changed: %+v, want %+v", got, id)
	}
	if v, err := again.KVGet(ctx, "p", "k"); err != nil || string(v) != "v" {
		t.Errorf("kv: %q, %v", v, err)
	}
	if other, _ := again.MeshIdentity(ctx, "other"); other.SessionID == id.SessionID {
		t.Error("two meshes share a session id")
	}
}

func TestAFrameGoesWithItsLastWorkItemAndNumbersAreNotUsedAgain(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{})
	h := handlers(t, s, "a", "b")
	res := journal(t, s, []JournalRow{row(1, 1, h, "x")})
	journal(t, s, nil, Mark{Seq: res[0].Seq, Handler: h[0]})
	if f, _ := s.Frames(ctx, []int64{res[0].Seq}); len(f) != 1 {
		t.Error("the frame went while b still needs it")
	}
	again := journal(t, s, []JournalRow{row(2, 1, h, "y")}, Mark{Seq: res[0].Seq, Handler: h[1]}, Mark{Seq: res[0].Seq, Handler: h[1]})
	if f, _ := s.Frames(ctx, []int64{res[0].Seq}); len(f) != 0 {
		t.Error("the frame stayed after the last work item")
	}
	if again[0].Seq <= res[0].Seq {
		t.Errorf("seq %d after %d", again[0].Seq, res[0].Seq)
	}
	size, _ := s.JournalSize(ctx)
	if size.Rows != 1 || size.Bytes != 2 {
		t.Errorf("size %+v, want 1 row of 2 bytes", size)
	}
}

func TestARowIsADuplicateIfAnyKeyIsKnown(t *testing.T) {
	cases := []struct {
		name   string
		first  []string
		second []string
		third  []string
		want   [2]JournalState
	}{
		{"other keys", []string{"c1", "b1"}, []string{"c2", "b2"}, []string{"c3"}, [2]JournalState{Stored, Stored}},
		{"same client id", []string{"c1", "b1"}, []string{"c1", "b2"}, []string{"b2"}, [2]JournalState{Duplicate, Duplicate}},
		{"live without, then queued with a client id", []string{"b1"}, []string{"c1", "b1"}, []string{"c1"}, [2]JournalState{Duplicate, Duplicate}},
		{"no keys at all", nil, nil, nil, [2]JournalState{Stored, Stored}},
	}
	for _, c := range cases {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/together=%v", c.name, together), func(t *testing.T) {
				s := open(t, t.TempDir(), Options{})
				h := handlers(t, s, "a")
				rows := []JournalRow{row(1, 1, h, c.first...), row(2, 1, h, c.second...), row(3, 1, h, c.third...)}
				var got []JournalResult
				if together {
					got = journal(t, s, rows)
				} else {
					for i := range rows {
						got = append(got, journal(t, s, rows[i:i+1])...)
					}
				}
				if got[0].State != Stored || got[1].State != c.want[0] || got[2].State != c.want[1] {
					t.Errorf("got %v, want stored and %v", got, c.want)
				}
			})
		}
	}
}

func TestAFullJournalRefusesAndTakesAgainWhenThereIsRoom(t *testing.T) {
	for name, opts := range map[string]Options{"rows": {JournalRows: 2}, "bytes": {JournalBytes: 5}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), opts)
			h := handlers(t, s, "a")
			res := journal(t, s, []JournalRow{row(1, 1, h, "a"), row(2, 1, h, "b"), row(3, 1, h, "c"), row(4, 1, h, "a"), row(5, 1, nil, "e")})
			want := []JournalState{Stored, Stored, Full, Duplicate, Stored}
			for i := range want {
				if res[i].State != want[i] {
					t.Errorf("row %d: %v, want %v", i, res[i].State, want[i])
				}
			}
			res = journal(t, s, []JournalRow{row(3, 1, h, "c")}, Mark{Seq: res[0].Seq, Handler: h[0]})
			if res[0].State != Stored {
				t.Errorf("with room again: %v; a refused row must not leave its keys behind", res[0].State)
			}
		})
	}
}

func TestWorkOfARemovedHandlerIsDroppedAndCounted(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{})
	h := handlers(t, s, "keep", "gone")
	res := journal(t, s, []JournalRow{row(1, 1, h, "a"), row(2, 1, h[1:], "b"), row(3, 1, h[1:], "c")})
	journal(t, s, nil, Mark{Kind: MarkDead, Seq: res[2].Seq, Handler: h[1], Attempts: 20, Reason: "no"})
	ids, dropped, err := s.Handlers(ctx, []string{"keep"})
	if err != nil || dropped["gone"] != 2 || len(ids) != 1 || ids["keep"] != h[0] {
		t.Errorf("ids %v, dropped %v, %v", ids, dropped, err)
	}
	size, _ := s.JournalSize(ctx)
	if size.Rows != 2 {
		t.Errorf("%d rows, want the one of keep and the dead letter", size.Rows)
	}
	letters, err := s.DeadLetters(ctx, 10)
	if err != nil || len(letters) != 1 || letters[0].Handler != "gone" || letters[0].Reason != "no" || letters[0].Attempts != 20 {
		t.Errorf("dead letters %+v, %v", letters, err)
	}
}

func TestWritersShareTransactions(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	h := handlers(t, s, "a")
	block, entered := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.write(context.Background(), func(*sqlite.Conn) error { close(entered); <-block; return nil })
	})
	<-entered
	var transactions sync.Map
	for i := range 50 {
		wg.Go(func() {
			_ = s.write(context.Background(), func(conn *sqlite.Conn) error {
				n, err := number(conn, "PRAGMA data_version") // any read; what counts is how often the WAL was committed to
				transactions.Store(n, true)
				return err
			})
			journal(t, s, []JournalRow{row(byte(i), 1, h, fmt.Sprint(i))})
		})
	}
	before := walFrames(t, s)
	for len(s.requests) < 50 {
		runtime.Gosched() // the producers come by themselves
	}
	close(block)
	wg.Wait()
	// One commit for each would write at least 4 pages each.
	if grown := walFrames(t, s) - before; grown > 50*3 {
		t.Errorf("50 concurrent writes wrote %d WAL frames: they did not share transactions", grown)
	}
}

func walFrames(t *testing.T, s *Store) int64 {
	info, err := os.Stat(s.Path() + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() / 4120
}

func TestAFaultyWriteDoesNotTakeOthersWithIt(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	block, entered := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.write(context.Background(), func(*sqlite.Conn) error { close(entered); <-block; return nil })
	})
	<-entered
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.write(context.Background(), func(conn *sqlite.Conn) error {
				if i == 1 {
					return sqlitex.Execute(conn, "INSERT INTO meta (key, value) VALUES ('k', NULL)", nil)
				}
				_, err := execN(conn, "INSERT INTO meta (key, value) VALUES (?, 'v')", fmt.Sprint("k", i))
				return err
			})
		})
	}
	for len(s.requests) < len(errs) {
		runtime.Gosched()
	}
	close(block)
	wg.Wait()
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Errorf("errors %v, want one for the faulty write alone", errs)
	}
	var n int64
	err := s.view(context.Background(), func(conn *sqlite.Conn) (err error) {
		n, err = number(conn, "SELECT count(*) FROM meta WHERE key IN ('k0','k2')")
		return err
	})
	if err != nil || n != 2 {
		t.Errorf("%d rows of the good writes, %v", n, err)
	}
}

func TestAfterCloseEverythingSaysSo(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.MeshIdentity(context.Background(), "m"); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if _, err := s.Peers(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
}
