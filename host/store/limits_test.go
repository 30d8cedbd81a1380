package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/sqliteguard"
)

func TestOpenRefusesWhatItMustNotTouch(t *testing.T) {
	edit := func(t *testing.T, script string) string {
		dir := t.TempDir()
		s := open(t, dir, Options{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		guard, err := sqliteguard.Open(filepath.Join(dir, FileName)) // as a meshhost of another version would
		if err != nil {
			t.Fatal(err)
		}
		conn, err := guard.Conn(sqlite.OpenReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(sqlitex.ExecuteScript(conn, script, nil), conn.Close(), guard.Close()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		script string
		want   error
	}{
		"a newer schema":      {"PRAGMA user_version=99", ErrNewer},
		"another application": {"PRAGMA application_id=1", ErrForeign},
		"no version":          {"PRAGMA user_version=0", ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Open(context.Background(), edit(t, c.script), Options{}); !errors.Is(err, c.want) {
				t.Errorf("got %v %v, want %v", s, err, c.want)
			} else if errors.Is(err, ErrNewer) {
				fmt.Println("RESULT damage store=host kind=newer_schema fired=1 refused=true")
			}
		})
	}
	refused := func(t *testing.T, dir string, words ...string) {
		t.Helper()
		s, err := Open(context.Background(), dir, Options{})
		if err == nil {
			t.Fatal(errors.Join(errors.New("opened"), s.Close()))
		}
		for _, word := range append(words, filepath.Join(dir, FileName)) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	t.Run("not a database", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "damaged", ".recover")
	})
	t.Run("damaged pages", func(t *testing.T) {
		dir := edit(t, "SELECT 1")
		f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 8192), 100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "damaged", ".recover")
	})
	t.Run("a lost file whose log is there", func(t *testing.T) {
		dir := t.TempDir()
		wal := filepath.Join(dir, FileName+"-wal")
		if err := os.WriteFile(wal, []byte("frames"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "is missing", "-wal")
		if text, err := os.ReadFile(wal); err != nil || string(text) != "frames" {
			t.Errorf("the log is %q, %v", text, err)
		}
	})
	t.Run("no durability", func(t *testing.T) {
		conn, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite|sqlite.OpenCreate)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := durable(context.Background(), conn); !errors.Is(err, ErrNotDurable) {
			t.Errorf("a database that has no WAL was taken: %v", err)
		}
	})
}

func TestAFullDiskLosesNothingAndIsOverWhenThereIsRoom(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	h := handlers(t, s, "a")
	pages := func(max int) {
		t.Helper()
		err := s.write(t.Context(), func(conn *sqlite.Conn) error {
			_, err := number(conn, fmt.Sprintf("PRAGMA max_page_count=%d", max))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages(1) // no more than there are
	big := func(i int) JournalRow {
		r := row(byte(i), 1, h, fmt.Sprint(i))
		r.Frame = make([]byte, 100_000)
		return r
	}
	if res, _, err := s.Journal(t.Context(), []JournalRow{big(1), big(2)}, nil); err == nil || res != nil || !strings.Contains(err.Error(), "free space") {
		t.Fatalf("on a full disk: %v, %v", res, err)
	}
	if size, err := s.JournalSize(t.Context()); err != nil || size.Rows != 0 {
		t.Errorf("size %+v, %v", size, err)
	}
	pages(1 << 20)
	for i, res := range journal(t, s, []JournalRow{big(1), big(2)}) {
		if res.State != Stored {
			t.Errorf("row %d with room again: %v; one that failed must not leave its keys behind", i, res.State)
		}
	}
}

func TestTheFileIsForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	handlers(t, s, "a")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(s.Path() + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want 0600", suffix, info.Mode(), err)
		}
	}
}

func TestWhatIsOldOrTooMuchIsPruned(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{DedupKeys: 5, DeadLetters: 2})
	h := handlers(t, s, "a")
	old := row(1, 1, nil, "old")
	old.ReceivedAt = time.Now().Add(-31 * 24 * time.Hour)
	journal(t, s, []JournalRow{old, row(2, 1, nil, "young")})
	prune := func() {
		if err := s.write(ctx, func(conn *sqlite.Conn) error { _, err := s.pruneStep(conn); return err }); err != nil {
			t.Fatal(err)
		}
	}
	known := func(k string) bool { return journal(t, s, []JournalRow{row(9, 1, nil, k)})[0].State == Duplicate }
	prune()
	if !known("young") || known("old") {
		t.Error("keys older than their age must go, others stay")
	}
	for i := range 8 {
		journal(t, s, []JournalRow{row(byte(10+i), 1, nil, fmt.Sprint("n", i))})
	}
	prune()
	if known("n0") || !known("n7") || !known("n5") {
		t.Error("of too many keys the oldest must go")
	}
	for i := range 4 {
		res := journal(t, s, []JournalRow{row(byte(30+i), 1, h, fmt.Sprint("d", i))})
		journal(t, s, nil, Mark{Kind: MarkDead, Seq: res[0].Seq, Handler: h[0], Reason: fmt.Sprint(i)})
	}
	prune()
	letters, err := s.DeadLetters(ctx, 10)
	if err != nil || len(letters) != 2 || letters[0].Reason != "3" || letters[1].Reason != "2" {
		t.Errorf("dead letters %+v, %v", letters, err)
	}
	if size, _ := s.JournalSize(ctx); size.Rows != 2 {
		t.Errorf("%d rows, want those of two dead letters", size.Rows)
	}
}

// Promise 6: what one handler gave up on doesn't keep the others from getting anything for thirty days.
func TestDeadLettersMakeRoomForWhatIsNew(t *testing.T) {
	for name, opts := range map[string]Options{"rows": {JournalRows: 4}, "bytes": {JournalBytes: 8}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), opts)
			h := handlers(t, s, "broken", "fine")
			var marks []Mark
			for i := range 4 {
				res := journal(t, s, []JournalRow{row(byte(i), 1, h, fmt.Sprint(i))})
				marks = append(marks, Mark{Kind: MarkDead, Seq: res[0].Seq, Handler: h[0], Reason: fmt.Sprint(i)})
				if i > 0 { // the first one is still to be done by fine
					marks = append(marks, Mark{Seq: res[0].Seq, Handler: h[1]})
				}
			}
			journal(t, s, nil, marks...)
			res := journal(t, s, []JournalRow{row(8, 1, h, "new"), row(9, 1, h, "newer"), row(9, 1, h, "newer still"), row(10, 1, h, "too much")})
			for i, want := range []JournalState{Stored, Stored, Stored, Full} {
				if res[i].State != want {
					t.Errorf("row %d: %v, want %v", i, res[i].State, want)
				}
			}
			letters, err := s.DeadLetters(t.Context(), 10)
			if err != nil || len(letters) != 0 {
				t.Errorf("dead letters %+v, %v", letters, err)
			}
			work, err := s.Work(t.Context(), h[1], 0, 10)
			if err != nil || len(work) != 4 {
				t.Errorf("work of fine: %+v, %v", work, err)
			}
			if size, err := s.JournalSize(t.Context()); err != nil || size.Rows != 4 || size.Bytes != 8 {
				t.Errorf("size %+v, %v", size, err)
			}
		})
	}
}

// Promise 5 under load: somebody waits after every step, for days, and the keys keep within their bound all the same.
func TestPruningKeepsUpWhileSomebodyAlwaysWaits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	rows := make([]JournalRow, 3*pruneStep)
	for i := range rows {
		rows[i] = row(1, 1, nil, fmt.Sprint(i))
	}
	journal(t, s, rows)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	guard, err := sqliteguard.Open(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Close()
	conn, err := connect(t.Context(), guard)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	opts := Options{DedupKeys: 1}
	opts.defaults()
	busy := &Store{opts: opts, guard: guard, requests: make(chan *request, 1)}
	w := &writer{store: busy, conn: conn}
	busy.requests <- &request{}
	for i := range 2 {
		if wait := w.prune(); wait > 100*time.Millisecond {
			t.Fatalf("step %d: there is more to prune, and it goes on only after %s", i, wait)
		}
	}
	if wait := w.prune(); wait != pruneEvery {
		t.Errorf("with nothing left it comes back after %s, want %s", wait, pruneEvery)
	}
	if n, err := number(conn, "SELECT count(*) FROM dedup"); err != nil || n != 1 {
		t.Errorf("%d keys left, %v, want 1", n, err)
	}
}

func TestThePluginSpaceHasBounds(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{})
	for name, err := range map[string]error{
		"empty key":  s.KVPut(ctx, "p", "", nil),
		"long key":   s.KVPut(ctx, "p", strings.Repeat("k", 513), nil),
		"long value": s.KVPut(ctx, "p", "k", make([]byte, 64<<10+1)),
	} {
		if !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.KVPut(ctx, "p", strings.Repeat("k", 512), make([]byte, 64<<10)); err != nil {
		t.Errorf("at the bounds: %v", err)
	}
	if err := s.KVPut(ctx, "p", "empty", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := s.KVGet(ctx, "p", "empty"); err != nil || len(v) != 0 {
		t.Errorf("an empty value: %q %v", v, err)
	}
	if _, err := s.KVGet(ctx, "q", "empty"); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("another plugin's key: %v", err)
	}
	for _, k := range []string{"a/1", "a/2", "a%", "b"} {
		if err := s.KVPut(ctx, "l", k, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := s.KVList(ctx, "l", "a/"); err != nil || strings.Join(keys, " ") != "a/1 a/2" {
		t.Errorf("list: %v %v", keys, err)
	}
	if err := errors.Join(s.KVDelete(ctx, "l", "a/1"), s.KVDelete(ctx, "l", "never")); err != nil {
		t.Error(err)
	}
	if keys, _ := s.KVList(ctx, "l", ""); strings.Join(keys, " ") != "a% a/2 b" {
		t.Errorf("after delete: %v", keys)
	}
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		_, err := execN(conn, `INSERT INTO kv (plugin, key, value) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) SELECT 'full', i, x'00' FROM n`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.KVPut(ctx, "full", "one more", nil); !errors.Is(err, sdk.ErrFull) {
		t.Errorf("key 10,001: %v", err)
	}
	if err := s.KVPut(ctx, "full", "7", []byte("new")); err != nil {
		t.Errorf("a known key of a full space: %v", err)
	}
}

func TestTheDirectoryKeepsWhoWasSeenLast(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{Peers: 3})
	at := time.UnixMilli(1_000_000)
	for i := range 5 {
		if err := s.PutPeers(ctx, []Peer{{Mesh: "m", Key: fmt.Sprint(i), Name: "n", LastSeen: at.Add(time.Duration(i) * time.Second)}}); err != nil {
			t.Fatal(err)
		}
	}
	peers, err := s.Peers(ctx)
	if err != nil || len(peers) != 3 || peers[0].Key != "4" || peers[2].Key != "2" || !peers[0].LastSeen.Equal(at.Add(4*time.Second)) {
		t.Errorf("%+v %v", peers, err)
	}
}

func TestPresenceIsKeptPerIdentity(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), Options{})
	for _, p := range []Presence{{"m", "b", []byte(`{"x":1}`)}, {"m", "a", []byte(`{}`)}, {"m", "b", []byte(`{"x":2}`)}} {
		if err := s.PutPresence(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Presences(ctx)
	if err != nil || len(all) != 2 || all[0].Identity != "a" || string(all[1].Doc) != `{"x":2}` {
		t.Errorf("%+v %v", all, err)
	}
	if err := s.PutPresence(ctx, Presence{Mesh: "m", Identity: "b"}); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.Presences(ctx); len(all) != 1 {
		t.Errorf("after removal: %+v", all)
	}
}

func BenchmarkJournal(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	h := handlers(b, s, "a")
	frame := make([]byte, 700)
	var marks []Mark
	n := 0
	for b.Loop() {
		rows := make([]JournalRow, 256)
		for i := range rows {
			n++
			rows[i] = row(byte(n), int64(n%64), h, fmt.Sprintf("c%013d", n), fmt.Sprintf("b%013d", n))
			rows[i].Frame = frame
		}
		res := journal(b, s, rows, marks...)
		marks = marks[:0]
		for _, r := range res {
			marks = append(marks, Mark{Seq: r.Seq, Handler: h[0]})
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
