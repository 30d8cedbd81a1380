package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestAPushIsStoredOnceWhateverKeyItShares(t *testing.T) {
	b := start(t)
	b.acked(push(1))
	sameClient, sameBroker := push(1), push(1)
	sameClient.ID, sameClient.DedupKeys = "push-a", []string{push(1).DedupKeys[0], "b|team|x"}
	sameBroker.ID, sameBroker.DedupKeys = "push-b", []string{"c|team|y", push(1).DedupKeys[1]}
	chained := push(1)
	chained.ID, chained.DedupKeys = "push-c", []string{"b|team|x"}
	again := push(1)
	again.Attempt, again.DedupKeys = 2, nil
	b.acked(push(1), sameClient, sameBroker, chained, again)
	b.acked(chained)
	b.want(`{}`, "text 1")
	b.acked(push(2), push(2))
	b.want(`{}`, "text 2", "text 1")
}

func TestManyCallersOfTheSamePushesStoreEachOnce(t *testing.T) {
	b := start(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 40 {
				if _, err := b.Handle(context.Background(), []sdk.Push{push(n), push(n + 1)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := b.list(`{"limit":1000}`); len(got) != 41 {
		t.Fatalf("%d messages, want 41", len(got))
	}
}

func TestADeletedMessageDoesNotComeBack(t *testing.T) {
	b := start(t)
	b.acked(push(1))
	if res, err := call[deleteResult](b, "delete", `{"id":"push-0001"}`); err != nil || res.Removed != 1 || res.ID != "push-0001" {
		t.Fatalf("%+v %v", res, err)
	}
	b.acked(push(1))
	b.want(`{}`)
	if _, err := call[deleteResult](b, "delete", `{"id":"push-0001"}`); !errors.Is(err, sdk.ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}
}

func TestListIsNewestFirstAndBehindACursorOldestFirst(t *testing.T) {
	b := start(t)
	b.want(`{}`)
	for n := range 5 {
		b.acked(push(n))
	}
	b.want(`{}`, "text 4", "text 3", "text 2", "text 1", "text 0")
	b.want(`{"limit":2}`, "text 4", "text 3")
	b.want(`{"after":"push-0001"}`, "text 2", "text 3", "text 4")
	b.want(`{"after":"push-0001","limit":1}`, "text 2")
	b.want(`{"after":"push-0004"}`)
	if _, err := call[deleteResult](b, "delete", `{"id":"push-0002"}`); err != nil {
		t.Fatal(err)
	}
	b.want(`{"after":"push-0002"}`, "text 3", "text 4")
	b.want(`{"since":"`+t0.Add(3*time.Second).UTC().Format(time.RFC3339)+`"}`, "text 4", "text 3")
}

func TestListsOfLargeMessagesFitAnAnswerAndLoseNone(t *testing.T) {
	b := start(t)
	const n = 100
	for i := range n {
		p := push(i)
		p.Body = bytes.Repeat([]byte{1}, 48_000) // six bytes of JSON each
		b.acked(p)
	}
	ask := func(params string) listResult {
		raw, err := b.plugin.Feature.Call(context.Background(), sdk.Call{Method: "list", Params: jsontext.Value(params)})
		if err != nil || len(raw) > 16<<20 {
			t.Fatalf("list %s: %d bytes, %v", params, len(raw), err)
		}
		res, err := call[listResult](b, "list", params)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	newest := ask(`{}`)
	if len(newest.Messages) == n || newest.Messages[0].ID != "push-0099" || len(newest.Warnings) != 1 {
		t.Errorf("%d messages from %s on, warnings %q; want the newest that fit, and a warning", len(newest.Messages), newest.Messages[0].ID, newest.Warnings)
	}
	for at := 0; at < n-1; {
		page := ask(fmt.Sprintf(`{"after":"push-%04d"}`, at))
		if len(page.Messages) == 0 {
			t.Fatalf("nothing comes after push %d", at)
		}
		for _, m := range page.Messages {
			if at++; m.ID != fmt.Sprintf("push-%04d", at) {
				t.Fatalf("%s came where push %d was due", m.ID, at)
			}
		}
	}
	if one := ask(`{"limit":1}`); len(one.Messages) != 1 || len(one.Warnings) != 0 {
		t.Errorf("limit 1: %d messages, warnings %q", len(one.Messages), one.Warnings)
	}
}

func TestListChooses(t *testing.T) {
	b := start(t)
	other, carol, named := push(2), push(3), push(4)
	other.Mesh = "other"
	carol.Sender, carol.SenderName, carol.SenderMember = strings.Repeat("c", 64), "Carol", strings.Repeat("d", 64)
	named.SenderName = "Żaneta"
	session := push(5)
	session.RecipientKind, session.Recipient = "session", strings.Repeat("e", 64)
	b.acked(push(1), other, carol, named, session)
	b.want(`{"mesh":"other"}`, "text 2")
	b.want(`{"from":"carol"}`, "text 3")
	b.want(`{"from":"cccccccc"}`, "text 3")
	b.want(`{"from":"DDDDDDDD"}`, "text 3")
	b.want(`{"from":"ccccccc"}`)
	b.want(`{"from":"Żaneta"}`, "text 4")
	b.want(`{"from":"%"}`)
	if res, err := call[seenResult](b, "seen", `{"ids":["push-0001","push-0003","nobody","push-0001"]}`); err != nil || res.MarkedSeen != 2 {
		t.Fatalf("%+v %v", res, err)
	}
	b.want(`{"unread":true}`, "text 5", "text 4", "text 2")
	as := func(identity string) int {
		t.Helper()
		res, err := callAs[listResult](b, sdk.Call{Method: "list", Identity: identity, Params: jsontext.Value(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Messages)
	}
	if own, stranger := as(strings.Repeat("e", 64)), as(strings.Repeat("f", 64)); own != 5 || stranger != 4 {
		t.Fatalf("a session sees %d of 5, another %d of 4", own, stranger)
	}
	res, err := callAs[listResult](b, sdk.Call{Method: "list", Mesh: "other"})
	if err != nil || len(res.Messages) != 1 {
		t.Fatalf("the mesh of the call: %+v %v", res, err)
	}
}

func TestShowGivesEveryField(t *testing.T) {
	b := start(t)
	p := push(1)
	p.SenderMember, p.Subtype, p.ReplyToID, p.Kind = alice, "note", "push-0000", sdk.PushBroadcast
	b.acked(p)
	got, err := call[message](b, "show", `{"id":"push-0001"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := message{
		ID: "push-0001", ClientMessageID: "client-0001", BrokerMessageID: "broker-0001", Mesh: "team", Kind: "broadcast",
		SenderPubkey: alice, SenderMemberPubkey: alice, SenderName: "Alice", RecipientPubkey: bob, RecipientKind: "member",
		Priority: "next", Subtype: "note", ReplyToID: "push-0000", Body: "text 1",
		CreatedAt: "2096-10-02T07:06:40.000Z", ReceivedAt: "2096-10-02T07:06:41.000Z",
	}
	if got != want {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if _, err := call[message](b, "show", `{"id":"nobody"}`); !errors.Is(err, sdk.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestWhatIsNotTextIsNeverShownAsText(t *testing.T) {
	b := start(t)
	sealed, binary, odd := push(1), push(2), push(3)
	sealed.Undecryptable, sealed.Body = true, []byte("ciphertext that a host must not send")
	binary.Body = []byte{0xff, 0x00, 'a'}
	odd.Body = []byte("zażółć 👩‍👩‍👧 \x00 'quoted'")
	b.acked(sealed, binary, odd)
	res, err := call[listResult](b, "list", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	if m := res.Messages[2]; !m.Undecryptable || m.Body != "" || m.BodyBase64 != "" {
		t.Errorf("sealed: %+v", m)
	}
	if m := res.Messages[1]; m.Undecryptable || m.Body != "" || m.BodyBase64 != "/wBh" {
		t.Errorf("binary: %+v", m)
	}
	if m := res.Messages[0]; m.Body != string(odd.Body) {
		t.Errorf("odd text: %q", m.Body)
	}
}

func TestBadParametersAreRefusedWithTheReason(t *testing.T) {
	b := start(t)
	for params, method := range map[string]string{
		`{"limit":1001}`: "list", `{"limit":-1}`: "list", `{"since":"yesterday"}`: "list", `{"colour":"red"}`: "list",
		`{}`: "prune", `{"before":"2026-01-01T00:00:00Z","older_than":"1h"}`: "prune", `{"older_than":"soon"}`: "prune",
		`{"id":3}`: "show",
	} {
		if _, err := call[jsontext.Value](b, method, params); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s %s: got %v", method, params, err)
		}
	}
	if _, err := call[listResult](b, "list", `{"after":"nobody"}`); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("unknown cursor: got %v", err)
	}
}

func TestPruneDeletesTheOldAndRemembersThem(t *testing.T) {
	b := start(t)
	old, other := push(1), push(2)
	old.ReceivedAt, other.ReceivedAt = t0.Add(-48*time.Hour), t0.Add(-48*time.Hour)
	other.Mesh = "other"
	b.acked(old, other, push(3))
	before := t0.Add(-time.Hour).UTC().Format(time.RFC3339)
	if res, err := call[pruneResult](b, "prune", `{"before":"`+before+`","mesh":"team"}`); err != nil || res.Removed != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	b.acked(old)
	b.want(`{}`, "text 3", "text 2")
	b.rest() // its keeper reads the clock that the test sets
	b.inbox.store.now = func() time.Time { return t0 }
	if res, err := call[pruneResult](b, "prune", `{"older_than":"24h"}`); err != nil || res.Removed != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	b.want(`{}`, "text 3")
}

func TestRetentionPrunesAtTheStartAndForgetsKeysInTheEnd(t *testing.T) {
	b := start(t)
	var old []sdk.Push
	for n := range 5 {
		p := push(n)
		p.ReceivedAt = time.Now().Add(-2 * time.Hour)
		old = append(old, p)
	}
	b.acked(old...)
	b.acked(push(9))
	k := keeper{store: b.inbox.store, retention: time.Hour, host: b.host}
	k.log = hclog.NewNullLogger()
	k.prune(context.Background())
	b.want(`{}`, "text 9")
	if n := b.rows("dedup"); n != 18 {
		t.Fatalf("%d keys are known, want those of all 6 messages", n)
	}
	// The arrivals are young; in two hours nothing needs their keys.
	if err := b.forget(context.Background(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, m := b.rows("dedup"), b.rows("arrival"); n != 3 || m != 1 {
		t.Fatalf("%d keys and %d arrivals are left, want 3 and 1", n, m)
	}
}

// Promise 5: what is remembered of messages that are gone has a bound of its own, whatever the retention and whoever stays.
func TestNotMoreThanSoManyThatAreGoneAreRemembered(t *testing.T) {
	b := start(t)
	b.rest() // its keeper reads what the test sets
	b.inbox.store.remember = 3
	for n := range 10 {
		b.acked(push(n))
	}
	for n := 1; n < 9; n++ { // 0 and 9 stay
		if _, err := call[deleteResult](b, "delete", fmt.Sprintf(`{"id":"push-%04d"}`, n)); err != nil {
			t.Fatal(err)
		}
	}
	k := keeper{store: b.inbox.store, retention: time.Hour, host: b.host, log: hclog.NewNullLogger()}
	k.store.now = func() time.Time { return t0 }
	k.prune(context.Background())
	if n, m := b.rows("dedup"), b.rows("arrival"); n != 15 || m != 5 {
		t.Errorf("%d keys and %d arrivals are left, want those of the 2 that stay and of the 3 that went last", n, m)
	}
	b.acked(push(0), push(6), push(7), push(8), push(9))
	b.want(`{}`, "text 9", "text 0")
}

func TestAFullInboxDropsTheOldestSeenAndNeverAnUnread(t *testing.T) {
	b := start(t)
	b.configure(3, "720h")
	b.acked(push(1), push(2), push(3))
	b.acked(push(2)) // known already: it needs no room
	// Unavailable, so that the host counts no attempt and never gives them up.
	var e *sdk.Error
	if out, err := b.Handle(t.Context(), []sdk.Push{push(2), push(4)}); !errors.As(err, &e) || e.Code != sdk.CodeUnavailable || e.Next == "" {
		t.Fatalf("got %+v, %v", out, err)
	}
	b.want(`{}`, "text 3", "text 2", "text 1")
	if _, err := call[seenResult](b, "seen", `{"ids":["push-0002"]}`); err != nil {
		t.Fatal(err)
	}
	// One finds room. Its batch as a whole comes again, and it is not stored twice.
	if out, err := b.Handle(t.Context(), []sdk.Push{push(4), push(5)}); !errors.Is(err, sdk.ErrUnavailable) {
		t.Fatalf("got %+v, %v", out, err)
	}
	b.want(`{}`, "text 4", "text 3", "text 1")
	if _, err := call[seenResult](b, "seen", `{"ids":["push-0001"]}`); err != nil {
		t.Fatal(err)
	}
	b.acked(push(4), push(5))
	b.want(`{}`, "text 5", "text 4", "text 3")
}

func TestAPushThatIsKnownTakesNobodysRoom(t *testing.T) {
	b := start(t)
	b.configure(4, "720h")
	b.acked(push(1), push(2), push(3))
	if _, err := call[seenResult](b, "seen", `{"ids":["push-0001","push-0002","push-0003"]}`); err != nil {
		t.Fatal(err)
	}
	b.acked(push(2), push(3), push(4)) // the answer to some of them got lost, say
	b.want(`{}`, "text 4", "text 3", "text 2", "text 1")
	b.acked(push(4), push(5), push(6))
	b.want(`{}`, "text 6", "text 5", "text 4", "text 3")
}

func TestAnEventTellsThatMessagesWereStoredAndItsFailureHarmsNothing(t *testing.T) {
	b := start(t)
	b.acked(push(1))
	if got := <-b.host.events; got != `stored {"id":"push-0001"}` {
		t.Fatalf("event %s", got)
	}
	b.host.fail.Store(true)
	for n := range 20 {
		b.acked(push(n))
	}
	if got := b.list(`{}`); len(got) != 20 {
		t.Fatalf("%d messages", len(got))
	}
}

// rows counts a table as another program would, from outside, while the plugin
// has the file open.
func (b *bench) rows(table string) (n int64) {
	b.t.Helper()
	b.outside("SELECT count(*) FROM "+table, func(stmt *sqlite.Stmt) { n = stmt.ColumnInt64(0) })
	return n
}

func (b *bench) outside(query string, f func(*sqlite.Stmt)) {
	b.t.Helper()
	conn, err := sqlite.OpenConn(b.path, sqlite.OpenReadOnly)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	err = sqlitex.ExecuteTransient(conn, query, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error { f(stmt); return nil }})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestOtherProgramsCanReadTheFileBesideThePlugin(t *testing.T) {
	b := start(t)
	b.acked(push(1), push(2))
	var got []string
	b.outside("SELECT id, client_message_id, broker_message_id, mesh, sender_pubkey, recipient_pubkey, body FROM messages ORDER BY n", func(stmt *sqlite.Stmt) {
		got = append(got, fmt.Sprint(stmt.ColumnText(0), " ", stmt.ColumnText(1), " ", stmt.ColumnText(2), " ", stmt.ColumnText(3),
			" ", stmt.ColumnText(4) == alice, " ", stmt.ColumnText(5) == bob, " ", stmt.ColumnText(6)))
	})
	want := []string{"push-0001 client-0001 broker-0001 team true true text 1", "push-0002 client-0002 broker-0002 team true true text 2"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q", got)
	}
}

func TestConfigureAgainKeepsTheMessages(t *testing.T) {
	b := start(t)
	b.acked(push(1))
	b.configure(10, "24h")
	b.acked(push(1), push(2))
	b.want(`{}`, "text 2", "text 1")
	b.dir = t.TempDir()
	b.configure(10, "24h")
	b.want(`{}`)
}

func TestSystemEventsAreNotWanted(t *testing.T) {
	b := start(t)
	for kind, want := range map[sdk.PushKind]bool{sdk.PushDirect: true, sdk.PushBroadcast: true, sdk.PushWebhook: true, sdk.PushSystem: false} {
		if got := b.plugin.Wants[0].Matches(&sdk.Push{Kind: kind}); got != want {
			t.Errorf("%s: wanted %v", kind, got)
		}
	}
	if d := b.plugin.Config.Validate(context.Background(), jsontext.Value(`{"path":"/x","retention":"1m","max_messages":0}`)); len(d) != 2 {
		t.Errorf("bad options: %+v", d)
	}
}

func BenchmarkHandle(b *testing.B) {
	box := start(b)
	box.inbox.store.max = 1 << 40
	n := 0
	for b.Loop() {
		batch := make([]sdk.Push, 256)
		for i := range batch {
			batch[i] = push(n)
			n++
		}
		box.acked(batch...)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "pushes/s")
}
