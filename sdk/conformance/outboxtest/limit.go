package outboxtest

import (
	"bytes"

	"github.com/meshhost/meshhost/sdk"
)

var limitCases = []conformance{
	{name: "an entry over max_entry is too_large, stores nothing and says so", run: limitEntry},
	{name: "live rows over max_rows are full until one leaves", run: limitRows},
	{name: "bodies over max_bytes are full until one goes", run: limitBytes},
	{name: "a replay of a stored message is exists, however full", run: limitReplay},
	{name: "a refused append does not disturb the next op of the call", run: limitNext},
}

// refused checks a refusal and that it left nothing.
func (b *bench) refused(e *sdk.Entry, want sdk.OpCode) {
	b.Helper()
	if res := b.one(appendOp(e), want); res.Detail == "" {
		b.Fatalf("%s without a sentence", want)
	}
	if b.get(e.ID) != nil {
		b.Fatalf("%s but stored", want)
	}
}

func limitEntry(b *bench) {
	b.limited(0, 0, 2000)
	e := b.entry("a")
	e.Body = bytes.Repeat([]byte("x"), 2001)
	b.refused(e, sdk.OpTooLarge)
	e.Body = bytes.Repeat([]byte("x"), 1000)
	b.one(appendOp(e), sdk.OpStored)
}

func limitRows(b *bench) {
	b.limited(3, 0, 0)
	epoch := b.acquire()
	e := b.put("a")
	b.put("b")
	b.one(scheduleOp(sdk.OpWait, b.put("c").ID, epoch), sdk.OpApplied)
	b.refused(b.entry("a"), sdk.OpFull)
	b.one(sdk.Op{Kind: sdk.OpCancel, ID: e.ID}, sdk.OpApplied)
	b.put("a")
	b.refused(b.entry("a"), sdk.OpFull)
	// A requeue would make a fourth live row.
	if res := b.one(sdk.Op{Kind: sdk.OpRequeue, ID: e.ID}, sdk.OpFull); res.Detail == "" {
		b.Fatalf("full without a sentence")
	}
	if got := b.row(e.ID); got.State != sdk.StateCancelled || len(got.Body) == 0 {
		b.Fatalf("a refused requeue changed the row: %+v", got)
	}
}

func limitBytes(b *bench) {
	b.limited(0, 100, 0)
	big := b.entry("a")
	big.Body = bytes.Repeat([]byte("x"), 90)
	b.one(appendOp(big), sdk.OpStored)
	next := b.entry("a")
	next.Body = bytes.Repeat([]byte("y"), 11)
	b.refused(next, sdk.OpFull)
	next.Body = next.Body[:10]
	b.one(appendOp(next), sdk.OpStored)
	// Accepted keeps its body, delivered does not.
	last := b.entry("a")
	last.Body = bytes.Repeat([]byte("z"), 90)
	b.one(acceptedOp(big.ID), sdk.OpApplied)
	b.refused(last, sdk.OpFull)
	b.one(deliveredOp(big.ID), sdk.OpApplied)
	b.one(appendOp(last), sdk.OpStored)
}

func limitReplay(b *bench) {
	b.limited(1, 0, 0)
	e := b.put("a")
	b.refused(b.entry("a"), sdk.OpFull)
	b.one(appendOp(e), sdk.OpExists)
}

func limitNext(b *bench) {
	b.limited(1, 0, 0)
	e := b.put("a")
	over, next := b.entry("a"), b.entry("a")
	res := b.apply(appendOp(over), acceptedOp(e.ID), appendOp(next))
	if res[0].Code != sdk.OpFull || res[1].Code != sdk.OpApplied || res[2].Code != sdk.OpStored || res[2].Seq <= e.Seq {
		b.Fatalf("got %+v", res)
	}
}
