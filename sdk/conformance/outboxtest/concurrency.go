package outboxtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

var concurrencyCases = []conformance{
	{name: "calls from many callers lose nothing and share no seq", run: manyCallers},
	{name: "of many callers with one key exactly one is stored", run: oneKey},
	{name: "one caller's rows are in the order of its calls", run: callerOrder},
}

// each runs f in n goroutines and returns the first error.
func each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

const callers, perCaller = 16, 40

// appendMany has callers append perCaller rows each, a few a call, and returns
// the seq of each id.
func appendMany(b *bench, target func(caller int) string) map[string]int64 {
	b.Helper()
	entries := make([][]*sdk.Entry, callers)
	for c := range entries {
		for range perCaller {
			entries[c] = append(entries[c], b.entry(target(c)))
		}
	}
	seqs := make([]map[string]int64, callers)
	err := each(callers, func(c int) error {
		seqs[c] = map[string]int64{}
		for i := 0; i < perCaller; i += 1 + c%4 {
			var ops []sdk.Op
			for _, e := range entries[c][i:min(i+1+c%4, perCaller)] {
				ops = append(ops, appendOp(e))
			}
			res, err := b.store.Apply(context.Background(), ops)
			if err != nil {
				return err
			}
			for k, r := range res {
				if r.Code != sdk.OpStored {
					return fmt.Errorf("append: %+v", r)
				}
				seqs[c][ops[k].Entry.ID] = r.Seq
			}
			if _, err := b.store.Get(context.Background(), []string{ops[0].Entry.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatalf("%v", err)
	}
	all := map[string]int64{}
	for _, m := range seqs {
		for id, seq := range m {
			all[id] = seq
		}
	}
	return all
}

func manyCallers(b *bench) {
	epoch := b.acquire()
	seqs := appendMany(b, func(c int) string { return fmt.Sprintf("t%d", c%5) })
	used := map[int64]string{}
	for id, seq := range seqs {
		if other := used[seq]; other != "" {
			b.Fatalf("seq %d belongs to %s and %s", seq, id, other)
		}
		used[seq] = id
	}
	count := 0
	for _, q := range b.fetch(epoch, 100, 10_000).Queues {
		for _, row := range q.Rows {
			if seqs[row.ID] != row.Seq {
				b.Fatalf("%s was stored with seq %d and has %d", row.ID, seqs[row.ID], row.Seq)
			}
			count++
		}
	}
	if count != callers*perCaller {
		b.Fatalf("%d rows of %d are in queues", count, callers*perCaller)
	}
	ids := slices.Sorted(maps.Keys(seqs))
	err := each(callers, func(c int) error {
		for i, id := range ids {
			if i%callers != c && i%7 != 0 {
				continue // every seventh is settled by all callers
			}
			res, err := b.store.Apply(context.Background(), []sdk.Op{acceptedOp(id)})
			if err != nil || res[0].Code != sdk.OpApplied && res[0].Code != sdk.OpAlready {
				return fmt.Errorf("accepted %s: %+v %w", id, res, err)
			}
			if _, err := b.store.Stats(context.Background(), sdk.StatsRequest{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatalf("%v", err)
	}
	if s := b.stats(); s.States[sdk.StateAccepted] != callers*perCaller || s.States[sdk.StatePending] != 0 {
		b.Fatalf("stats %v", s.States)
	}
}

func oneKey(b *bench) {
	for range 20 {
		first := b.entry("a")
		codes := make([]sdk.OpResult, callers)
		err := each(callers, func(c int) error {
			e := *first
			e.ID = fmt.Sprintf("%s-%02d", first.ID, c)
			res, err := b.store.Apply(context.Background(), []sdk.Op{appendOp(&e)})
			if err == nil {
				codes[c] = res[0]
			}
			return err
		})
		if err != nil {
			b.Fatalf("%v", err)
		}
		stored, winner := 0, ""
		for _, r := range codes {
			if r.Code == sdk.OpStored {
				stored++
			}
			if winner == "" {
				winner = r.ID
			}
			if r.ID != "" && r.ID != winner && r.Code == sdk.OpExists {
				b.Fatalf("rows %s and %s have one key", r.ID, winner)
			}
		}
		if stored != 1 {
			b.Fatalf("%d callers were told stored", stored)
		}
	}
}

func callerOrder(b *bench) {
	epoch := b.acquire()
	appendMany(b, func(c int) string { return fmt.Sprintf("caller-%02d", c) })
	for _, q := range b.fetch(epoch, 100, 10_000).Queues {
		for i := 1; i < len(q.Rows); i++ {
			if q.Rows[i].ID <= q.Rows[i-1].ID || q.Rows[i].Seq <= q.Rows[i-1].Seq {
				b.Fatalf("%s: %s (seq %d) behind %s (seq %d)", q.Target,
					q.Rows[i].ID, q.Rows[i].Seq, q.Rows[i-1].ID, q.Rows[i-1].Seq)
			}
		}
	}
}
