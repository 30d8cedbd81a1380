package bridge_test

import (
	"context"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

// taker is an outbox that takes everything and keeps nothing.
type taker struct{ echo }

func (*taker) Apply(_ context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	results := make([]sdk.OpResult, len(ops))
	for i := range ops {
		results[i] = sdk.OpResult{Code: sdk.OpStored, Seq: int64(i + 1)}
	}
	return results, nil
}

// BenchmarkApply is what the boundary costs one message in a batch of 100, with
// both ends in one process.
func BenchmarkApply(b *testing.B) {
	box := plugintest.Start(b, sdk.Plugin{Name: "taker", Version: "1", Outbox: &taker{}}).MustConfigure("").Outbox()
	ops := make([]sdk.Op, 100)
	now := time.Now()
	for i := range ops {
		ops[i] = sdk.Op{Kind: sdk.OpAppend, Entry: &sdk.Entry{
			ID: "0197f0e2-0000-7000-8000-000000000000", ClientMessageID: "0197f0e2-0000-7000-8000-000000000000", Fingerprint: make([]byte, 32),
			Mesh: "team", Sender: "member", Lane: "team/key", Target: "target", Priority: "next", Nonce: "nonce", Body: make([]byte, 300),
			EnqueuedAt: now, NotAfter: now,
		}}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := box.Apply(b.Context(), ops); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(ops))/b.Elapsed().Seconds(), "items/s")
}
