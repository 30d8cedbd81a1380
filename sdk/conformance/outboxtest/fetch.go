package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var fetchCases = []conformance{
	{name: "fetch of an empty lane is empty and nothing is due", run: fetchEmpty},
	{name: "fetch gives the longest due queue first, rows in seq order and whole", run: fetchOrder},
	{name: "fetch keeps to its bounds, says more, and each queue has its head", run: fetchBounds},
	{name: "fetch of one queue may fill the whole answer", run: fetchOneQueue},
	{name: "fetch leaves held targets out, of next due too", run: fetchHeld},
	{name: "fetch shows rows of its own lane alone", run: fetchLane},
	{name: "fetch finds next due behind queues that the bounds left out", run: fetchNextDue},
	{name: "fetch without bounds is refused", run: fetchInvalid},
	{name: "rows parked on one target do not come with another's", run: fetchParked},
}

func fetchEmpty(b *bench) {
	epoch := b.acquire()
	if res := b.fetch(epoch, 10, 10); len(res.Queues) != 0 || res.NextDue >= 0 || res.More {
		b.Fatalf("got %+v", res)
	}
}

func fetchOrder(b *bench) {
	epoch := b.acquire()
	e := map[string]*sdk.Entry{}
	for _, target := range []string{"a", "b", "c"} {
		e[target] = b.put(target)
		b.clock.advance(time.Second)
	}
	op := scheduleOp(sdk.OpDefer, e["a"].ID, epoch)
	op.After = 10 * time.Second
	b.one(op, sdk.OpApplied)
	second := b.put("b")
	b.clock.advance(time.Minute)
	res := b.wantHeads(epoch, "order", "b "+e["b"].ID, "c "+e["c"].ID, "a "+e["a"].ID)
	rows := res.Queues[0].Rows
	if len(rows) != 2 || rows[1].ID != second.ID {
		b.Fatalf("queue b is %+v", rows)
	}
	same(b, &rows[0], b.row(e["b"].ID))
	if string(rows[1].Body) != string(second.Body) {
		b.Fatalf("the body of a fetched row is %q", rows[1].Body)
	}
}

func fetchBounds(b *bench) {
	epoch := b.acquire()
	for round := range 4 {
		for q := range 5 {
			e := b.put(fmt.Sprintf("t%d", q))
			if round == 0 {
				b.clock.advance(time.Second)
			}
			_ = e
		}
	}
	for _, c := range []struct {
		queues, rows int
		wantQueues   int
		more         bool
	}{
		{100, 100, 5, false}, {5, 20, 5, false}, {2, 100, 2, true}, {100, 3, 3, true}, {5, 7, 5, false}, {1, 1, 1, true},
	} {
		res := b.fetch(epoch, c.queues, c.rows)
		total := 0
		for i, q := range res.Queues {
			if want := fmt.Sprintf("t%d", i); q.Target != want {
				b.Fatalf("bounds %+v: queue %d is %s, want %s", c, i, q.Target, want)
			}
			if len(q.Rows) == 0 || q.Rows[0].Seq != int64(slices.MinFunc(q.Rows, bySeq).Seq) || !slices.IsSortedFunc(q.Rows, bySeq) {
				b.Fatalf("bounds %+v: queue %s is %+v", c, q.Target, q.Rows)
			}
			if q.More != (len(q.Rows) < 4) {
				b.Fatalf("bounds %+v: %d of 4 rows and more=%v", c, len(q.Rows), q.More)
			}
			total += len(q.Rows)
		}
		if len(res.Queues) != c.wantQueues || res.More != c.more || total > c.rows {
			b.Fatalf("bounds %+v: got %d queues, %d rows, more=%v", c, len(res.Queues), total, res.More)
		}
	}
}

func bySeq(x, y sdk.Entry) int {
	switch {
	case x.Seq < y.Seq:
		return -1
	case x.Seq > y.Seq:
		return 1
	default:
		return 0
	}
}

func fetchOneQueue(b *bench) {
	epoch := b.acquire()
	for range 20 {
		b.put("a")
	}
	res := b.fetch(epoch, 64, 12)
	if len(res.Queues) != 1 || len(res.Queues[0].Rows) != 12 || !res.Queues[0].More || res.More {
		b.Fatalf("got %d queues, first with %d rows", len(res.Queues), len(res.Queues[0].Rows))
	}
}

func fetchHeld(b *bench) {
	epoch := b.acquire()
	x, y, z := b.put("a"), b.put("b"), b.put("c")
	for i, e := range []*sdk.Entry{x, y} {
		op := scheduleOp(sdk.OpDefer, e.ID, epoch)
		op.After = time.Duration(i+1) * time.Minute
		b.one(op, sdk.OpApplied)
	}
	res := b.fetch(epoch, 10, 10, "a", "c", "nobody")
	if len(res.Queues) != 0 || res.More || res.NextDue != 2*time.Minute {
		b.Fatalf("got %+v, want nothing and b in 2m", res)
	}
	res = b.fetch(epoch, 10, 10, "a")
	if got := heads(res); !slices.Equal(got, []string{"c " + z.ID}) || res.NextDue != 2*time.Minute {
		b.Fatalf("got %q, next due %v", got, res.NextDue)
	}
	b.clock.advance(time.Hour)
	if got := heads(b.fetch(epoch, 1, 10, "c", "a")); !slices.Equal(got, []string{"b " + y.ID}) {
		b.Fatalf("held queues used up the bound: %q", got)
	}
}

func fetchLane(b *bench) {
	epoch := b.acquire()
	mine := b.put("a")
	other := b.entry("a")
	other.Lane = "team/session-9"
	b.one(appendOp(other), sdk.OpStored)
	res := b.wantHeads(epoch, "own lane", "a "+mine.ID)
	if len(res.Queues[0].Rows) != 1 {
		b.Fatalf("rows of another lane in the queue: %+v", res.Queues[0].Rows)
	}
	b.one(acceptedOp(mine.ID), sdk.OpApplied)
	b.wantHeads(epoch, "after the only row left")
	b.one(scheduleOp(sdk.OpDie, other.ID, epoch), sdk.OpNotFound)
}

func fetchNextDue(b *bench) {
	epoch := b.acquire()
	for i := range 6 {
		b.put(fmt.Sprintf("t%d", i))
	}
	late := b.put("late")
	op := scheduleOp(sdk.OpDefer, late.ID, epoch)
	op.After = 42 * time.Second
	b.one(op, sdk.OpApplied)
	if res := b.fetch(epoch, 2, 10); !res.More || res.NextDue != op.After {
		b.Fatalf("got more=%v next due %v, want true and 42s", res.More, res.NextDue)
	}
}

func fetchInvalid(b *bench) {
	epoch := b.acquire()
	for _, req := range []sdk.FetchRequest{
		{Lane: lane, Epoch: epoch, MaxRows: 1}, {Lane: lane, Epoch: epoch, MaxQueues: 1}, {Epoch: epoch, MaxQueues: 1, MaxRows: 1},
	} {
		if _, err := b.store.Fetch(context.Background(), req); !errors.Is(err, sdk.ErrInvalid) {
			b.Fatalf("fetch %+v: got error %v, want one that is sdk.ErrInvalid", req, err)
		}
	}
}

// parked rows stand behind one head; a backend that looks at each of them in
// every fetch makes this case crawl. The wire would add nothing but time.
const parked, parkedOverWire = 50_000, 2_000

func fetchParked(b *bench) {
	epoch := b.acquire()
	parked := parked
	if b.driver.overWire {
		parked = parkedOverWire
	}
	for made := 0; made < parked; {
		ops := make([]sdk.Op, 0, 1000)
		for range cap(ops) {
			ops = append(ops, appendOp(b.entry("parked")))
		}
		for _, res := range b.apply(ops...) {
			if res.Code != sdk.OpStored {
				b.Fatalf("append: %+v", res)
			}
		}
		made += len(ops)
	}
	first := b.fetch(epoch, 1, 1).Queues[0].Rows[0]
	op := scheduleOp(sdk.OpWait, first.ID, epoch)
	op.After = time.Hour
	b.one(op, sdk.OpApplied)
	for range 300 {
		e := b.put("live")
		b.wantHeads(epoch, "beside parked rows", "live "+e.ID)
		b.one(acceptedOp(e.ID), sdk.OpApplied)
	}
	if n := b.stats().States; n[sdk.StatePending] != int64(parked-1) || n[sdk.StateWaiting] != 1 {
		b.Fatalf("stats %v", n)
	}
}
