package plugin

import (
	"context"
	"testing"

	"github.com/meshhost/meshhost/sdk"
)

func BenchmarkBatchedHandleAt64Callers(b *testing.B) {
	p := startReady(b, spec(sdk.KindPushHandler, "good", shortDir(b)))
	h := p.PushHandler()
	batch := NewBatcher(BatchOptions[sdk.Push]{MaxItems: 128}, h.Handle)
	defer batch.Close(context.Background())
	body := make([]byte, 200)
	b.SetParallelism(32) // times two processors
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := batch.Do(context.Background(), sdk.Push{ID: "1", Kind: sdk.PushDirect, Body: body}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkSingleHandle(b *testing.B) {
	p := startReady(b, spec(sdk.KindPushHandler, "good", shortDir(b)))
	h := p.PushHandler()
	pushes := []sdk.Push{{ID: "1", Kind: sdk.PushDirect, Body: make([]byte, 200)}}
	for b.Loop() {
		if _, err := h.Handle(context.Background(), pushes); err != nil {
			b.Fatal(err)
		}
	}
}
