package link

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/wire"
)

func TestFirstConnectionThatFailsIsJustAnotherReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{refuse: errors.New("connection refused")}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, nil)
		stop := running(l)
		defer stop()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		var delays []time.Duration
		for _, s := range r.phases(Backoff) {
			delays = append(delays, s.RetryAt.Sub(s.Since).Round(time.Millisecond))
		}
		want := []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
		if len(delays) < len(want) || !slices.Equal(delays[:len(want)], want) {
			t.Errorf("delays with the largest jitter are %v, want them to begin with %v", delays, want)
		}
		if s := l.State(); !strings.Contains(s.LastError, "connection refused") {
			t.Errorf("the last error is %q, want it to name the cause", s.LastError)
		}
	})
}

func TestJitterIsFull(t *testing.T) {
	for _, random := range []float64{0, 0.25, 0.999} {
		p := policy{random: func() float64 { return random }, attempts: 9}
		if got, want := p.backoff(), time.Duration(random*float64(30*time.Second)); got != want {
			t.Errorf("with %v the delay is %v, want %v of the cap", random, got, want)
		}
	}
}

func TestFramesComeInOrderAndNothingIsWrittenBeforeTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan string, 3)
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			hello, _ := w.read()
			got <- hello
			w.write(`{"type":"push","messageId":"early"}`)
			time.Sleep(time.Second)
			w.write(ackFrame)
			w.write(`{"type":"push","messageId":"late"}`)
			frame, _ := w.read()
			got <- frame
			w.drain()
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, nil)
		stop := running(l)
		defer stop()
		time.Sleep(500 * time.Millisecond)
		if err := l.Send(t.Context(), []byte(`{"type":"x"}`)); !errors.Is(err, ErrNotReady) {
			t.Errorf("before the ack Send says %v, want ErrNotReady", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := l.Send(t.Context(), []byte(`{"type":"after"}`)); err != nil {
			t.Fatal(err)
		}
		if h, f := <-got, <-got; h != `{"type":"hello"}` || f != `{"type":"after"}` {
			t.Errorf("the broker saw %s and %s", h, f)
		}
		if want := []string{`{"type":"push","messageId":"early"}`, `{"type":"push","messageId":"late"}`}; !slices.Equal(r.frames, want) {
			t.Errorf("frames %v, want %v", r.frames, want)
		}
		if s := l.State(); s.Phase != Ready || s.Ack.PresenceID != "p1" || s.Generation != 1 {
			t.Errorf("state %+v, want ready with presence p1 on socket 1", s)
		}
		if err := l.Send(t.Context(), make([]byte, wire.MaxFrame+1)); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("an oversized frame gives %v, want ErrTooLarge", err)
		}
	})
}

// What any peer or client of ours left with the broker, and the broker hands on, costs neither the frame nor the connection.
func TestOddFramesOfABrokerCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(`{"type":"hello_ack","presenceId":"p1","memberDisplayName":"a","restored":true,"restoredGroups":["dev"]}`)
			for range 1000 {
				w.write(`{"type":"broken"`)
			}
			w.write(`{"type":"peers_list","peers":[{"pubkey":"k","hostname":"\ud800 \ud83d\ude00"}]}`)
			w.drain()
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		var logged bytes.Buffer
		l := testLink(t, b, r, func(o *Options) { o.Logger = hclog.New(&hclog.LoggerOptions{Output: &logged}) })
		stop := running(l)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := l.State(); s.Phase != Ready || s.PresenceID() != "p1" {
			t.Errorf("state %+v, want ready as p1", s)
		}
		if want := []string{`{"type":"peers_list","peers":[{"pubkey":"k","hostname":"\ufffd \ud83d\ude00"}]}`}; !slices.Equal(r.frames, want) {
			t.Errorf("frames %q, want %q", r.frames, want)
		}
		stop()
		if n := strings.Count(logged.String(), "can't be read"); n < 1 || n > 11 {
			t.Errorf("%d lines about a thousand broken frames, want a few", n)
		}
	})
}

func TestCloseIsOrderly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		code := make(chan websocket.StatusCode, 1)
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			_, err := w.read()
			code <- websocket.CloseStatus(err)
		}}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, nil)
		stop := running(l)
		time.Sleep(time.Second)
		stop()
		if got := <-code; got != websocket.StatusNormalClosure {
			t.Errorf("the broker saw close code %d, want 1000", got)
		}
		if s := l.State(); s.Phase != Stopped {
			t.Errorf("phase %s, want stopped", s.Phase)
		}
	})
}

func TestCloseToADeadPeerTakesASecondOrTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			<-release // never reads again
		}}
		defer startBroker(t, b)()
		defer close(release)
		l := testLink(t, b, &recorder{}, nil)
		stop := running(l)
		time.Sleep(time.Second)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("closing took %v", took)
		}
	})
}

func TestWatchdogRecyclesASocketWithoutBrokerPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(n int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			if n == 1 {
				go func() {
					time.Sleep(20 * time.Second)
					_ = w.ping(time.Second)
					for range 200 { // other traffic is no proof of life
						time.Sleep(time.Second)
						w.write(`{"type":"state_change","key":"k","value":1,"updatedBy":"x"}`)
					}
				}()
			}
			w.drain()
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, nil)
		begin := time.Now()
		stop := running(l)
		defer stop()
		time.Sleep(80 * time.Second)
		if n := b.count(); n != 1 {
			t.Fatalf("%d dials after 80 s, want 1: the ping at 20 s is good until 85 s", n)
		}
		time.Sleep(200 * time.Second)
		downs := r.phases(Backoff)
		if len(downs) == 0 || downs[0].Reason != reasonWatchdog {
			t.Fatalf("back-offs %+v, want the first by the watchdog", downs)
		}
		if at := downs[0].Since.Sub(begin); at < 85*time.Second || at > 88*time.Second {
			t.Errorf("recycled after %v, want 85 s", at)
		}
	})
}

func TestHelloTimeoutIsFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) { w.drain() }}
		defer startBroker(t, b)()
		r := &recorder{}
		begin := time.Now()
		defer running(testLink(t, b, r, nil))()
		time.Sleep(20 * time.Second)
		downs := r.phases(Backoff)
		if len(downs) == 0 || downs[0].Reason != "hello_timeout" || downs[0].Since.Sub(begin).Round(time.Second) != 15*time.Second {
			t.Errorf("back-offs %+v, want hello_timeout at 15 s", downs)
		}
	})
}

func TestRejections(t *testing.T) {
	cases := []struct {
		name, frame string
		code        websocket.StatusCode
		text        string
		session     bool
		phase       Phase
		reason      string
		min, max    time.Duration
	}{
		{"banned at hello", `{"type":"error","code":"revoked","message":"removed"}`, 4002, "banned", false, Suspended, "banned", 0, 0},
		{"bad signature", `{"type":"error","code":"bad_signature","message":"x"}`, 1008, "bad_signature", false, Suspended, "bad_signature", 0, 0},
		{"unauthorized", `{"type":"error","code":"unauthorized","message":"x"}`, 1008, "unauthorized", false, Suspended, "unauthorized", 0, 0},
		{"malformed, error frame lost", "", 1008, "malformed", false, Suspended, "malformed", 0, 0},
		{"kicked", "", 4001, "kicked", false, Suspended, "kicked", 0, 0},
		{"stale kick", "", 4001, "kicked_stale", false, Suspended, "kicked", 0, 0},
		{"banned", "", 4002, "banned", false, Suspended, "banned", 0, 0},
		{"capacity", `{"type":"error","code":"capacity","message":"x"}`, 1008, "capacity", false, Backoff, "capacity", 2 * time.Minute, 10 * time.Minute},
		{"shutdown", "", 1001, "shutting down", false, Backoff, "shutting down", 0, time.Second},
		{"disconnected", "", 1000, "disconnected", false, Backoff, "disconnected", 0, time.Second},
		{"restart", "", 1012, "", false, Backoff, "close_1012", 5 * time.Second, 5 * time.Second},
		{"old broker", `{"type":"error","code":"no_hello","message":"must send hello first"}`, 0, "", true, Suspended, reasonNoSession, 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &fakeBroker{serve: func(_ int, conn *websocket.Conn, w *peer) {
					_, _ = w.read()
					if c.frame != "" {
						w.write(c.frame)
					}
					if c.code != 0 {
						_ = conn.Close(c.code, c.text)
					}
					w.drain()
				}}
				defer startBroker(t, b)()
				r := &recorder{}
				l := testLink(t, b, r, func(o *Options) { o.Session = c.session })
				stop := running(l)
				defer stop()
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				s := l.State()
				if s.Phase != c.phase || s.Reason != c.reason {
					t.Fatalf("state %+v, want %s for %s", s, c.phase, c.reason)
				}
				if s.Phase == Backoff {
					if d := s.RetryAt.Sub(s.Since); d < c.min || d > c.max {
						t.Errorf("retry in %v, want %v to %v", d, c.min, c.max)
					}
					return
				}
				time.Sleep(7 * 24 * time.Hour)
				if n := b.count(); n != 1 {
					t.Fatalf("%d dials in a week of suspension, want 1", n)
				}
				l.Resume()
				synctest.Wait()
				if n := b.count(); n != 2 {
					t.Errorf("%d dials after Resume, want 2", n)
				}
			})
		})
	}
}

func TestTwinIsSuspendedForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(_ int, conn *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			time.Sleep(10 * time.Second)
			_ = conn.Close(1000, "session_replaced")
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, func(o *Options) { o.Random = func() float64 { return 0 } })
		defer running(l)()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := l.State(); s.Phase != Suspended || s.Reason != reasonTwin || b.count() != 2 {
			t.Fatalf("state %+v after %d dials, want suspended as a twin after 2", s, b.count())
		} else if !strings.Contains(s.LastError, "data_dir") {
			t.Errorf("%q doesn't say what to look for", s.LastError)
		}
		time.Sleep(10 * time.Minute)
		if n := b.count(); n < 3 {
			t.Errorf("%d dials after ten minutes, want another try", n)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{http: func(n int, w http.ResponseWriter) bool {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, nil)
		defer running(l)()
		time.Sleep(119 * time.Second)
		if s := l.State(); b.count() != 1 || s.Reason != "http_503" {
			t.Errorf("%d dials before Retry-After, state %+v", b.count(), s)
		}
		time.Sleep(3 * time.Second)
		if b.count() != 2 {
			t.Errorf("%d dials after Retry-After, want 2", b.count())
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{http: func(_ int, w http.ResponseWriter) bool {
			w.Header().Set("Location", "ws://127.0.0.1:7900/elsewhere")
			w.WriteHeader(http.StatusFound)
			return true
		}}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, nil)
		defer running(l)()
		time.Sleep(500 * time.Millisecond)
		if s := l.State(); b.count() != 1 || s.Reason != "http_302" {
			t.Errorf("%d requests, state %+v, want one refused redirect", b.count(), s)
		}
	})
}

func TestPlainSocketsStayOnThisMachine(t *testing.T) {
	for url, ok := range map[string]bool{
		"ws://127.0.0.1:1/ws": true, "ws://localhost/ws": true, "ws://[::1]:1/ws": true, "ws://localhost./ws": true, "ws://[::ffff:127.0.0.1]/ws": true, "wss://broker.example/ws": true,
		"ws://broker.example/ws": false, "ws://10.0.0.1/ws": false, "http://127.0.0.1/ws": false, "/ws": false, "wss://u:p@h/ws": false,
	} {
		if err := CheckURL(url, false); (err == nil) != ok {
			t.Errorf("CheckURL(%q) = %v", url, err)
		}
	}
	if err := CheckURL("ws://broker.example/ws", true); err != nil {
		t.Errorf("allowed insecure remote: %v", err)
	}
	if err := CheckURL("ws://broker.example/ws", false); !errors.Is(err, ErrInsecure) {
		t.Errorf("got %v, want ErrInsecure", err)
	}
}

func TestRunEndsWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{}
		b.conns, b.gone = nil, make(chan struct{}) // nobody accepts
		l := testLink(t, b, &recorder{}, func(o *Options) {
			o.Dial = func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		})
		stop := running(l)
		time.Sleep(time.Second)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > 0 {
			t.Errorf("stopping took %v", took)
		}
	})
}
