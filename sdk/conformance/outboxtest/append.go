package outboxtest

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var appendCases = []conformance{
	{name: "append stores every field, pending and due at once", run: appendStores},
	{name: "append again is exists with the same fingerprint and changes nothing", run: appendAgain},
	{name: "append of the same key with another text is exists with another fingerprint", run: appendOther},
	{name: "the same client_message_id of another sender or mesh is another message", run: appendScope},
	{name: "append again is exists whatever became of the row", run: appendSettled},
	{name: "an append says which live row is before it in its queue", run: appendPrev},
	{name: "an entry twice in one call is stored once", run: appendTwice},
	{name: "text of any script and any bytes come back as they were", run: appendUnicode},
	{name: "an op that nobody can carry out is refused and the batch leaves no trace", run: appendInvalid},
	{name: "a caller that gave up gets an error, not a result", run: appendCancelled},
}

func appendStores(b *bench) {
	e := b.entry("peer-a")
	e.State, e.Attempts, e.LastError = sdk.StateDead, 9, "not the caller's to say"
	e.BrokerMessageID, e.AcceptedAt, e.DeliveredAt = "x", b.clock.now(), b.clock.now()
	res := b.one(appendOp(e), sdk.OpStored)
	if res.Seq < 1 {
		b.Fatalf("stored with seq %d", res.Seq)
	}
	want := *e
	want.State, want.Attempts, want.LastError, want.BrokerMessageID = sdk.StatePending, 0, "", ""
	want.AcceptedAt, want.DeliveredAt, want.DueAt, want.Seq = time.Time{}, time.Time{}, b.clock.now(), res.Seq
	same(b, b.row(e.ID), &want)
}

// appendPrev: by Prev the host knows whether its memory of a queue is whole.
func appendPrev(b *bench) {
	add := func(target string, prev int64) sdk.OpResult {
		b.Helper()
		res := b.one(appendOp(b.entry(target)), sdk.OpStored)
		if res.Prev != prev {
			b.Fatalf("append to %s: prev is %d, want %d", target, res.Prev, prev)
		}
		return res
	}
	first := add("peer-a", 0)
	second := add("peer-a", first.Seq)
	add("peer-b", 0)
	third := add("peer-a", second.Seq)
	b.one(sdk.Op{Kind: sdk.OpCancel, ID: third.ID}, sdk.OpApplied)
	add("peer-a", second.Seq)
	alone := add("peer-c", 0)
	b.one(sdk.Op{Kind: sdk.OpAccepted, ID: alone.ID, BrokerMessageID: "m", At: b.clock.now()}, sdk.OpApplied)
	add("peer-c", 0)
}

// same compares two entries, times by moment.
func same(b *bench, got, want *sdk.Entry) {
	b.Helper()
	type text struct{ name, got, want string }
	for _, f := range []text{
		{"id", got.ID, want.ID},
		{"client_message_id", got.ClientMessageID, want.ClientMessageID},
		{"fingerprint", string(got.Fingerprint), string(want.Fingerprint)},
		{"mesh", got.Mesh, want.Mesh},
		{"sender", got.Sender, want.Sender},
		{"lane", got.Lane, want.Lane},
		{"target", got.Target, want.Target},
		{"priority", got.Priority, want.Priority},
		{"nonce", got.Nonce, want.Nonce},
		{"body", string(got.Body), string(want.Body)},
		{"state", string(got.State), string(want.State)},
		{"last_error", got.LastError, want.LastError},
		{"broker_message_id", got.BrokerMessageID, want.BrokerMessageID},
	} {
		if f.got != f.want {
			b.Fatalf("%s of %s: got %q, want %q", f.name, want.ID, f.got, f.want)
		}
	}
	type moment struct {
		name      string
		got, want time.Time
	}
	for _, f := range []moment{
		{"enqueued_at", got.EnqueuedAt, want.EnqueuedAt},
		{"not_after", got.NotAfter, want.NotAfter},
		{"due_at", got.DueAt, want.DueAt},
		{"accepted_at", got.AcceptedAt, want.AcceptedAt},
		{"delivered_at", got.DeliveredAt, want.DeliveredAt},
	} {
		if !f.got.Equal(f.want) {
			b.Fatalf("%s of %s: got %v, want %v", f.name, want.ID, f.got, f.want)
		}
	}
	if got.Attempts != want.Attempts || got.Seq != want.Seq {
		b.Fatalf("%s: got attempts %d seq %d, want %d and %d", want.ID, got.Attempts, got.Seq, want.Attempts, want.Seq)
	}
}

func appendAgain(b *bench) {
	e := b.put("peer-a")
	before := b.row(e.ID)
	again := *e
	again.Body = []byte("sealed anew: other bytes of the same text")
	again.ID = id(999) // a replay by key comes with a fresh id
	res := b.one(appendOp(&again), sdk.OpExists)
	if !res.SameFingerprint || res.ID != e.ID || res.Seq != e.Seq || res.State != sdk.StatePending {
		b.Fatalf("got %+v, want the row %s with seq %d, pending, same fingerprint", res, e.ID, e.Seq)
	}
	res = b.one(appendOp(e), sdk.OpExists)
	if !res.SameFingerprint || res.ID != e.ID || res.Seq != e.Seq {
		b.Fatalf("repeat of the same op: got %+v", res)
	}
	same(b, b.row(e.ID), before)
	if got := b.get(again.ID); got != nil {
		b.Fatalf("a refused append left a row: %+v", got)
	}
}

func appendOther(b *bench) {
	e := b.put("peer-a")
	other := *e
	other.ID, other.Fingerprint = id(999), fingerprint(999)
	if res := b.one(appendOp(&other), sdk.OpExists); res.SameFingerprint || res.ID != e.ID {
		b.Fatalf("got %+v, want another fingerprint of row %s", res, e.ID)
	}
	if got := b.row(e.ID); !bytes.Equal(got.Fingerprint, e.Fingerprint) {
		b.Fatalf("the stored fingerprint changed")
	}
}

func appendScope(b *bench) {
	e := b.put("peer-a")
	for i, change := range []func(*sdk.Entry){
		func(e *sdk.Entry) { e.Sender = "session-7" },
		func(e *sdk.Entry) { e.Mesh = "other" },
	} {
		other := *e
		other.ID = id(900 + i)
		change(&other)
		b.one(appendOp(&other), sdk.OpStored)
	}
}

func appendSettled(b *bench) {
	epoch := b.acquire()
	for _, c := range states {
		e := b.put("peer-a")
		c.reach(b, e.ID, epoch)
		res := b.one(appendOp(e), sdk.OpExists)
		if res.State != c.state || !res.SameFingerprint {
			b.Fatalf("append again of a row that is %s: got %+v", c.state, res)
		}
		if c.state == sdk.StateAccepted && res.BrokerMessageID != "broker-"+e.ID {
			b.Fatalf("append again of an accepted row: broker_message_id %q", res.BrokerMessageID)
		}
	}
}

func appendTwice(b *bench) {
	e := b.entry("peer-a")
	res := b.apply(appendOp(e), appendOp(e))
	if res[0].Code != sdk.OpStored || res[1].Code != sdk.OpExists || res[1].Seq != res[0].Seq {
		b.Fatalf("got %+v", res)
	}
	if n := b.stats().States[sdk.StatePending]; n != 1 {
		b.Fatalf("%d pending rows after one message", n)
	}
}

func appendUnicode(b *bench) {
	for _, s := range []string{"zażółć gęślą jaźń", "日本語のテキスト", "👩‍👩‍👧‍👦 e\u0301", "#team/ops'\"; DROP TABLE entry; --", "a\x00b", "%_\\"} {
		e := b.entry("target " + s)
		e.ClientMessageID, e.Sender, e.Nonce = "key "+s, "session "+s, s
		e.Body = append([]byte{0, 0xff, 0xfe}, s...)
		e.Seq = b.one(appendOp(e), sdk.OpStored).Seq
		want := *e
		want.State, want.DueAt = sdk.StatePending, b.clock.now()
		same(b, b.row(e.ID), &want)
		found, err := b.store.Lookup(context.Background(), []sdk.MessageKey{{Mesh: e.Mesh, Sender: e.Sender, ClientMessageID: e.ClientMessageID}})
		if err != nil || len(found) != 1 || found[0] == nil || found[0].ID != e.ID {
			b.Fatalf("lookup of %q: %v %v", e.ClientMessageID, found, err)
		}
	}
}

func appendInvalid(b *bench) {
	for name, op := range map[string]sdk.Op{
		"append without an entry": {Kind: sdk.OpAppend},
		"append without an id":    {Kind: sdk.OpAppend, Entry: &sdk.Entry{ClientMessageID: "c", Mesh: "m", Sender: "s", Lane: "l", Target: "t"}},
		"accepted without an id":  {Kind: sdk.OpAccepted},
		"wake without a target":   {Kind: sdk.OpWake, Lane: lane, Epoch: 1},
		"an unknown kind":         {Kind: "explode", ID: id(1)},
	} {
		e := b.entry("peer-a")
		if _, err := b.store.Apply(context.Background(), []sdk.Op{appendOp(e), op}); !errors.Is(err, sdk.ErrInvalid) {
			b.Fatalf("%s: got error %v, want one that is sdk.ErrInvalid", name, err)
		}
		if b.get(e.ID) != nil {
			b.Fatalf("%s: the valid op before it was carried out", name)
		}
	}
	if res := b.apply(); len(res) != 0 {
		b.Fatalf("apply of nothing: %v", res)
	}
}

func appendCancelled(b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e := b.entry("peer-a")
	if res, err := b.store.Apply(ctx, []sdk.Op{appendOp(e)}); err == nil && (len(res) != 1 || res[0].Code != sdk.OpStored) {
		b.Fatalf("got %+v without an error", res)
	}
	// Either way the host repeats the op, and the row is there once.
	if res := b.apply(appendOp(e))[0]; res.Code != sdk.OpStored && res.Code != sdk.OpExists {
		b.Fatalf("repeat: got %+v", res)
	}
	if n := b.stats().States[sdk.StatePending]; n != 1 {
		b.Fatalf("%d rows", n)
	}
}
