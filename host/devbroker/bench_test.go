package devbroker

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// BenchmarkSend is one message's whole way: send, ack, push and client_ack over loopback TCP, clients in this process, 64
// sends in flight, 200-byte bodies, with and without a data file.
func BenchmarkSend(b *testing.B) {
	for _, data := range []bool{false, true} {
		b.Run(fmt.Sprintf("data=%v", data), func(b *testing.B) {
			o := Options{Seed: GenerateSeed("m", "a", "b")}
			if data {
				o.DataFile = filepath.Join(b.TempDir(), "data")
			}
			broker, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			defer broker.Close()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			done := make(chan error, 2)
			go func() { done <- broker.Serve(ctx, ln) }()
			from := benchClient(ctx, b, ln.Addr().String(), o.Seed.Meshes[0], 0)
			to := benchClient(ctx, b, ln.Addr().String(), o.Seed.Meshes[0], 1)
			go func() {
				for range b.N {
					f, err := readUntil(ctx, to, "push")
					if err == nil {
						err = to.Write(ctx, websocket.MessageText, fmt.Appendf(nil,
							`{"type":"client_ack","clientMessageId":%q,"brokerMessageId":%q}`, f.ClientID, f.MessageID))
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			body := strings.Repeat("A", 200)
			window := make(chan struct{}, 64)
			b.ResetTimer()
			go func() {
				for i := range b.N {
					window <- struct{}{}
					frame := fmt.Appendf(nil, `{"type":"send","id":"%d","client_message_id":"%d","targetSpec":%q,"priority":"next","nonce":"AA==","ciphertext":%q}`,
						i, i, o.Seed.Meshes[0].Members[1].PublicKey, body)
					if from.Write(ctx, websocket.MessageText, frame) != nil {
						return
					}
				}
			}()
			for range b.N {
				if _, err := readUntil(ctx, from, "ack"); err != nil {
					b.Fatal(err)
				}
				<-window
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

func benchClient(ctx context.Context, b *testing.B, addr string, m SeedMesh, i int) *websocket.Conn {
	ws, err := dialMember(ctx, addr, m, i, secretOf(b, m.Members[i]))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}
