package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/sqliteguard"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// image is an outbox as a killed process leaves it, and what is in it.
type image struct {
	files map[string][]byte // by suffix
	rows  map[string]*sdk.Entry
	stats sdk.OutboxStats
}

// suffixes are the files of an outbox. The -shm file is made anew at each start.
var suffixes = []string{"", "-wal", "-mark"}

// newImage fills an outbox so that some of it is in the file and some in the WAL.
func newImage(t *testing.T) image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outbox.db")
	s, err := openStore(context.Background(), path, wide, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := make([]string, 0, 300)
	fill := func(n int) {
		for i := range n {
			e := newEntry(benchTarget(i))
			if i%10 == 0 {
				e.Body = make([]byte, 9000) // needs pages of its own
			}
			for j := range e.Body {
				e.Body[j] = byte(i + j)
			}
			ops := []sdk.Op{{Kind: sdk.OpAppend, Entry: e}}
			switch i % 5 {
			case 0:
				ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: e.ID, At: time.Now(), BrokerMessageID: "b-" + e.ID})
			case 1:
				ops = append(ops, sdk.Op{Kind: sdk.OpCancel, ID: e.ID})
			}
			apply(t, s, ops)
			ids = append(ids, e.ID)
		}
	}
	fill(200)
	if err := checkpoint(path); err != nil {
		t.Fatal(err)
	}
	fill(60) // less than what SQLite checkpoints by itself
	img := image{files: map[string][]byte{}, rows: map[string]*sdk.Entry{}}
	rows, err := s.Get(context.Background(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range rows {
		img.rows[e.ID] = e
	}
	if img.stats, err = s.Stats(context.Background(), sdk.StatsRequest{}); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range suffixes {
		raw, err := os.ReadFile(path + suffix)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err == nil {
			img.files[suffix] = raw
		}
	}
	if len(img.files[""]) < 20*4096 || len(img.files["-wal"]) < 20*4096 {
		t.Fatalf("sizes: file %d, WAL %d", len(img.files[""]), len(img.files["-wal"]))
	}
	return img
}

// checkpoint moves the WAL into the file.
func checkpoint(path string) error { return alter(path, "PRAGMA wal_checkpoint(PASSIVE)") }

// alter runs a statement as a plugin of another version would.
func alter(path, query string) error {
	guard, err := sqliteguard.Open(path)
	if err != nil {
		return err
	}
	defer guard.Close()
	conn, err := guard.Conn(sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer conn.Close()
	return sqlitex.ExecuteTransient(conn, query, nil)
}

// look opens the image with some files replaced and says what an operator gets:
// an error, or rows; then how many differ from what was stored.
func (img image) look(t *testing.T, changed map[string][]byte) (wrong int, err error) {
	t.Helper()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "outbox.db")
	for suffix, raw := range img.files {
		if c, ok := changed[suffix]; ok {
			raw = c
		}
		if err := os.WriteFile(path+suffix, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openStore(ctx, path, wide, time.Now)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	seen := 0
	for req := (sdk.ListRequest{Limit: 500}); ; {
		page, err := s.List(ctx, req)
		if err != nil {
			return 0, err
		}
		seen += len(page.Entries)
		if req.Before = page.Next; page.Next == "" {
			break
		}
	}
	if seen != len(img.rows) {
		wrong++
	}
	ids := slices.Sorted(maps.Keys(img.rows))
	got, err := s.Get(ctx, ids)
	if err != nil {
		return 0, err
	}
	keys := make([]sdk.MessageKey, len(ids))
	for i, id := range ids {
		want := img.rows[id]
		keys[i] = sdk.MessageKey{Mesh: want.Mesh, Sender: want.Sender, ClientMessageID: want.ClientMessageID}
		if got[i] == nil || !reflect.DeepEqual(got[i], want) {
			wrong++
		}
	}
	found, err := s.Lookup(ctx, keys)
	if err != nil {
		return 0, err
	}
	for i, id := range ids {
		if found[i] == nil || found[i].ID != id {
			wrong++
		}
	}
	stats, err := s.Stats(ctx, sdk.StatsRequest{})
	if err != nil {
		return 0, err
	}
	if fmt.Sprint(stats) != fmt.Sprint(img.stats) {
		wrong++
	}
	return wrong, nil
}

func TestADamagedFileIsAnErrorOrWhole(t *testing.T) {
	img := newImage(t)
	if wrong, err := img.look(t, nil); err != nil || wrong != 0 {
		t.Fatalf("undamaged: %v, %d wrong", err, wrong)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	try := func(kind string, n int, damage func() (suffix string, raw []byte, what string)) {
		refused, whole, silent := 0, 0, 0
		for range n {
			suffix, raw, what := damage()
			switch wrong, err := img.look(t, map[string][]byte{suffix: raw}); {
			case err != nil:
				refused++
			case wrong == 0:
				whole++
			default:
				silent++
				t.Errorf("%s of outbox.db%s: %d wrong and no error", what, suffix, wrong)
			}
		}
		fmt.Printf("RESULT damage store=outbox-sqlite kind=%s fired=%d refused=%d whole=%d silent=%d\n", kind, n, refused, whole, silent)
	}
	for _, suffix := range []string{"", "-wal"} {
		name := map[string]string{"": "db", "-wal": "wal"}[suffix]
		try("flip_"+name, 100, func() (string, []byte, string) {
			raw := bytes.Clone(img.files[suffix])
			at := rng.IntN(len(raw))
			raw[at] ^= 1 << rng.IntN(8)
			return suffix, raw, fmt.Sprintf("flip at %d", at)
		})
		try("truncate_"+name, 50, func() (string, []byte, string) {
			n := rng.IntN(len(img.files[suffix]))
			return suffix, img.files[suffix][:n], fmt.Sprintf("cut to %d", n)
		})
	}
}

func TestAFileOfANewerPluginIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	s, err := openStore(context.Background(), path, wide, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("t")}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := alter(path, "PRAGMA user_version=99"); err != nil {
		t.Fatal(err)
	}
	_, err = openStore(context.Background(), path, wide, time.Now)
	refused := err != nil && strings.Contains(err.Error(), "schema version 99") && strings.Contains(err.Error(), "newer plugin")
	fmt.Printf("RESULT damage store=outbox-sqlite kind=newer_schema fired=1 refused=%v\n", refused)
	if !refused {
		t.Errorf("got %v", err)
	}
}
