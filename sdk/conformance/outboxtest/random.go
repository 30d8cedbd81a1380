package outboxtest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"pgregory.net/rapid"
)

var modelCases = []conformance{
	{name: "random ops, with reopening in between, match a model", run: matchModel},
}

var (
	modelTargets      = []string{"a", "b", "c", "*"}
	modelOwners       = []string{"one", "two"}
	modelIncarnations = []string{"run-1", "run-2"}
)

func matchModel(b *bench) {
	rapid.Check(b.t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(b.opts.Dir, "model-")
		if err != nil {
			rt.Fatalf("%v", err)
		}
		r := &random{bench: bareBench(rt, b.driver, dir), rt: rt, model: &model{}}
		r.reopen()
		defer r.close()
		rt.Repeat(map[string]func(*rapid.T){
			"apply":   func(rt *rapid.T) { r.rt = rt; r.ops() },
			"acquire": func(rt *rapid.T) { r.rt = rt; r.acquireAny() },
			"release": func(rt *rapid.T) { r.rt = rt; r.releaseAny() },
			"fetch":   func(rt *rapid.T) { r.rt = rt; r.fetchAny() },
			"time": func(rt *rapid.T) {
				r.clock.advance(time.Duration(rapid.IntRange(1, 20_000).Draw(rt, "ms")) * time.Millisecond)
			},
			"reopen": func(*rapid.T) {
				if r.driver.Durable {
					r.reopen()
				}
			},
			"prune":   func(rt *rapid.T) { r.rt = rt; r.pruneAny() },
			"compare": func(*rapid.T) { r.compare() },
			"":        func(*rapid.T) { r.compareStats() },
		})
		r.compare()
	})
}

// random is one run of the model case.
type random struct {
	*bench
	rt    *rapid.T
	model *model
	last  int64 // highest seq so far
}

// ops applies a few random ops in one call.
func (r *random) ops() {
	var ops []sdk.Op
	for range rapid.IntRange(1, 6).Draw(r.rt, "ops") {
		ops = append(ops, r.op())
	}
	got := r.apply(ops...)
	for i, op := range ops {
		want := r.model.apply(op, r.clock.now(), got[i].Seq)
		if got[i].Code != want.Code {
			r.Fatalf("op %d %s %s epoch %d: got %s (%s), want %s (%s)\n%s", i, op.Kind, op.ID, op.Epoch,
				got[i].Code, got[i].State, want.Code, want.State, r.model.describe())
		}
		switch {
		case want.Code == sdk.OpExists:
			if got[i].ID != want.ID || got[i].State != want.State || got[i].Seq != want.Seq || got[i].SameFingerprint != want.SameFingerprint {
				r.Fatalf("exists: got %+v, want %+v", got[i], want)
			}
		case want.Code == sdk.OpConflict && got[i].State != want.State:
			r.Fatalf("conflict: got %+v, want %+v", got[i], want)
		case want.Code == sdk.OpStored, op.Kind == sdk.OpRequeue && want.Code == sdk.OpApplied:
			if got[i].Seq <= r.last {
				r.Fatalf("%s gave seq %d after %d", op.Kind, got[i].Seq, r.last)
			}
			r.last = got[i].Seq
		}
	}
}

// op makes a random op: of a new row, or of one that is there or nearly.
func (r *random) op() sdk.Op {
	kinds := []sdk.OpKind{
		sdk.OpAppend, sdk.OpAppend, sdk.OpAppend, sdk.OpAccepted, sdk.OpDelivered, sdk.OpDefer,
		sdk.OpWait, sdk.OpWake, sdk.OpDie, sdk.OpExpire, sdk.OpCancel, sdk.OpRequeue,
	}
	kind := rapid.SampledFrom(kinds).Draw(r.rt, "kind")
	target := rapid.SampledFrom(modelTargets).Draw(r.rt, "target")
	epoch := r.model.lease.epoch
	if rapid.IntRange(0, 9).Draw(r.rt, "stale") == 0 {
		epoch--
	}
	switch kind {
	case sdk.OpAppend:
		return appendOp(r.appendAny(target))
	case sdk.OpWake:
		return wakeOp(target, epoch)
	}
	op := opOf(r.bench, kind, r.anyID(), epoch)
	op.Count = rapid.Bool().Draw(r.rt, "count")
	op.Final = rapid.Bool().Draw(r.rt, "final")
	if op.After > 0 {
		op.After = time.Duration(rapid.IntRange(0, 30_000).Draw(r.rt, "after")) * time.Millisecond
	}
	return op
}

func (r *random) anyID() string { return id(rapid.IntRange(1, r.made+1).Draw(r.rt, "id")) }

func (r *random) appendAny(target string) *sdk.Entry {
	again := rapid.IntRange(0, 4).Draw(r.rt, "again") == 0
	if again && len(r.model.rows) > 0 {
		e := *rapid.SampledFrom(r.model.rows).Draw(r.rt, "row")
		e.Body = []byte("again")
		if rapid.Bool().Draw(r.rt, "other text") {
			e.Fingerprint = fingerprint(-1)
		}
		return &e
	}
	e := r.entry(target)
	e.EnqueuedAt = r.clock.now()
	e.NotAfter = e.EnqueuedAt.Add(time.Duration(rapid.IntRange(1, 60).Draw(r.rt, "ttl")) * time.Second)
	return e
}

func (r *random) holder() (owner, incarnation string) {
	return rapid.SampledFrom(modelOwners).Draw(r.rt, "owner"), rapid.SampledFrom(modelIncarnations).Draw(r.rt, "incarnation")
}

func (r *random) acquireAny() {
	owner, incarnation := r.holder()
	got := r.ask(owner, incarnation)
	if want := r.model.acquire(owner, incarnation, 15*time.Second, r.clock.now()); got != want {
		r.Fatalf("acquire by %s/%s: got %+v, want %+v", owner, incarnation, got, want)
	}
}

func (r *random) releaseAny() {
	owner, incarnation := r.holder()
	epoch := r.model.lease.epoch
	r.release(owner, incarnation, epoch)
	r.model.release(owner, incarnation, epoch)
}

func (r *random) pruneAny() {
	// A lane without rows that nobody held for long may be forgotten, and with
	// it its epoch: prune stays behind the lease.
	before := r.clock.now().Add(-time.Minute)
	if got, want := r.prune(before, 1000), r.model.prune(before); got != want {
		r.Fatalf("pruned %d, want %d", got, want)
	}
}

func (r *random) fetchAny() {
	if r.model.lease.owner == "" {
		return
	}
	held := rapid.SliceOfNDistinct(rapid.SampledFrom(modelTargets), 0, 2, rapid.ID).Draw(r.rt, "held")
	queues, rows := rapid.IntRange(1, 5).Draw(r.rt, "queues"), rapid.IntRange(1, 20).Draw(r.rt, "rows")
	got := r.fetch(r.model.lease.epoch, queues, rows, held...)
	due, next := r.model.due(modelTargets, held, r.clock.now())
	n := min(len(due), queues, rows)
	if len(got.Queues) != n || got.More != (n < len(due)) || got.NextDue != next {
		r.Fatalf("fetch(%d, %d, %q): got %q more=%v next=%v, want %d of %d, next=%v\n%s", queues, rows, held,
			heads(got), got.More, got.NextDue, n, len(due), next, r.model.describe())
	}
	total := 0
	for i, q := range got.Queues {
		want := r.model.queue(due[i].Target)
		if q.Target != due[i].Target || q.More != (len(q.Rows) < len(want)) || len(q.Rows) == 0 || len(q.Rows) > len(want) {
			r.Fatalf("fetch: queue %d is %s with %d rows more=%v, want %s with up to %d", i, q.Target, len(q.Rows), q.More, due[i].Target, len(want))
		}
		for k := range q.Rows {
			same(r.bench, &q.Rows[k], want[k])
		}
		total += len(q.Rows)
	}
	if total > rows {
		r.Fatalf("fetch of %d rows gave %d", rows, total)
	}
}

// compareStats checks the counts against the model, after every step.
func (r *random) compareStats() {
	counts, bytes, oldest := r.model.stats()
	s := r.stats()
	for _, state := range states {
		if s.States[state.state] != counts[state.state] {
			r.Fatalf("stats: got %v, want %v", s.States, counts)
		}
	}
	if s.Bytes != bytes || !s.OldestLive.Equal(oldest) {
		r.Fatalf("stats: got %d bytes, oldest %v; want %d, %v", s.Bytes, s.OldestLive, bytes, oldest)
	}
}

// compare checks every row and the list against the model.
func (r *random) compare() {
	var ids []string
	for _, e := range r.model.rows {
		ids = append(ids, e.ID)
	}
	got, err := r.store.Get(context.Background(), ids)
	if err != nil || len(got) != len(ids) {
		r.Fatalf("get of %d rows: %d, %v", len(ids), len(got), err)
	}
	for i, e := range r.model.rows {
		if got[i] == nil {
			r.Fatalf("%s is not there", e.ID)
		}
		same(r.bench, got[i], e)
	}
	slices.Reverse(ids)
	if got := r.pages(sdk.ListRequest{Limit: 7}); fmt.Sprint(got) != fmt.Sprint(ids) {
		r.Fatalf("list: got %q, want %q", got, ids)
	}
}
