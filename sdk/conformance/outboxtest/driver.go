package outboxtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// Driver opens the backend under test.
type Driver struct {
	// Open opens the store in o.Dir, or makes it if there is none. The suite
	// closes it, and opens at most one at a time in a directory.
	Open func(ctx context.Context, o Options) (Store, error)
	// Durable says that a store opened again has what was applied before. The
	// cases on that run only if it is set.
	Durable bool

	overWire bool
}

// Options are what a case asks of a store.
type Options struct {
	// Dir is an empty directory at first, and the same one when a store is
	// opened again.
	Dir string
	// Now is the backend's clock.
	Now func() time.Time
	// MaxRows bounds live rows, MaxBytes the sum of the bodies, MaxEntry one
	// entry with all of its texts, in bytes. 0: the backend's default, at least
	// 60,000 rows, 64 MiB and 256 KiB.
	MaxRows  int64
	MaxBytes int64
	MaxEntry int64
}

// Store is an open backend.
type Store struct {
	sdk.Outbox
	// Close ends it in good order.
	Close func() error
}

// Run runs every case against the backend.
func Run(t *testing.T, d Driver) {
	t.Helper()
	for _, c := range cases() {
		if c.durable && !d.Durable {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.run(newBench(t, d))
		})
	}
}

// conformance is one promise.
type conformance struct {
	name    string
	durable bool
	run     func(b *bench)
}

func cases() []conformance {
	var all []conformance
	for _, group := range [][]conformance{
		appendCases, stateCases, queueCases, fetchCases, laneCases, readCases, limitCases, clockCases, concurrencyCases, durableCases, modelCases,
	} {
		all = append(all, group...)
	}
	return all
}

// clock is the suite's time. It starts at a whole millisecond.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// checker is what bench needs of *testing.T and *rapid.T.
type checker interface {
	Helper()
	Fatalf(format string, args ...any)
}

// bench is a store under test with its clock, and short words for calls whose
// error would end the case.
type bench struct {
	checker
	t      *testing.T // nil in a random run
	driver Driver
	opts   Options
	clock  *clock
	store  Store
	open   bool
	made   int
}

func newBench(t *testing.T, d Driver) *bench {
	t.Helper()
	b := bareBench(t, d, t.TempDir())
	b.t = t
	b.reopen()
	t.Cleanup(b.close)
	return b
}

func bareBench(c checker, d Driver, dir string) *bench {
	k := &clock{at: time.UnixMilli(1_800_000_000_000).UTC()}
	return &bench{checker: c, driver: d, clock: k, opts: Options{Dir: dir, Now: k.now}}
}

// reopen opens the store, closing it first if it is open.
func (b *bench) reopen() {
	b.Helper()
	b.close()
	store, err := b.driver.Open(context.Background(), b.opts)
	if err != nil {
		b.Fatalf("open: %v", err)
	}
	b.store, b.open = store, true
}

func (b *bench) close() {
	b.Helper()
	if !b.open {
		return
	}
	b.open = false
	if err := b.store.Close(); err != nil {
		b.Fatalf("close: %v", err)
	}
}

// limited opens the store anew, empty and with limits.
func (b *bench) limited(rows, bytes, entry int64) {
	b.Helper()
	b.close()
	b.opts.Dir = b.t.TempDir()
	b.opts.MaxRows, b.opts.MaxBytes, b.opts.MaxEntry = rows, bytes, entry
	b.reopen()
}

const lane = "team/member"

// id is the n-th id of a case, a UUIDv7 as far as any backend can see.
func id(n int) string {
	return fmt.Sprintf("01900000-0000-7000-8000-%012x", n)
}

// entry makes the next entry of a case for a target, 1 s after the one before.
func (b *bench) entry(target string) *sdk.Entry {
	b.made++
	at := b.clock.now().Add(time.Duration(b.made) * time.Second)
	return &sdk.Entry{
		ID:              id(b.made),
		ClientMessageID: fmt.Sprintf("client-%06d", b.made),
		Fingerprint:     fingerprint(b.made),
		Mesh:            "team",
		Sender:          "member",
		Lane:            lane,
		Target:          target,
		Priority:        "next",
		Nonce:           "bm9uY2U=",
		Body:            fmt.Appendf(nil, "body of %d", b.made),
		EnqueuedAt:      at,
		NotAfter:        at.Add(7 * 24 * time.Hour),
	}
}

func fingerprint(n int) []byte {
	fp := make([]byte, 32)
	copy(fp, fmt.Sprintf("fingerprint %d", n))
	return fp
}

func (b *bench) apply(ops ...sdk.Op) []sdk.OpResult {
	b.Helper()
	res, err := b.store.Apply(context.Background(), ops)
	if err != nil {
		b.Fatalf("apply: %v", err)
	}
	if len(res) != len(ops) {
		b.Fatalf("apply of %d ops answered %d results", len(ops), len(res))
	}
	return res
}

// one applies one op and checks its code.
func (b *bench) one(op sdk.Op, want sdk.OpCode) sdk.OpResult {
	b.Helper()
	res := b.apply(op)[0]
	if res.Code != want {
		b.Fatalf("%s %s: got %s (state %q, %s), want %s", op.Kind, op.ID, res.Code, res.State, res.Detail, want)
	}
	return res
}

// put appends the next entry for a target.
func (b *bench) put(target string) *sdk.Entry {
	b.Helper()
	e := b.entry(target)
	e.Seq = b.one(appendOp(e), sdk.OpStored).Seq
	return e
}

func appendOp(e *sdk.Entry) sdk.Op { return sdk.Op{Kind: sdk.OpAppend, Entry: e} }

// acquire takes the lane and returns its epoch.
func (b *bench) acquire() int64 {
	b.Helper()
	return b.lease("install", "run-1").Epoch
}

// lease asks for the lane and expects to get it.
func (b *bench) lease(owner, incarnation string) sdk.Lease {
	b.Helper()
	l := b.ask(owner, incarnation)
	if l.Held {
		b.Fatalf("acquire by %s/%s: held by %s", owner, incarnation, l.HeldBy)
	}
	return l
}

func (b *bench) ask(owner, incarnation string) sdk.Lease {
	b.Helper()
	l, err := b.store.Acquire(context.Background(), sdk.AcquireRequest{
		Lane: lane, Owner: owner, Incarnation: incarnation, TTL: 15 * time.Second,
	})
	if err != nil {
		b.Fatalf("acquire: %v", err)
	}
	return l
}

func (b *bench) release(owner, incarnation string, epoch int64) {
	b.Helper()
	err := b.store.Release(context.Background(), sdk.ReleaseRequest{Lane: lane, Owner: owner, Incarnation: incarnation, Epoch: epoch})
	if err != nil {
		b.Fatalf("release: %v", err)
	}
}

func (b *bench) fetch(epoch int64, queues, rows int, held ...string) sdk.FetchResult {
	b.Helper()
	res, err := b.store.Fetch(context.Background(), sdk.FetchRequest{
		Lane: lane, Epoch: epoch, MaxQueues: queues, MaxRows: rows, Held: held,
	})
	if err != nil {
		b.Fatalf("fetch: %v", err)
	}
	return res
}

func (b *bench) get(id string) *sdk.Entry {
	b.Helper()
	got, err := b.store.Get(context.Background(), []string{id})
	if err != nil {
		b.Fatalf("get %s: %v", id, err)
	}
	if len(got) != 1 {
		b.Fatalf("get of one id answered %d entries", len(got))
	}
	return got[0]
}

// row is get of an entry that must be there.
func (b *bench) row(id string) *sdk.Entry {
	b.Helper()
	e := b.get(id)
	if e == nil {
		b.Fatalf("get %s: not there", id)
	}
	return e
}

func (b *bench) stats() sdk.OutboxStats {
	b.Helper()
	s, err := b.store.Stats(context.Background(), sdk.StatsRequest{})
	if err != nil {
		b.Fatalf("stats: %v", err)
	}
	return s
}
