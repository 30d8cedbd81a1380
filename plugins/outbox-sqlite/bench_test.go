package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

var wide = outboxstate.Limits{Rows: 10 << 20, Bytes: 8 << 30, Entry: 256 << 10}

// newEntry is a message as the host makes it: 200 bytes of text, sealed.
func newEntry(target string) *sdk.Entry {
	id := uuid.Must(uuid.NewV7()).String()
	now := time.Now()
	return &sdk.Entry{
		ID: id, ClientMessageID: id, Fingerprint: make([]byte, 32), Mesh: "team", Sender: "member",
		Lane: "team/0123456789abcdef", Target: target, Priority: "next", Nonce: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		Body: make([]byte, 400), EnqueuedAt: now, NotAfter: now.Add(7 * 24 * time.Hour),
	}
}

func benchTarget(i int) string { return fmt.Sprintf("%064x", i%64) }

func apply(tb testing.TB, s *store, ops []sdk.Op) []sdk.OpResult {
	tb.Helper()
	res, err := s.Apply(context.Background(), ops)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

// BenchmarkAppend counts appends by the size of a call.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, wide)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				ops := make([]sdk.Op, size)
				for i := range ops {
					ops[i] = sdk.Op{Kind: sdk.OpAppend, Entry: newEntry(benchTarget(n))}
					n++
				}
				apply(b, s, ops)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkLife counts whole lives: append, accepted, delivered, each call with
// ops of all three kinds, as the host's ticks have.
func BenchmarkLife(b *testing.B) {
	for _, size := range []int{64, 512} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, wide)
			b.ReportAllocs()
			var sent, taken []string
			n := 0
			for b.Loop() {
				var ops []sdk.Op
				for _, id := range taken {
					ops = append(ops, sdk.Op{Kind: sdk.OpDelivered, ID: id, At: time.Now()})
				}
				for _, id := range sent {
					ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: id, At: time.Now()})
				}
				taken, sent = sent, nil
				for range size {
					e := newEntry(benchTarget(n))
					ops = append(ops, sdk.Op{Kind: sdk.OpAppend, Entry: e})
					sent = append(sent, e.ID)
					n++
				}
				apply(b, s, ops)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lives/s")
		})
	}
}

// BenchmarkCallers counts appends of many callers with one row each.
func BenchmarkCallers(b *testing.B) {
	s := open(b, wide)
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			apply(b, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry(benchTarget(int(n.Add(1))))}})
		}
	})
	b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "rows/s")
}
