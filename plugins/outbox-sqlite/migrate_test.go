package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// writeVersion1 makes a file as version 1 of the schema had it. Row 1 was
// requeued: its seq is 8, behind the others of its queue.
func writeVersion1(t *testing.T, path string, now time.Time) {
	t.Helper()
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	script := schema1 + fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=1;", applicationID)
	row := func(n, seq int, id, key, target, state string, live, head, size int, errorText, broker string, accepted, delivered int64) {
		ms := now.UnixMilli()
		script += fmt.Sprintf(`INSERT INTO entry (n, id, client_message_id, mesh, sender, lane, target, priority, nonce, fingerprint,
  enqueued_at, not_after, seq, state, live, head, due_at, attempts, size, last_error, broker_message_id, accepted_at, delivered_at)
VALUES (%d, '%s', '%s', 'team', 'member', 'team/k', '%s', 'next', 'bm9uY2U=', x'0102', %d, %d, %d, '%s', %d, %d, %d, 3, %d, '%s', '%s', %d, %d);`,
			n, id, key, target, ms+int64(n), ms+1_000_000, seq, state, live, head, ms, size, errorText, broker, accepted, delivered)
		if size > 0 {
			script += fmt.Sprintf("INSERT INTO body VALUES (%d, zeroblob(%d));", n, size)
		}
	}
	row(1, 8, version1ID(1), version1ID(1), "a", "pending", 1, 0, 11, "", "", 0, 0)
	row(2, 2, version1ID(2), "my key", "a", "pending", 1, 1, 12, "busy", "", 0, 0)
	row(3, 3, version1ID(3), version1ID(77), "b", "waiting", 1, 1, 13, "nobody", "", 0, 0)
	row(4, 4, version1ID(4), version1ID(4), "a", "accepted", 0, 0, 14, "", version1ID(99), 5000, 0)
	row(5, 5, "no uuid", "no uuid", "a", "delivered", 0, 0, 0, "", "m-1", 5000, 6000)
	row(6, 6, version1ID(6), version1ID(6), "a", "dead", 0, 0, 16, "refused", "", 0, 0)
	row(7, 7, version1ID(7), version1ID(7), "ä", "accepted", 0, 0, 0, "", "m-2", 5000, 0)
	script += `INSERT INTO lane VALUES ('team/k', 'owner', 'run', 4, 9999999999999);
UPDATE total SET epochs = 3, last_seq = 8, bytes = 66, pending = 2, waiting = 1, accepted = 2, delivered = 1, dead = 1;`
	if err := sqlitex.ExecuteScript(conn, script, nil); err != nil {
		t.Fatal(err)
	}
}

func version1ID(n int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012d", n) }

func TestAFileOfVersion1IsBroughtUpToDateWithAllThatIsInIt(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "outbox.db")
	now := time.UnixMilli(1_800_000_000_000).UTC()
	writeVersion1(t, path, now)
	s, err := openStore(ctx, path, wide, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantConsistent(t, s)
	var got []string
	for _, n := range []string{version1ID(1), version1ID(2), version1ID(3), version1ID(4), "no uuid", version1ID(6), version1ID(7)} {
		rows, err := s.Get(ctx, []string{n})
		if err != nil || rows[0] == nil {
			t.Fatalf("%s: %v %v", n, rows, err)
		}
		e := rows[0]
		if e.Mesh != "team" || e.Sender != "member" || e.Lane != "team/k" || e.Priority != "next" || e.Nonce != "bm9uY2U=" ||
			string(e.Fingerprint) != "\x01\x02" || e.Attempts != 3 || !e.NotAfter.Equal(now.Add(1000*time.Second)) {
			t.Errorf("%+v", e)
		}
		got = append(got, fmt.Sprint(e.ID, " ", e.ClientMessageID, " ", e.Target, " ", e.State, " ", e.Seq, " ", len(e.Body), " ", e.LastError, " ", e.BrokerMessageID,
			" ", e.EnqueuedAt.Sub(now), " ", !e.AcceptedAt.IsZero(), " ", !e.DeliveredAt.IsZero()))
		found, err := s.Lookup(ctx, []sdk.MessageKey{{Mesh: "team", Sender: "member", ClientMessageID: e.ClientMessageID}})
		if err != nil || found[0] == nil || found[0].ID != e.ID {
			t.Errorf("lookup of %s: %v %v", e.ClientMessageID, found, err)
		}
	}
	want := []string{
		version1ID(1) + " " + version1ID(1) + " a pending 8 11   1ms false false",
		version1ID(2) + " my key a pending 2 12 busy  2ms false false",
		version1ID(3) + " " + version1ID(77) + " b waiting 3 13 nobody  3ms false false",
		version1ID(4) + " " + version1ID(4) + " a accepted 4 14  " + version1ID(99) + " 4ms true false",
		"no uuid no uuid a delivered 5 0  m-1 5ms true true",
		version1ID(6) + " " + version1ID(6) + " a dead 6 16 refused  6ms false false",
		version1ID(7) + " " + version1ID(7) + " ä accepted 7 0  m-2 7ms true false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	work, err := s.Fetch(ctx, sdk.FetchRequest{Lane: "team/k", Epoch: 4, MaxQueues: 10, MaxRows: 10})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, q := range work.Queues {
		for _, e := range q.Rows {
			order = append(order, q.Target+" "+e.ID)
		}
	}
	if want := []string{"a " + version1ID(2), "a " + version1ID(1), "b " + version1ID(3)}; !slices.Equal(order, want) {
		t.Errorf("fetch: got %q, want %q", order, want)
	}
	var unconfirmed []string
	err = s.Scan(ctx, sdk.ScanRequest{Lane: "team/k", Unconfirmed: true}, func(page sdk.ScanPage) error {
		for _, e := range page.Entries {
			unconfirmed = append(unconfirmed, e.ID)
		}
		return nil
	})
	if err != nil || !slices.Equal(unconfirmed, []string{version1ID(4)}) {
		t.Errorf("unconfirmed: %q, %v", unconfirmed, err)
	}
	if res := apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("a")}}); res[0].Seq != 9 {
		t.Errorf("the next seq: %+v", res[0])
	}
	wantConsistent(t, s)
}

// TestWhoLooksIntoTheFileSeesWords: view message is documented.
func TestWhoLooksIntoTheFileSeesWords(t *testing.T) {
	s := open(t, wide)
	e := newEntry("peer")
	apply(t, s, []sdk.Op{
		{Kind: sdk.OpAppend, Entry: e},
		{Kind: sdk.OpAccepted, ID: e.ID, BrokerMessageID: "m-1", At: e.EnqueuedAt},
	})
	line := explain(t, s, "", `SELECT seq || ' ' || id || ' ' || client_message_id || ' ' || mesh || ' ' || sender || ' ' || lane || ' ' ||
  target || ' ' || priority || ' ' || state || ' ' || size || ' ' || broker_message_id || ' ' || enqueued_at FROM message`, 0)
	want := fmt.Sprintf("1 %s %s team member %s peer next accepted 400 m-1 %s", e.ID, e.ID, benchLane,
		e.EnqueuedAt.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z"))
	if line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}
