package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meshhost/meshhost/sdk/sqliteguard"
)

// damagePushes is how many are stored before and after a checkpoint.
const damagePushes = 60

// fillForDamage journals pushes, some of them done, some dead, and keys of a plugin.
func fillForDamage(t *testing.T, s *Store, from int) {
	t.Helper()
	h := handlers(t, s, "a", "b")
	for i := from; i < from+damagePushes; i++ {
		r := pushOf(0, i, 0)
		r.Handlers = h
		res := journal(t, s, []JournalRow{r})
		switch i % 3 {
		case 0:
			journal(t, s, nil, Mark{Kind: MarkDone, Seq: res[0].Seq, Handler: h[0]})
		case 1:
			journal(t, s, nil, Mark{Kind: MarkDead, Seq: res[0].Seq, Handler: h[1], Attempts: 3, Reason: "no"})
		}
		if err := s.KVPut(context.Background(), "load", fmt.Sprint(i), bytes.Repeat([]byte{byte(i)}, i*80)); err != nil {
			t.Fatal(err)
		}
	}
}

// allOf reads whatever the store has through its own calls.
func allOf(s *Store) (lines []string, err error) {
	ctx := context.Background()
	h, dropped, err := s.Handlers(ctx, []string{"a", "b"})
	if err != nil {
		return nil, err
	}
	lines = append(lines, "install "+s.InstallID(), fmt.Sprint(h, dropped))
	size, err := s.JournalSize(ctx)
	if err != nil {
		return nil, err
	}
	lines = append(lines, fmt.Sprint(size))
	for name, id := range h {
		items, err := s.Work(ctx, id, 0, 1<<20)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			frames, err := s.Frames(ctx, []int64{it.Seq})
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("work %s %+v %x", name, it, sha256.Sum256(fmt.Append(nil, frames))))
		}
	}
	letters, err := s.DeadLetters(ctx, 1<<20)
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		lines = append(lines, fmt.Sprintf("dead %+v", l))
	}
	keys, err := s.KVList(ctx, "load", "")
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		v, err := s.KVGet(ctx, "load", k)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("kv %s %x", k, sha256.Sum256(v)))
	}
	slices.Sort(lines)
	return lines, nil
}

// duplicates counts which pushes the store takes for known: all that were stored.
func duplicates(s *Store) (n int, err error) {
	rows := make([]JournalRow, 2*damagePushes)
	for i := range rows {
		rows[i] = pushOf(0, i, 0)
	}
	results, _, err := s.Journal(context.Background(), rows, nil)
	for _, r := range results {
		if r.State == Duplicate {
			n++
		}
	}
	return n, err
}

// damageImage is a store as a killed process leaves it, partly in the file and
// partly in the WAL.
func damageImage(t *testing.T) (files map[string][]byte, want []string) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	fillForDamage(t, s, 0)
	guard, err := sqliteguard.Open(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := guard.Conn(sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteTransient(conn, "PRAGMA wal_checkpoint(PASSIVE)", nil); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	fillForDamage(t, s, damagePushes)
	if want, err = allOf(s); err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	for _, suffix := range []string{"", "-wal", "-mark"} {
		if files[suffix], err = os.ReadFile(s.Path() + suffix); err != nil {
			t.Fatal(err)
		}
	}
	if len(files[""]) < 20*4096 || len(files["-wal"]) < 20*4096 {
		t.Fatalf("sizes: file %d, WAL %d", len(files[""]), len(files["-wal"]))
	}
	return files, want
}

// look opens an image and says whether it is whole.
func look(t *testing.T, files map[string][]byte, want []string) (whole bool, err error) {
	t.Helper()
	dir := t.TempDir()
	for suffix, raw := range files {
		if err := os.WriteFile(filepath.Join(dir, FileName+suffix), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(context.Background(), dir, Options{})
	if err != nil {
		return false, err
	}
	defer s.Close()
	have, err := allOf(s)
	if err != nil {
		return false, err
	}
	known, err := duplicates(s)
	return slices.Equal(have, want) && known == 2*damagePushes, err
}

func TestADamagedFileIsAnErrorOrWhole(t *testing.T) {
	files, want := damageImage(t)
	if whole, err := look(t, files, want); err != nil || !whole {
		t.Fatalf("undamaged: whole %v, %v", whole, err)
	}
	rng := rand.New(rand.NewPCG(8, 8))
	for _, c := range []struct {
		kind, suffix string
		n            int
		damage       func(raw []byte) ([]byte, int)
	}{
		{"flip_db", "", 100, flip(rng)},
		{"flip_wal", "-wal", 100, flip(rng)},
		{"truncate_db", "", 50, truncate(rng)},
		{"truncate_wal", "-wal", 50, truncate(rng)},
	} {
		refused, unharmed, silent := 0, 0, 0
		for range c.n {
			changed := map[string][]byte{}
			for suffix, raw := range files {
				changed[suffix] = bytes.Clone(raw)
			}
			var at int
			changed[c.suffix], at = c.damage(changed[c.suffix])
			switch whole, err := look(t, changed, want); {
			case err != nil:
				refused++
			case whole:
				unharmed++
			default:
				silent++
				t.Errorf("%s at %d: something is missing and there was no error", c.kind, at)
			}
		}
		fmt.Printf("RESULT damage store=host kind=%s fired=%d refused=%d whole=%d silent=%d\n", c.kind, c.n, refused, unharmed, silent)
	}
}

func flip(rng *rand.Rand) func([]byte) ([]byte, int) {
	return func(raw []byte) ([]byte, int) {
		at := rng.IntN(len(raw))
		raw[at] ^= 1 << rng.IntN(8)
		return raw, at
	}
}

func truncate(rng *rand.Rand) func([]byte) ([]byte, int) {
	return func(raw []byte) ([]byte, int) {
		at := rng.IntN(len(raw))
		return raw[:at], at
	}
}
