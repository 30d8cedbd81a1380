package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
	"golang.org/x/sys/unix"
)

// The benchmarks measure the store alone: no process boundary, no mesh. Beside
// the time they print what it costs, cpu-µs (user and system of this process,
// checkpoints and syncs included) and B-written (what write calls were given),
// each per item, since time on a shared machine says little. The ceiling is
// what the disk allows: a plain file, one write and one sync for all who wait.

var wide = outboxstate.Limits{Rows: 10 << 20, Bytes: 8 << 30, Entry: 256 << 10}

// producers is how many goroutines wait for an answer each.
const producers = 64

// benchLane is the lane of newEntry.
const benchLane = "team/0123456789abcdef"

// newEntry is a message as the host makes it: 200 bytes of text, sealed.
func newEntry(target string) *sdk.Entry {
	id := uuid.Must(uuid.NewV7()).String()
	now := time.Now()
	return &sdk.Entry{
		ID: id, ClientMessageID: id, Fingerprint: make([]byte, 32), Mesh: "team", Sender: "member",
		Lane: benchLane, Target: target, Priority: "next", Nonce: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		Body: make([]byte, 400), EnqueuedAt: now, NotAfter: now.Add(7 * 24 * time.Hour),
	}
}

// benchTargets are made before, for they should not count.
var benchTargets = func() (t [64]string) {
	for i := range t {
		t[i] = fmt.Sprintf("%064x", i)
	}
	return t
}()

func benchTarget(i int) string { return benchTargets[i%64] }

func apply(tb testing.TB, s *store, ops []sdk.Op) []sdk.OpResult {
	tb.Helper()
	res, err := s.Apply(context.Background(), ops)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

// must applies one op whose answer has to be code.
func must(tb testing.TB, s *store, op sdk.Op, code sdk.OpCode) {
	if res := apply(tb, s, []sdk.Op{op}); res[0].Code != code {
		tb.Errorf("%s: %+v", op.Kind, res[0])
	}
}

// meter counts what a stretch of a benchmark costs.
type meter struct {
	b       *testing.B
	cpu     time.Duration
	written int64
	start   time.Time
}

func startMeter(b *testing.B) *meter {
	b.Helper()
	m := &meter{b: b}
	m.cpu, m.written = spent(b)
	m.start = time.Now()
	b.ResetTimer()
	return m
}

// stop reports n items.
func (m *meter) stop(n int, unit string) {
	took := time.Since(m.start)
	m.b.StopTimer()
	cpu, written := spent(m.b)
	m.b.ReportMetric(float64(n)/took.Seconds(), unit)
	m.b.ReportMetric(float64((cpu-m.cpu).Nanoseconds())/1e3/float64(n), "cpu-µs")
	m.b.ReportMetric(float64(written-m.written)/float64(n), "B-written")
	m.b.ReportMetric(0, "ns/op")
}

// spent is the processor time of this process and what it has written.
func spent(tb testing.TB) (time.Duration, int64) {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		tb.Fatal(err)
	}
	var written int64 // 0: this system does not tell
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		data = nil
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "wchar: %d", &written); err == nil {
			break
		}
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()), written
}

// produce shares n turns among the producers.
func produce(n int, turn func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				turn(int(i))
			}
		})
	}
	wg.Wait()
}

// BenchmarkLives counts whole lives: each producer appends a message and waits,
// says accepted and waits, says delivered and waits; "final" lives end with
// accepted, as messages to several peers do.
func BenchmarkLives(b *testing.B) {
	for _, kind := range []string{"direct", "final"} {
		b.Run(kind, func(b *testing.B) {
			s := open(b, wide)
			m := startMeter(b)
			produce(b.N, func(i int) {
				e := newEntry(benchTarget(i))
				must(b, s, sdk.Op{Kind: sdk.OpAppend, Entry: e}, sdk.OpStored)
				must(b, s, sdk.Op{
					Kind: sdk.OpAccepted, ID: e.ID, BrokerMessageID: uuid.NewString(), At: time.Now(), Final: kind == "final",
				}, sdk.OpApplied)
				if kind == "direct" {
					must(b, s, sdk.Op{Kind: sdk.OpDelivered, ID: e.ID, At: time.Now()}, sdk.OpApplied)
				}
			})
			m.stop(b.N, "lives/s")
		})
	}
}

// BenchmarkTicks is the same as the host's batches have it: one call with what
// all have to say.
func BenchmarkTicks(b *testing.B) {
	s := open(b, wide)
	m := startMeter(b)
	var sent, taken []string
	for n := 0; n < b.N; {
		var ops []sdk.Op
		for _, id := range taken {
			ops = append(ops, sdk.Op{Kind: sdk.OpDelivered, ID: id, At: time.Now()})
		}
		for _, id := range sent {
			ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: uuid.NewString(), At: time.Now()})
		}
		taken, sent = sent, nil
		for range producers {
			e := newEntry(benchTarget(n))
			ops = append(ops, sdk.Op{Kind: sdk.OpAppend, Entry: e})
			sent = append(sent, e.ID)
			n++
		}
		apply(b, s, ops)
	}
	m.stop(b.N, "lives/s")
}

// BenchmarkAppend counts appends: of one caller, of many with a row each, and
// of one with 512 rows of 1 KiB a call.
func BenchmarkAppend(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		s := open(b, wide)
		m := startMeter(b)
		for i := range b.N {
			must(b, s, sdk.Op{Kind: sdk.OpAppend, Entry: newEntry(benchTarget(i))}, sdk.OpStored)
		}
		m.stop(b.N, "rows/s")
	})
	b.Run("64", func(b *testing.B) {
		s := open(b, wide)
		m := startMeter(b)
		produce(b.N, func(i int) {
			must(b, s, sdk.Op{Kind: sdk.OpAppend, Entry: newEntry(benchTarget(i))}, sdk.OpStored)
		})
		m.stop(b.N, "rows/s")
	})
	b.Run("bulk", func(b *testing.B) {
		s := open(b, wide)
		m := startMeter(b)
		for n := 0; n < b.N; {
			ops := make([]sdk.Op, 512)
			for i := range ops {
				e := newEntry(benchTarget(n))
				e.Body = make([]byte, 1<<10)
				ops[i] = sdk.Op{Kind: sdk.OpAppend, Entry: e}
				n++
			}
			apply(b, s, ops)
		}
		m.stop(b.N, "rows/s")
	})
}

// BenchmarkDrain counts rows that are fetched and settled, with so many others
// parked in the same lane.
func BenchmarkDrain(b *testing.B) {
	for _, parked := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(parked), func(b *testing.B) {
			s := openParked(b, parked)
			lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: benchLane, Owner: "o", Incarnation: fmt.Sprint(b.N), TTL: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s, b.N, func(i int) string { return benchTarget(i) })
			m := startMeter(b)
			for n := 0; n < b.N; {
				work, err := s.Fetch(context.Background(), sdk.FetchRequest{Lane: benchLane, Epoch: lease.Epoch, MaxQueues: 64, MaxRows: 256})
				if err != nil {
					b.Fatal(err)
				}
				var ops []sdk.Op
				for _, q := range work.Queues {
					for i := range q.Rows {
						ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: q.Rows[i].ID, BrokerMessageID: uuid.NewString(), At: time.Now(), Final: true})
					}
				}
				if len(ops) == 0 {
					b.Fatalf("nothing is due after %d of %d", n, b.N)
				}
				apply(b, s, ops)
				n += len(ops)
			}
			m.stop(b.N, "rows/s")
		})
	}
}

// fill appends n rows in large calls.
func fill(tb testing.TB, s *store, n int, target func(i int) string) []string {
	tb.Helper()
	ids := make([]string, 0, n)
	for len(ids) < n {
		ops := make([]sdk.Op, 0, 512)
		for i := len(ids); i < n && len(ops) < cap(ops); i++ {
			e := newEntry(target(i))
			ops = append(ops, sdk.Op{Kind: sdk.OpAppend, Entry: e})
			ids = append(ids, e.ID)
		}
		apply(tb, s, ops)
	}
	return ids
}

// parkedFile names a file with a million rows to copy, so that repeated runs
// need not make it anew; it is made if it is missing.
const parkedFile = "OUTBOX_BENCH_PARKED"

// openParked opens a store with n rows that wait behind one target that is due
// in an hour.
func openParked(b *testing.B, n int) *store {
	b.Helper()
	kept := os.Getenv(parkedFile)
	path := filepath.Join(b.TempDir(), "outbox.db")
	if n == 1_000_000 && kept != "" {
		if _, err := os.Stat(kept); err != nil {
			s := openAt(b, kept)
			park(b, s, n)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
		copyFile(b, path, kept)
		return openAt(b, path)
	}
	s := openAt(b, path)
	park(b, s, n)
	return s
}

func park(b *testing.B, s *store, n int) {
	b.Helper()
	ids := fill(b, s, n, func(int) string { return strings.Repeat("f", 64) })
	lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: benchLane, Owner: "o", Incarnation: "parks", TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	must(b, s, sdk.Op{Kind: sdk.OpDefer, ID: ids[0], Lane: benchLane, Epoch: lease.Epoch, After: time.Hour}, sdk.OpApplied)
}

func copyFile(b *testing.B, to, from string) {
	b.Helper()
	src, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		b.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		b.Fatal(err)
	}
}

// openAt is an open store that the benchmark closes.
func openAt(b *testing.B, path string) *store {
	b.Helper()
	s, err := openStore(context.Background(), path, wide, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkCeiling is what the disk allows: the producers hand 3 records of a
// life each to one writer, who writes what has come to a plain file and syncs.
func BenchmarkCeiling(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	type record struct {
		data []byte
		done chan error
	}
	records := make(chan record, producers)
	go func() {
		out := bufio.NewWriterSize(file, 1<<20)
		var waiting []chan error
		for r := range records {
			waiting = waiting[:0]
			for more := true; more; {
				_, _ = out.Write(r.data)
				waiting = append(waiting, r.done)
				select {
				case r = <-records:
				default:
					more = false
				}
			}
			err := out.Flush()
			if err == nil {
				err = unix.Fdatasync(int(file.Fd()))
			}
			for _, done := range waiting {
				done <- err
			}
		}
	}()
	m := startMeter(b)
	produce(b.N, func(int) {
		done := make(chan error, 1)
		for _, size := range []int{700, 100, 50} {
			records <- record{make([]byte, size), done}
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
	})
	close(records)
	m.stop(b.N, "lives/s")
}
