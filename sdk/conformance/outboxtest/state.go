package outboxtest

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var stateCases = []conformance{
	{name: "every op on every state does what the table says", run: stateTable},
	{name: "an op repeated is already, conflict or the same again, and changes nothing more", run: stateRepeat},
	{name: "an op on a row that is not there is not_found", run: stateMissing},
	{name: "accepted keeps the body for delivery; final drops it", run: stateAccepted},
	{name: "a late ack of a cancelled, dead or expired row is recorded and does not revive it", run: stateLateAck},
	{name: "requeue keeps the row and its key, resets it and sets a new not_after", run: stateRequeue},
	{name: "defer counts an attempt only when told, and keeps the reason", run: stateDefer},
	{name: "results come in the order of ops, and one refused op harms no other", run: stateIndependent},
}

// reached is a state and how a fresh row gets there.
type reached struct {
	name  string
	state sdk.EntryState
	body  bool
	ops   func(id string, epoch int64) []sdk.Op
}

func (r reached) reach(b *bench, id string, epoch int64) {
	b.Helper()
	for _, op := range r.ops(id, epoch) {
		b.one(op, sdk.OpApplied)
	}
}

func acceptedOp(id string) sdk.Op {
	return sdk.Op{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: "broker-" + id, At: time.UnixMilli(1_800_000_111_000)}
}

func deliveredOp(id string) sdk.Op {
	return sdk.Op{Kind: sdk.OpDelivered, ID: id, At: time.UnixMilli(1_800_000_222_000)}
}

func scheduleOp(kind sdk.OpKind, id string, epoch int64) sdk.Op {
	return sdk.Op{Kind: kind, ID: id, Lane: lane, Epoch: epoch}
}

var states = []reached{
	{"pending", sdk.StatePending, true, func(string, int64) []sdk.Op { return nil }},
	{"waiting", sdk.StateWaiting, true, func(id string, ep int64) []sdk.Op { return []sdk.Op{scheduleOp(sdk.OpWait, id, ep)} }},
	{"accepted", sdk.StateAccepted, true, func(id string, _ int64) []sdk.Op { return []sdk.Op{acceptedOp(id)} }},
	{"delivered", sdk.StateDelivered, false, func(id string, _ int64) []sdk.Op { return []sdk.Op{acceptedOp(id), deliveredOp(id)} }},
	{"dead", sdk.StateDead, true, func(id string, ep int64) []sdk.Op { return []sdk.Op{scheduleOp(sdk.OpDie, id, ep)} }},
	{"expired", sdk.StateExpired, false, func(id string, ep int64) []sdk.Op { return []sdk.Op{scheduleOp(sdk.OpExpire, id, ep)} }},
	{"cancelled", sdk.StateCancelled, true, func(id string, _ int64) []sdk.Op { return []sdk.Op{{Kind: sdk.OpCancel, ID: id}} }},
	{"cancelled after expired", sdk.StateCancelled, false, func(id string, ep int64) []sdk.Op {
		return []sdk.Op{scheduleOp(sdk.OpExpire, id, ep), {Kind: sdk.OpCancel, ID: id}}
	}},
}

// transition is what an op answers and where it leads; an empty state stays.
type transition struct {
	code  sdk.OpCode
	state sdk.EntryState
	body  bool
}

// table is the state machine of ARCHITECTURE 5, one line per op, one column per
// entry of states.
func table() map[sdk.OpKind][]transition {
	const (
		p, w, a, d = sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered
		x, e, c    = sdk.StateDead, sdk.StateExpired, sdk.StateCancelled
		ok, no, al = sdk.OpApplied, sdk.OpConflict, sdk.OpAlready
	)
	return map[sdk.OpKind][]transition{
		sdk.OpAccepted:  {{ok, a, true}, {ok, a, true}, {al, a, true}, {al, d, false}, {no, x, true}, {no, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpDelivered: {{no, p, true}, {no, w, true}, {ok, d, false}, {al, d, false}, {no, x, true}, {no, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpDefer:     {{ok, p, true}, {ok, p, true}, {no, a, true}, {no, d, false}, {no, x, true}, {no, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpWait:      {{ok, w, true}, {ok, w, true}, {no, a, true}, {no, d, false}, {no, x, true}, {no, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpDie:       {{ok, x, true}, {ok, x, true}, {no, a, true}, {no, d, false}, {al, x, true}, {no, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpExpire:    {{ok, e, false}, {ok, e, false}, {no, a, true}, {no, d, false}, {no, x, true}, {al, e, false}, {no, c, true}, {no, c, false}},
		sdk.OpCancel:    {{ok, c, true}, {ok, c, true}, {no, a, true}, {no, d, false}, {ok, c, true}, {ok, c, false}, {al, c, true}, {al, c, false}},
		sdk.OpRequeue:   {{al, p, true}, {al, w, true}, {no, a, true}, {no, d, false}, {ok, p, true}, {no, e, false}, {ok, p, true}, {no, c, false}},
	}
}

// opOf makes an op of a kind for a row, as the host would.
func opOf(b *bench, kind sdk.OpKind, id string, epoch int64) sdk.Op {
	switch kind {
	case sdk.OpAccepted:
		return acceptedOp(id)
	case sdk.OpDelivered:
		return deliveredOp(id)
	case sdk.OpRequeue:
		return sdk.Op{Kind: kind, ID: id, NotAfter: b.clock.now().Add(48 * time.Hour)}
	case sdk.OpCancel:
		return sdk.Op{Kind: kind, ID: id}
	default:
		op := scheduleOp(kind, id, epoch)
		op.After, op.Error = 5*time.Second, "because of "+string(kind)
		return op
	}
}

func stateTable(b *bench) {
	epoch := b.acquire()
	for kind, row := range table() {
		for i, from := range states {
			e := b.put("peer-a")
			from.reach(b, e.ID, epoch)
			want := row[i]
			res := b.apply(opOf(b, kind, e.ID, epoch))[0]
			if res.Code != want.code {
				b.Fatalf("%s on a row that is %s: got %s, want %s", kind, from.name, res.Code, want.code)
			}
			if want.code == sdk.OpConflict && (res.State != want.state || res.Detail == "") {
				b.Fatalf("%s on a row that is %s: conflict says state %q and %q", kind, from.name, res.State, res.Detail)
			}
			got := b.row(e.ID)
			if got.State != want.state || (len(got.Body) > 0) != want.body {
				b.Fatalf("%s on a row that is %s: now %s with %d bytes of body, want %s with body %v",
					kind, from.name, got.State, len(got.Body), want.state, want.body)
			}
		}
	}
}

func stateRepeat(b *bench) {
	epoch := b.acquire()
	for kind, row := range table() {
		for i, from := range states {
			e := b.put("peer-a")
			from.reach(b, e.ID, epoch)
			op := opOf(b, kind, e.ID, epoch)
			first := b.apply(op)[0]
			before := b.row(e.ID)
			second := b.apply(op)[0]
			same(b, b.row(e.ID), before)
			want := first.Code
			if row[i].code == sdk.OpApplied && kind != sdk.OpDefer && kind != sdk.OpWait {
				want = sdk.OpAlready
			}
			if second.Code != want {
				b.Fatalf("%s twice on a row that was %s: got %s, want %s", kind, from.name, second.Code, want)
			}
		}
	}
}

func stateMissing(b *bench) {
	epoch := b.acquire()
	for kind := range table() {
		b.one(opOf(b, kind, id(777), epoch), sdk.OpNotFound)
	}
}

func stateAccepted(b *bench) {
	e := b.put("peer-a")
	b.one(acceptedOp(e.ID), sdk.OpApplied)
	got := b.row(e.ID)
	if got.BrokerMessageID != "broker-"+e.ID || got.AcceptedAt.UnixMilli() != 1_800_000_111_000 || len(got.Body) == 0 {
		b.Fatalf("accepted: got %+v", got)
	}
	b.one(deliveredOp(e.ID), sdk.OpApplied)
	got = b.row(e.ID)
	if got.DeliveredAt.UnixMilli() != 1_800_000_222_000 || got.AcceptedAt.IsZero() || len(got.Body) != 0 {
		b.Fatalf("delivered: got %+v", got)
	}
	f := b.put("*")
	op := acceptedOp(f.ID)
	op.Final = true
	b.one(op, sdk.OpApplied)
	if got := b.row(f.ID); got.State != sdk.StateAccepted || len(got.Body) != 0 {
		b.Fatalf("accepted and final: got %+v", got)
	}
	if n := b.stats().Bytes; n != 0 {
		b.Fatalf("%d bytes are counted after every body went", n)
	}
}

func stateLateAck(b *bench) {
	epoch := b.acquire()
	for _, from := range states {
		if from.state.Live() || from.state == sdk.StateAccepted || from.state == sdk.StateDelivered {
			continue
		}
		e := b.put("peer-a")
		from.reach(b, e.ID, epoch)
		b.one(acceptedOp(e.ID), sdk.OpConflict)
		got := b.row(e.ID)
		if got.State != from.state || got.BrokerMessageID != "broker-"+e.ID || got.AcceptedAt.IsZero() {
			b.Fatalf("late ack of a row that is %s: got %+v", from.name, got)
		}
	}
	if res := b.fetch(epoch, 10, 10); len(res.Queues) != 0 {
		b.Fatalf("a late ack put a row back into a queue: %+v", res)
	}
}

func stateRequeue(b *bench) {
	epoch := b.acquire()
	for _, from := range states {
		if from.state.Live() || !from.body || from.state == sdk.StateAccepted {
			continue
		}
		e := b.put("peer-" + from.name)
		op := scheduleOp(sdk.OpDefer, e.ID, epoch)
		op.Count, op.After, op.Error = true, time.Hour, "refused"
		b.one(op, sdk.OpApplied)
		from.reach(b, e.ID, epoch)
		b.clock.advance(time.Minute)
		until := b.clock.now().Add(48 * time.Hour)
		res := b.one(sdk.Op{Kind: sdk.OpRequeue, ID: e.ID, NotAfter: until}, sdk.OpApplied)
		if res.Seq <= e.Seq {
			b.Fatalf("requeue gave seq %d after %d", res.Seq, e.Seq)
		}
		want := *e
		want.State, want.Seq, want.NotAfter, want.DueAt = sdk.StatePending, res.Seq, until, b.clock.now()
		same(b, b.row(e.ID), &want)
	}
}

func stateDefer(b *bench) {
	epoch := b.acquire()
	e := b.put("peer-a")
	for i, count := range []bool{true, false, true} {
		op := scheduleOp(sdk.OpDefer, e.ID, epoch)
		op.Count, op.After, op.Error = count, 90*time.Second, "rate limit – später"
		b.one(op, sdk.OpApplied)
		got := b.row(e.ID)
		if want := []int{1, 1, 2}[i]; got.Attempts != want || got.LastError != op.Error || !got.DueAt.Equal(b.clock.now().Add(op.After)) {
			b.Fatalf("defer %d: got %+v, want %d attempts", i+1, got, want)
		}
	}
}

func stateIndependent(b *bench) {
	epoch := b.acquire()
	one, two := b.put("peer-a"), b.put("peer-b")
	fresh := b.entry("peer-c")
	res := b.apply(
		sdk.Op{Kind: sdk.OpRequeue, ID: one.ID},
		acceptedOp(one.ID),
		appendOp(two),
		scheduleOp(sdk.OpDie, two.ID, epoch+5),
		appendOp(fresh),
		sdk.Op{Kind: sdk.OpCancel, ID: id(777)},
		scheduleOp(sdk.OpDie, two.ID, epoch),
	)
	want := []sdk.OpCode{sdk.OpAlready, sdk.OpApplied, sdk.OpExists, sdk.OpFenced, sdk.OpStored, sdk.OpNotFound, sdk.OpApplied}
	for i := range want {
		if res[i].Code != want[i] {
			b.Fatalf("op %d: got %s, want %s", i+1, res[i].Code, want[i])
		}
	}
}
