package broker

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

// BenchmarkSendRoundTrips keeps 256 sends of 200 bytes of ciphertext in flight over loopback; the server is in this process and
// does little more than find the id.
func BenchmarkSendRoundTrips(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx := context.Background()
		_, _, _ = c.Read(ctx)
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"hello_ack","presenceId":"p","memberDisplayName":"a","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"}}`))
		answer := make([]byte, 0, 256)
		for {
			_, raw, err := c.Read(ctx)
			if err != nil {
				return
			}
			_, rest, _ := strings.Cut(string(raw), `"id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			answer = append(append(append(answer[:0], `{"type":"ack","id":"`...), id...), `","messageId":"VsQI1JG7Pdthj4tzoGRXPcq2QYPlaXzm","queued":true}`...)
			if c.Write(ctx, websocket.MessageText, answer) != nil {
				return
			}
		}
	}))
	defer server.Close()
	ready := make(chan struct{}, 1)
	m := testMesh(b, nil, func(o *Options) {
		o.URL = "ws" + strings.TrimPrefix(server.URL, "http") + "/ws"
		o.Handlers.OnState = func(_ *Conn, s State) {
			if s.Phase == link.Ready {
				ready <- struct{}{}
			}
		}
	})
	defer runMesh(m)()
	<-ready
	window := make(chan struct{}, 256)
	var wg sync.WaitGroup
	key := strings.Repeat("a", 64)
	body := strings.Repeat("B", 288)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		window <- struct{}{}
		wg.Add(1)
		s := wire.Send{ID: strconv.Itoa(i), ClientMessageID: strconv.Itoa(i), RequestFingerprint: key, TargetSpec: key, Priority: wire.PriorityNext, Nonce: body[:32], Ciphertext: body}
		m.Member().SendAsync(&s, func(r SendResult) {
			if r.Outcome != Accepted {
				b.Errorf("%+v", r)
			}
			<-window
			wg.Done()
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
}
