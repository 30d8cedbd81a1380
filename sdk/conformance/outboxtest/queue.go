package outboxtest

import (
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var queueCases = []conformance{
	{name: "seq strictly increases per lane, over targets, calls and requeue", run: seqIncreases},
	{name: "only the head of a queue makes it due", run: headOnly},
	{name: "the next row is the head as soon as the head leaves, in every way", run: headLeaves},
	{name: "a requeued row goes behind the others", run: requeueBehind},
	{name: "a deferred head holds its queue and no other", run: deferHolds},
	{name: "a waiting head is probed when due and woken at once", run: waitWake},
	{name: "wake wakes every waiting row of that queue alone", run: wakeScope},
	{name: "a row that leaves from the middle keeps the order of the others", run: leaveMiddle},
}

func seqIncreases(b *bench) {
	epoch := b.acquire()
	var last int64
	next := func(seq int64) {
		b.Helper()
		if seq <= last {
			b.Fatalf("seq %d after %d", seq, last)
		}
		last = seq
	}
	for _, target := range []string{"a", "b", "a", "c", "b"} {
		next(b.put(target).Seq)
	}
	e := b.put("a")
	next(e.Seq)
	b.one(scheduleOp(sdk.OpDie, e.ID, epoch), sdk.OpApplied)
	next(b.one(sdk.Op{Kind: sdk.OpRequeue, ID: e.ID}, sdk.OpApplied).Seq)
	next(b.put("a").Seq)
	// Rows that vanish do not give their place back.
	for _, e := range b.fetch(epoch, 10, 100).Queues {
		for _, row := range e.Rows {
			b.one(sdk.Op{Kind: sdk.OpCancel, ID: row.ID}, sdk.OpApplied)
		}
	}
	b.prune(b.clock.now().Add(9999*time.Hour), 100)
	next(b.put("a").Seq)
}

// heads are the targets of a fetch with the id of each head.
func heads(res sdk.FetchResult) []string {
	var all []string
	for _, q := range res.Queues {
		all = append(all, q.Target+" "+q.Rows[0].ID)
	}
	return all
}

// wantHeads fetches without bounds and compares.
func (b *bench) wantHeads(epoch int64, why string, want ...string) sdk.FetchResult {
	b.Helper()
	res := b.fetch(epoch, 1000, 1000)
	if got := heads(res); !slices.Equal(got, want) {
		b.Fatalf("%s: due are %q, want %q", why, got, want)
	}
	return res
}

func headOnly(b *bench) {
	epoch := b.acquire()
	first, second := b.put("a"), b.put("a")
	op := scheduleOp(sdk.OpDefer, first.ID, epoch)
	op.After = time.Minute
	b.one(op, sdk.OpApplied)
	b.wantHeads(epoch, "the second row is due but not the head")
	b.one(scheduleOp(sdk.OpWait, second.ID, epoch), sdk.OpApplied)
	b.clock.advance(time.Minute)
	res := b.wantHeads(epoch, "the head is due though the row behind it waits", "a "+first.ID)
	if rows := res.Queues[0].Rows; len(rows) != 2 || rows[1].ID != second.ID {
		b.Fatalf("the queue is %+v", rows)
	}
}

func headLeaves(b *bench) {
	epoch := b.acquire()
	for _, op := range []func(id string) sdk.Op{
		acceptedOp,
		func(id string) sdk.Op { op := acceptedOp(id); op.Final = true; return op },
		func(id string) sdk.Op { return scheduleOp(sdk.OpDie, id, epoch) },
		func(id string) sdk.Op { return scheduleOp(sdk.OpExpire, id, epoch) },
		func(id string) sdk.Op { return sdk.Op{Kind: sdk.OpCancel, ID: id} },
	} {
		first, second := b.put("a"), b.put("a")
		kind := op(first.ID).Kind
		b.wantHeads(epoch, "before "+string(kind), "a "+first.ID)
		b.one(op(first.ID), sdk.OpApplied)
		b.wantHeads(epoch, "after "+string(kind), "a "+second.ID)
		b.one(op(second.ID), sdk.OpApplied)
		b.wantHeads(epoch, "after "+string(kind)+" of the last row")
	}
}

func requeueBehind(b *bench) {
	epoch := b.acquire()
	first, second := b.put("a"), b.put("a")
	b.one(sdk.Op{Kind: sdk.OpCancel, ID: first.ID}, sdk.OpApplied)
	b.one(sdk.Op{Kind: sdk.OpRequeue, ID: first.ID}, sdk.OpApplied)
	res := b.wantHeads(epoch, "after requeue", "a "+second.ID)
	if rows := res.Queues[0].Rows; len(rows) != 2 || rows[1].ID != first.ID || rows[1].Seq <= rows[0].Seq {
		b.Fatalf("the queue is %+v", rows)
	}
	b.one(acceptedOp(second.ID), sdk.OpApplied)
	b.one(sdk.Op{Kind: sdk.OpCancel, ID: first.ID}, sdk.OpApplied)
	b.one(sdk.Op{Kind: sdk.OpRequeue, ID: first.ID}, sdk.OpApplied)
	b.wantHeads(epoch, "after requeue into an empty queue", "a "+first.ID)
}

func deferHolds(b *bench) {
	epoch := b.acquire()
	first, other := b.put("a"), b.put("b")
	b.put("a")
	op := scheduleOp(sdk.OpDefer, first.ID, epoch)
	op.After = 1500 * time.Millisecond
	b.one(op, sdk.OpApplied)
	res := b.wantHeads(epoch, "after defer", "b "+other.ID)
	if res.NextDue != op.After {
		b.Fatalf("next due in %v, want %v", res.NextDue, op.After)
	}
	b.clock.advance(op.After - time.Millisecond)
	b.wantHeads(epoch, "a millisecond early", "b "+other.ID)
	b.clock.advance(time.Millisecond)
	if res := b.wantHeads(epoch, "in time", "b "+other.ID, "a "+first.ID); res.NextDue >= 0 {
		b.Fatalf("next due %v though all is due", res.NextDue)
	}
}

func waitWake(b *bench) {
	epoch := b.acquire()
	first := b.put("a")
	b.put("a")
	op := scheduleOp(sdk.OpWait, first.ID, epoch)
	op.After, op.Error = 10*time.Minute, "no connected peer"
	b.one(op, sdk.OpApplied)
	if res := b.wantHeads(epoch, "waiting"); res.NextDue != op.After {
		b.Fatalf("probe due in %v, want %v", res.NextDue, op.After)
	}
	b.clock.advance(op.After)
	res := b.wantHeads(epoch, "probe", "a "+first.ID)
	if got := res.Queues[0].Rows[0]; got.State != sdk.StateWaiting || got.Attempts != 0 || got.LastError != op.Error {
		b.Fatalf("probe row is %+v", got)
	}
	b.one(op, sdk.OpApplied)
	b.wantHeads(epoch, "waiting again")
	b.one(wakeOp("a", epoch), sdk.OpApplied)
	res = b.wantHeads(epoch, "woken", "a "+first.ID)
	if got := res.Queues[0].Rows[0]; got.State != sdk.StatePending || !got.DueAt.Equal(b.clock.now()) {
		b.Fatalf("woken row is %+v", got)
	}
	b.one(wakeOp("a", epoch), sdk.OpAlready)
	b.one(wakeOp("nobody", epoch), sdk.OpAlready)
}

func wakeOp(target string, epoch int64) sdk.Op {
	return sdk.Op{Kind: sdk.OpWake, Lane: lane, Target: target, Epoch: epoch}
}

func wakeScope(b *bench) {
	epoch := b.acquire()
	var ids []string
	for range 3 {
		ids = append(ids, b.put("a").ID)
	}
	other := b.put("b").ID
	for _, id := range append(slices.Clone(ids), other) {
		op := scheduleOp(sdk.OpWait, id, epoch)
		op.After = time.Hour
		b.one(op, sdk.OpApplied)
	}
	deferred := b.put("a")
	op := scheduleOp(sdk.OpDefer, deferred.ID, epoch)
	op.After = time.Hour
	b.one(op, sdk.OpApplied)
	b.one(wakeOp("a", epoch), sdk.OpApplied)
	for _, id := range ids {
		if got := b.row(id); got.State != sdk.StatePending || !got.DueAt.Equal(b.clock.now()) {
			b.Fatalf("woken row %+v", got)
		}
	}
	if got := b.row(other); got.State != sdk.StateWaiting {
		b.Fatalf("a row of another target was woken: %+v", got)
	}
	if got := b.row(deferred.ID); !got.DueAt.Equal(b.clock.now().Add(time.Hour)) {
		b.Fatalf("a deferred row was woken: %+v", got)
	}
	if n := b.stats().States; n[sdk.StateWaiting] != 1 || n[sdk.StatePending] != 4 {
		b.Fatalf("stats %v, want 1 waiting and 4 pending", n)
	}
}

func leaveMiddle(b *bench) {
	epoch := b.acquire()
	var ids []string
	for range 5 {
		ids = append(ids, b.put("a").ID)
	}
	b.one(sdk.Op{Kind: sdk.OpCancel, ID: ids[2]}, sdk.OpApplied)
	b.one(acceptedOp(ids[3]), sdk.OpApplied)
	res := b.wantHeads(epoch, "after rows left from the middle", "a "+ids[0])
	var got []string
	for _, row := range res.Queues[0].Rows {
		got = append(got, row.ID)
	}
	if want := []string{ids[0], ids[1], ids[4]}; !slices.Equal(got, want) {
		b.Fatalf("the queue is %q, want %q", got, want)
	}
}
