package control

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/meshhost/meshhost/host/event"
	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkSend is the API's own share of a send: the rooms answer at once, and
// the clients write raw requests.
func BenchmarkSend(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchSend(b, clients) })
	}
}

func benchSend(b *testing.B, clients int) {
	f := &fake{send: func(r SendRequest) (SendReply, error) {
		return SendReply{ID: "018f", ClientMessageID: "018f", Status: StatusQueued, Durable: true, Resolved: Resolved{Target: r.To, From: "live"}}, nil
	}}
	bus := event.New()
	defer bus.Close()
	s, err := New(Options{Outbound: f, Outbox: f, Peers: f, Features: f, Plugins: f, Overview: f, Reloader: f, Events: bus, Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	body := `{"to":"` + strings.Repeat("ab", 32) + `","message":"` + strings.Repeat("x", 200) + `"}`
	request := fmt.Sprintf("POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		n := b.N / clients
		if i < b.N%clients {
			n++
		}
		wg.Go(func() {
			c, err := net.Dial("unix", path)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			br := bufio.NewReader(c)
			for range n {
				io.WriteString(c, request)
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != http.StatusAccepted {
					b.Errorf("%v %v", resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s.Shutdown(b.Context())
	<-served
}
