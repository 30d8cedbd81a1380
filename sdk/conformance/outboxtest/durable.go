package outboxtest

import (
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var durableCases = []conformance{
	{name: "a store opened again has every row in every state", durable: true, run: reopenRows},
	{name: "a store opened again goes on with seq, queues, stats and leases", durable: true, run: reopenGoesOn},
	{name: "a repeat after reopening is a repeat", durable: true, run: reopenRepeat},
}

func reopenRows(b *bench) {
	epoch := b.acquire()
	var want []*sdk.Entry
	for range 3 {
		for _, from := range states {
			e := b.put("a")
			from.reach(b, e.ID, epoch)
			want = append(want, b.row(e.ID))
		}
	}
	b.reopen()
	for _, e := range want {
		same(b, b.row(e.ID), e)
	}
}

func reopenGoesOn(b *bench) {
	epoch := b.acquire()
	first, second, third := b.put("a"), b.put("a"), b.put("b")
	op := scheduleOp(sdk.OpDefer, third.ID, epoch)
	op.After = time.Minute
	b.one(op, sdk.OpApplied)
	b.one(acceptedOp(first.ID), sdk.OpApplied)
	b.prune(b.clock.now().Add(9999*time.Hour), 10)
	before := b.stats()
	b.reopen()
	if res := b.wantHeads(epoch, "after reopen", "a "+second.ID); res.NextDue != time.Minute {
		b.Fatalf("next due %v", res.NextDue)
	}
	after := b.stats()
	for state, n := range before.States {
		if after.States[state] != n {
			b.Fatalf("stats %v, before %v", after.States, before.States)
		}
	}
	if before.Bytes != after.Bytes || !before.OldestLive.Equal(after.OldestLive) {
		b.Fatalf("stats %+v, before %+v", after, before)
	}
	if l := b.ask("other", "x"); !l.Held || l.HeldBy != "install" {
		b.Fatalf("the lease is forgotten: %+v", l)
	}
	if e := b.put("b"); e.Seq <= third.Seq {
		b.Fatalf("seq %d after %d", e.Seq, third.Seq)
	}
	if l := b.lease("install", "run-2"); l.Epoch != epoch+1 {
		b.Fatalf("epoch %d after %d", l.Epoch, epoch)
	}
}

func reopenRepeat(b *bench) {
	epoch := b.acquire()
	e := b.entry("a")
	ops := []sdk.Op{appendOp(e), acceptedOp(e.ID), deliveredOp(e.ID)}
	b.apply(ops...)
	f := b.put("a")
	die := scheduleOp(sdk.OpDie, f.ID, epoch)
	b.one(die, sdk.OpApplied)
	b.reopen()
	var got []sdk.OpCode
	for _, res := range b.apply(append(ops, die)...) {
		got = append(got, res.Code)
	}
	if want := []sdk.OpCode{sdk.OpExists, sdk.OpAlready, sdk.OpAlready, sdk.OpAlready}; !slices.Equal(got, want) {
		b.Fatalf("got %v, want %v", got, want)
	}
}
