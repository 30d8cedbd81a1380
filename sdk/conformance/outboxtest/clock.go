package outboxtest

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// A machine may run ahead of time until the network tells it, and what it
// stored until then has due times far ahead.
var clockCases = []conformance{
	{name: "a clock that goes back parks no row and no lane for long", run: clockBack},
	{name: "a clock that went back while the store was closed parks nothing for long", durable: true, run: clockBackClosed},
	{name: "a delay is at most an hour", run: clockDelay},
}

func clockBack(b *bench)       { goBack(b, func() {}) }
func clockBackClosed(b *bench) { goBack(b, b.reopen) }

func goBack(b *bench, between func()) {
	epoch := b.acquire()
	first, second, put := b.put("a"), b.put("a"), b.put("b")
	later := b.put("c")
	op := scheduleOp(sdk.OpDefer, put.ID, epoch)
	op.After = 10 * time.Minute
	b.one(op, sdk.OpApplied)
	b.clock.advance(-10 * time.Minute)
	op = scheduleOp(sdk.OpDefer, later.ID, epoch)
	op.After = 5 * time.Minute
	b.one(op, sdk.OpApplied)
	if res := b.fetch(epoch, 10, 10); len(res.Queues) != 0 || res.NextDue != 5*time.Minute {
		b.Fatalf("ten minutes back: got %q, next due %v, want nothing before 5m", heads(res), res.NextDue)
	}
	b.clock.advance(-48 * time.Hour)
	between()
	if l := b.ask("another", "run-1"); l.Held {
		b.Fatalf("two days back: the lease of 15 s goes on for %v", l.RetryIn)
	} else if epoch = l.Epoch; l.Stolen {
		b.Fatalf("two days back: the lease that is over was stolen: %+v", l)
	}
	b.wantSome(epoch, "a "+first.ID, "b "+put.ID, "c "+later.ID)
	b.one(acceptedOp(first.ID), sdk.OpApplied)
	b.wantSome(epoch, "a "+second.ID, "b "+put.ID, "c "+later.ID)
	fresh := b.put("d")
	b.wantSome(epoch, "a "+second.ID, "b "+put.ID, "c "+later.ID, "d "+fresh.ID)
	if res := b.fetch(epoch, 3, 3); len(res.Queues) != 3 || !res.More {
		b.Fatalf("two days back, bounds of 3 and 4 due: got %q, more=%v", heads(res), res.More)
	}
}

// wantSome expects these heads in any order, and that no other is due later.
func (b *bench) wantSome(epoch int64, want ...string) {
	b.Helper()
	res := b.fetch(epoch, 10, 10)
	got := map[string]bool{}
	for _, h := range heads(res) {
		got[h] = true
	}
	for _, h := range want {
		if !got[h] {
			b.Fatalf("two days back: %s is not due; got %q, next due %v", h, heads(res), res.NextDue)
		}
	}
	if len(got) != len(want) || res.NextDue >= 0 || res.More {
		b.Fatalf("two days back: got %q, next due %v, more=%v; want %q", heads(res), res.NextDue, res.More, want)
	}
}

func clockDelay(b *bench) {
	epoch := b.acquire()
	e := b.put("a")
	op := scheduleOp(sdk.OpWait, e.ID, epoch)
	op.After = 1000 * time.Hour
	b.one(op, sdk.OpApplied)
	if res := b.fetch(epoch, 10, 10); len(res.Queues) != 0 || res.NextDue != sdk.MaxDelay {
		b.Fatalf("got %q, next due %v, want nothing before %v", heads(res), res.NextDue, sdk.MaxDelay)
	}
}
