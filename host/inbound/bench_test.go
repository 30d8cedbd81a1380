package inbound

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

func TestManyConnectionsAtOnceLoseNothing(t *testing.T) {
	inbox := acker()
	h := start(t, setup{handlers: []Handler{{Name: "inbox", Push: inbox}, {Name: "flaky", Push: flaky()}}})
	var batches [8][]Delivery
	for i := range batches {
		for range 200 {
			batches[i] = append(batches[i], h.directTo(t, h.sender, h.keys.member, fmt.Sprint(i)))
		}
	}
	var wg sync.WaitGroup
	for _, b := range batches {
		wg.Go(func() {
			for i := range b {
				h.Accept(b[i : i+1])
			}
		})
	}
	wg.Wait()
	inbox.bodies(t, 1600)
	h.idle(t)
	if h.acks.count() != 1600 {
		t.Errorf("%d acks", h.acks.count())
	}
}

// flaky fails now and then, as a whole and by item.
func flaky() sdk.PushHandler {
	var n atomic.Int64
	return flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
		if n.Add(1)%5 == 0 {
			return nil, sdk.ErrUnavailable
		}
		out := make([]sdk.Outcome, len(pushes))
		for i := range out {
			out[i] = sdk.Outcome{Decision: sdk.Ack}
			if n.Add(1)%50 == 0 {
				out[i] = sdk.Outcome{Decision: sdk.Retry, After: time.Millisecond}
			}
		}
		return out, nil
	})
}

type flakyFunc func([]sdk.Push) ([]sdk.Outcome, error)

func BenchmarkInbound(b *testing.B) {
	inbox := acker()
	h := start(b, setup{handlers: []Handler{{Name: "inbox", Push: inbox}}})
	from := make([]*identity.Key, 16)
	for i := range from {
		from[i] = generate(b)
	}
	body := strings.Repeat("x", 200)
	const n = 5000
	for b.Loop() {
		b.StopTimer()
		batches := make([][]Delivery, 0, n/50)
		for range n / 50 {
			var batch []Delivery
			for i := range 50 {
				batch = append(batch, h.directTo(b, from[i%len(from)], h.keys.member, body))
			}
			batches = append(batches, batch)
		}
		b.StartTimer()
		for _, batch := range batches {
			h.Accept(batch)
		}
		for range n {
			<-h.acks.c
		}
		for range n {
			<-inbox.got
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "pushes/s")
	if s := h.Stats(); s.Refused+s.Dropped > 0 {
		b.Fatalf("%+v", s)
	}
}
