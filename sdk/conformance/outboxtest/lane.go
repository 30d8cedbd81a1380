package outboxtest

import (
	"context"
	"errors"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var laneCases = []conformance{
	{name: "acquire grants a free lane, renews for the same incarnation and keeps the epoch", run: laneRenew},
	{name: "a lane held by another owner is held, with its name and the time left", run: laneHeld},
	{name: "an expired lane goes to whoever asks, with the next epoch", run: laneExpired},
	{name: "another incarnation of the owner steals at once, with the next epoch", run: laneSteal},
	{name: "release frees the lane for anyone; a stranger's or a late one does nothing", run: laneRelease},
	{name: "schedule ops need the current epoch, facts and people's ops do not", run: laneFence},
	{name: "fetch with an epoch that is over is ErrFenced", run: laneFetch},
	{name: "lanes have holders and epochs of their own", run: laneSeparate},
	{name: "acquire without names or time is refused", run: laneInvalid},
}

func laneRenew(b *bench) {
	first := b.lease("one", "run-1")
	if first.Epoch < 1 || first.Stolen {
		b.Fatalf("first lease %+v", first)
	}
	b.clock.advance(10 * time.Second)
	if l := b.lease("one", "run-1"); l.Epoch != first.Epoch || l.Stolen {
		b.Fatalf("renewal %+v, want epoch %d", l, first.Epoch)
	}
	b.clock.advance(14 * time.Second) // 24 s after the grant, 14 s after the renewal
	if l := b.ask("two", "run-1"); !l.Held {
		b.Fatalf("a renewed lease ended early: %+v", l)
	}
	b.clock.advance(time.Hour)
	if l := b.lease("one", "run-1"); l.Epoch != first.Epoch {
		b.Fatalf("late renewal %+v, want epoch %d", l, first.Epoch)
	}
}

func laneHeld(b *bench) {
	b.lease("one", "run-1")
	b.clock.advance(5 * time.Second)
	l := b.ask("two", "run-1")
	if !l.Held || l.HeldBy != "one" || l.RetryIn != 10*time.Second {
		b.Fatalf("got %+v, want held by one for 10s", l)
	}
}

func laneExpired(b *bench) {
	first := b.lease("one", "run-1")
	b.clock.advance(15 * time.Second)
	l := b.lease("two", "run-1")
	if l.Epoch != first.Epoch+1 || l.Stolen {
		b.Fatalf("got %+v, want epoch %d, not stolen", l, first.Epoch+1)
	}
	if l := b.ask("one", "run-1"); !l.Held || l.HeldBy != "two" {
		b.Fatalf("the former holder got %+v", l)
	}
}

func laneSteal(b *bench) {
	first := b.lease("one", "run-1")
	l := b.lease("one", "run-2")
	if l.Epoch != first.Epoch+1 || !l.Stolen {
		b.Fatalf("got %+v, want epoch %d, stolen", l, first.Epoch+1)
	}
	if l := b.lease("one", "run-1"); l.Epoch != first.Epoch+2 || !l.Stolen {
		b.Fatalf("stolen back: got %+v, want epoch %d, stolen", l, first.Epoch+2)
	}
	b.clock.advance(15 * time.Second)
	if l := b.lease("one", "run-3"); l.Epoch != first.Epoch+3 || l.Stolen {
		b.Fatalf("after expiry: got %+v, want epoch %d, not stolen", l, first.Epoch+3)
	}
}

func laneRelease(b *bench) {
	l := b.lease("one", "run-1")
	b.release("two", "run-1", l.Epoch)
	b.release("one", "run-2", l.Epoch)
	b.release("one", "run-1", l.Epoch+1)
	if l := b.ask("two", "run-1"); !l.Held {
		b.Fatalf("a release of somebody else freed the lane: %+v", l)
	}
	b.release("one", "run-1", l.Epoch)
	b.release("one", "run-1", l.Epoch)
	next := b.lease("two", "run-1")
	if next.Epoch != l.Epoch+1 || next.Stolen {
		b.Fatalf("after release: got %+v, want epoch %d", next, l.Epoch+1)
	}
	b.release("one", "run-1", l.Epoch)
	if l := b.ask("three", "run-1"); !l.Held || l.HeldBy != "two" {
		b.Fatalf("a late release freed the lane of the next holder: %+v", l)
	}
	b.release("two", "run-1", next.Epoch)
	if l := b.lease("two", "run-1"); l.Epoch != next.Epoch+1 {
		b.Fatalf("a released lane has the same epoch for its former holder: %+v", l)
	}
}

func laneFence(b *bench) {
	old := b.acquire()
	current := b.lease("install", "run-2").Epoch
	for _, kind := range []sdk.OpKind{sdk.OpDefer, sdk.OpWait, sdk.OpDie, sdk.OpExpire} {
		e := b.put("peer-a")
		for _, epoch := range []int64{old, current + 1, 0} {
			b.one(opOf(b, kind, e.ID, epoch), sdk.OpFenced)
		}
		if got := b.row(e.ID); got.State != sdk.StatePending || got.LastError != "" || !got.DueAt.Equal(b.clock.now()) {
			b.Fatalf("a fenced %s changed the row: %+v", kind, got)
		}
		b.one(opOf(b, kind, e.ID, current), sdk.OpApplied)
	}
	b.one(wakeOp("peer-a", old), sdk.OpFenced)
	b.one(wakeOp("peer-a", current), sdk.OpApplied)
	for _, kind := range []sdk.OpKind{sdk.OpAccepted, sdk.OpCancel} {
		e := b.put("peer-b")
		op := opOf(b, kind, e.ID, old)
		op.Lane, op.Epoch = lane, old
		b.one(op, sdk.OpApplied)
	}
	op := scheduleOp(sdk.OpDie, b.put("peer-c").ID, 1)
	op.Lane = "team/nobody"
	b.one(op, sdk.OpFenced)
	b.release("install", "run-2", current)
	b.one(scheduleOp(sdk.OpDie, b.put("peer-d").ID, current), sdk.OpFenced)
}

func laneFetch(b *bench) {
	old := b.acquire()
	b.put("a")
	current := b.lease("install", "run-2").Epoch
	for _, epoch := range []int64{old, current + 1, 0} {
		_, err := b.store.Fetch(context.Background(), sdk.FetchRequest{Lane: lane, Epoch: epoch, MaxQueues: 1, MaxRows: 1})
		if !errors.Is(err, sdk.ErrFenced) {
			b.Fatalf("fetch with epoch %d of %d: got error %v, want one that is sdk.ErrFenced", epoch, current, err)
		}
	}
	if res := b.fetch(current, 1, 1); len(res.Queues) != 1 {
		b.Fatalf("fetch with the current epoch: %+v", res)
	}
	// Until somebody else asks, an expired holder still has the lane.
	b.clock.advance(time.Hour)
	if res := b.fetch(current, 1, 1); len(res.Queues) != 1 {
		b.Fatalf("fetch after expiry: %+v", res)
	}
	b.release("install", "run-2", current)
	if _, err := b.store.Fetch(context.Background(), sdk.FetchRequest{Lane: lane, Epoch: current, MaxQueues: 1, MaxRows: 1}); !errors.Is(err, sdk.ErrFenced) {
		b.Fatalf("fetch after release: got error %v, want one that is sdk.ErrFenced", err)
	}
}

func laneSeparate(b *bench) {
	b.lease("one", "run-1")
	req := sdk.AcquireRequest{Lane: "team/session-9", Owner: "two", Incarnation: "x", TTL: time.Second}
	l, err := b.store.Acquire(context.Background(), req)
	if err != nil || l.Held || l.Epoch < 1 {
		b.Fatalf("acquire of another lane: %+v %v", l, err)
	}
	if l := b.ask("two", "x"); !l.Held || l.HeldBy != "one" {
		b.Fatalf("got %+v", l)
	}
}

func laneInvalid(b *bench) {
	good := sdk.AcquireRequest{Lane: lane, Owner: "o", Incarnation: "i", TTL: time.Second}
	for name, change := range map[string]func(*sdk.AcquireRequest){
		"lane":        func(r *sdk.AcquireRequest) { r.Lane = "" },
		"owner":       func(r *sdk.AcquireRequest) { r.Owner = "" },
		"incarnation": func(r *sdk.AcquireRequest) { r.Incarnation = "" },
		"ttl":         func(r *sdk.AcquireRequest) { r.TTL = 0 },
	} {
		req := good
		change(&req)
		if _, err := b.store.Acquire(context.Background(), req); !errors.Is(err, sdk.ErrInvalid) {
			b.Fatalf("acquire without %s: got error %v, want one that is sdk.ErrInvalid", name, err)
		}
	}
}
