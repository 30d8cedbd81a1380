package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

func send(id string) *wire.Send {
	return &wire.Send{ID: id, ClientMessageID: id, TargetSpec: strings.Repeat("a", 64), Priority: wire.PriorityNext, Nonce: "n", Ciphertext: "c"}
}

// inMesh runs a test against a fake broker, connected, in virtual time.
func inMesh(t *testing.T, b *fakeBroker, change func(*Options), test func(*testing.T, *Mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer startFake(t, b)()
		m := testMesh(t, b.dial, change)
		defer runMesh(m)()
		time.Sleep(time.Second)
		synctest.Wait()
		if !m.Member().Ready() {
			t.Fatalf("not connected: %+v", m.Member().State())
		}
		test(t, m)
	})
}

func TestSendOutcomes(t *testing.T) {
	cases := []struct {
		name, ack string
		want      SendResult
	}{
		{"accepted", `{"type":"ack","id":"%s","messageId":"M1","queued":true}`, SendResult{Outcome: Accepted, MessageID: "M1"}},
		{
			"rate", `{"type":"ack","id":"%s","messageId":"","queued":false,"error":"rate_limit: max 60 msg/min (burst 10) — slow down"}`,
			SendResult{Outcome: RateLimited, Rate: Rate{60, 10}, Text: "rate_limit: max 60 msg/min (burst 10) — slow down"},
		},
		{
			"nobody", `{"type":"ack","id":"%s","messageId":"","queued":false,"error":"no connected peer for target (x)"}`,
			SendResult{Outcome: NoPeer, Text: "no connected peer for target (x)"},
		},
		{
			"too large", `{"type":"ack","id":"%s","messageId":"","queued":false,"error":"payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"}`,
			SendResult{Outcome: Permanent, Text: "payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"},
		},
		{
			"blocked", `{"type":"ack","id":"%s","messageId":"","queued":false,"error":"blocked by recipient grants (sender lacks dm capability)"}`,
			SendResult{Outcome: Permanent, Text: "blocked by recipient grants (sender lacks dm capability)"},
		},
		{
			"other words", `{"type":"ack","id":"%s","messageId":"","queued":false,"error":"the moon is full"}`,
			SendResult{Outcome: Transient, Text: "the moon is full"},
		},
		{"error frame", `{"type":"error","code":"no_hello","message":"m","id":"%s"}`, SendResult{Outcome: Transient, Text: "no_hello: m"}},
		{
			"no message id", `{"type":"ack","id":"%s","messageId":"","queued":false}`,
			SendResult{Outcome: Unknown, Text: "ack without a messageId", Err: wire.ErrMalformed},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := &fakeBroker{frame: func(say func(string), _ int, f map[string]any) {
				say(`{"type":"ack","id":"somebody-else","messageId":"M0","queued":true}`)
				say(fmt.Sprintf(`{"type":"some_event","id":"%s"}`, f["id"])) // no answer to a send
				say(fmt.Sprintf(c.ack, f["id"]))
			}}
			inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
				if got := m.Member().Send(t.Context(), send("id1")); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			})
		})
	}
}

func TestRequestIsCorrelatedByReqIDElseByID(t *testing.T) {
	b := &fakeBroker{frame: func(say func(string), _ int, f map[string]any) {
		id := f["_reqId"].(string)
		switch f["type"] {
		case "get_state":
			say(`{"type":"state_result","key":"k","value":"stranger","_reqId":"nobody"}`)
			say(`{"type":"state_result","key":"k","value":1.50,"updatedBy":"a","updatedAt":"","_reqId":"` + id + `"}`)
		case "remember":
			say(`{"type":"memory_stored","id":"row7","_reqId":"` + id + `"}`)
		case "topic_join":
			say(`{"type":"error","code":"topic_not_found","message":"no","id":"` + id + `"}`)
		case "set_visible":
			say(`{"type":"ack","id":"` + id + `","messageId":"","queued":false,"_reqId":"` + id + `"}`)
		case "kick":
			say(`{"type":"error","code":"forbidden","message":"only owner","_reqId":"` + id + `"}`)
		}
	}}
	inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
		c := m.Member()
		raw, err := c.Request(t.Context(), "get_state", map[string]any{"key": "k"})
		if err != nil || !strings.Contains(string(raw), `"value":1.50`) {
			t.Errorf("get_state: %s, %v; want the value byte for byte", raw, err)
		}
		if raw, err := c.Request(t.Context(), "remember", jsontext.Value(`{"content":"x"}`)); err != nil || !strings.Contains(string(raw), "row7") {
			t.Errorf("remember: %s, %v", raw, err)
		}
		if _, err := c.Request(t.Context(), "set_visible", wire.SetVisible{Visible: true}); err != nil {
			t.Errorf("set_visible: %v", err)
		}
		var remote *RemoteError
		if _, err := c.Request(t.Context(), "topic_join", nil); !errors.As(err, &remote) || remote.Code != "topic_not_found" {
			t.Errorf("topic_join: %v, want the error by its id", err)
		}
		if _, err := c.Request(t.Context(), "kick", nil); !errors.As(err, &remote) || remote.Code != "forbidden" {
			t.Errorf("kick: %v", err)
		}
		begin := time.Now()
		if _, err := c.Request(t.Context(), "no_such_frame", nil); !errors.Is(err, ErrTimeout) || time.Since(begin) != RequestTimeout {
			t.Errorf("silence: %v after %v, want ErrTimeout after 5 s", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Request(ctx, "no_such_frame", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a shorter context gives %v", err)
		}
		for _, bad := range []any{jsontext.Value(`[]`), jsontext.Value(`{"a":1,"a":2}`), jsontext.Value(`{"type":"send"}`), jsontext.Value(`{`), jsontext.Value(`{}{}`)} {
			if _, err := c.Request(t.Context(), "x", bad); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("body %s gives %v, want ErrMalformed", bad, err)
			}
		}
	})
}

func TestUnansweredSendIsUnknownAfterFifteenSecondsAndALateAckIsTold(t *testing.T) {
	var mu sync.Mutex
	var late []string
	b := &fakeBroker{frame: func(say func(string), _ int, f map[string]any) {
		time.AfterFunc(20*time.Second, func() {
			say(fmt.Sprintf(`{"type":"ack","id":"%s","messageId":"","queued":false}`, f["id"])) // tells nothing
			say(fmt.Sprintf(`{"type":"ack","id":"%s","messageId":"M1","queued":true}`, f["id"]))
			say(`{"type":"ack","id":"scheduled-by-the-broker","messageId":"M2","queued":true}`)
		})
	}}
	inMesh(t, b, func(o *Options) {
		o.Handlers.OnLateAck = func(_ *Conn, id, messageID string) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, id+"="+messageID)
		}
	}, func(t *testing.T, m *Mesh) {
		begin := time.Now()
		got := m.Member().Send(t.Context(), send("id1"))
		if got.Outcome != Unknown || !errors.Is(got.Err, ErrTimeout) || time.Since(begin) != SendTimeout {
			t.Errorf("got %+v after %v", got, time.Since(begin))
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(late, []string{"id1=M1"}) {
			t.Errorf("late acks %v, want that of id1 alone", late)
		}
	})
}

func TestConnectionLostMakesWrittenSendsUnknownAndLaterOnesNotSent(t *testing.T) {
	for _, c := range []struct {
		code     int
		poisoned bool
	}{{0, false}, {1001, false}, {1009, true}, {1007, true}} {
		b := &fakeBroker{}
		inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
			results := make(chan SendResult, 3)
			m.Member().SendAsync(send("a"), func(r SendResult) { results <- r })
			m.Member().SendAsync(send("a"), func(r SendResult) { results <- r })
			if r := <-results; r.Outcome != NotSent || !errors.Is(r.Err, ErrInFlight) {
				t.Errorf("a second send of the same id: %+v", r)
			}
			asked := make(chan error, 1)
			go func() { _, err := m.Member().Request(t.Context(), "list_peers", nil); asked <- err }()
			synctest.Wait()
			go b.cut(wsCode(c.code), "x")
			if r := <-results; r.Outcome != Unknown || !errors.Is(r.Err, ErrConnectionLost) || r.Poisoned != c.poisoned {
				t.Errorf("code %d: %+v", c.code, r)
			}
			if err := <-asked; !errors.Is(err, ErrConnectionLost) {
				t.Errorf("request: %v", err)
			}
			m.Member().SendAsync(send("b"), func(r SendResult) { results <- r })
			if r := <-results; r.Outcome != NotSent || !errors.Is(r.Err, ErrNotConnected) {
				t.Errorf("a send while down: %+v", r)
			}
			if _, err := m.Member().Request(t.Context(), "x", nil); !errors.Is(err, ErrNotConnected) {
				t.Errorf("a request while down: %v", err)
			}
			if err := m.Member().Notify(t.Context(), "set_status", wire.SetStatus{Status: "idle"}); !errors.Is(err, ErrNotConnected) {
				t.Errorf("a notification while down: %v", err)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if s := m.Member().State(); s.Phase != link.Ready || s.Generation != 2 || s.PresenceID() != "p2" {
				t.Errorf("state %+v, want ready again", s)
			}
		})
	}
}

func TestOversizedSendIsPermanentAndNeverWritten(t *testing.T) {
	b := &fakeBroker{frame: func(func(string), int, map[string]any) { t.Error("something was written") }}
	inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
		s := send("a")
		s.Ciphertext = strings.Repeat("x", wire.MaxFrame)
		if r := m.Member().Send(t.Context(), s); r.Outcome != Permanent || !errors.Is(r.Err, wire.ErrTooLarge) {
			t.Errorf("got %+v", r)
		}
	})
}

func TestPushesComeInOrderInBatchesAndAcksGoBack(t *testing.T) {
	const n = 500
	var acked chan string // made in the bubble, as every channel that a test waits on
	var mu sync.Mutex
	var got []string
	var calls int
	var gate chan struct{}
	b := &fakeBroker{frame: func(_ func(string), _ int, f map[string]any) {
		if f["type"] == "client_ack" {
			acked <- f["clientMessageId"].(string) + "/" + f["brokerMessageId"].(string)
		}
	}}
	inMesh(t, b, func(o *Options) {
		acked, gate = make(chan string, n), make(chan struct{})
		o.Handlers.OnPush = func(c *Conn, pushes []*Push) {
			<-gate
			mu.Lock()
			calls++
			mu.Unlock()
			for _, p := range pushes {
				got = append(got, p.MessageID)
				c.ClientAck(p.ClientMessageID, p.MessageID)
			}
		}
	}, func(t *testing.T, m *Mesh) {
		b.push(`{"type":"push","messageId":7}`) // costs itself only
		for i := range n {
			b.push(fmt.Sprintf(`{"type":"push","messageId":"m%d","client_message_id":"c%d","senderPubkey":"s","nonce":"","ciphertext":""}`, i, i))
		}
		synctest.Wait()
		close(gate)
		for i := range n {
			if a, want := <-acked, fmt.Sprintf("c%d/m%d", i, i); a != want {
				t.Fatalf("ack %s, want %s", a, want)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(got) != n || calls > 4 {
			t.Errorf("%d pushes in %d calls, want %d in a few", len(got), calls, n)
		}
	})
}

func TestAFullQueueDropsPushesAndTheReaderGoesOn(t *testing.T) {
	var gate chan struct{}
	var mu sync.Mutex
	dropped := 0
	b := &fakeBroker{frame: func(say func(string), _ int, f map[string]any) {
		say(fmt.Sprintf(`{"type":"ack","id":"%s","messageId":"M","queued":true}`, f["id"]))
	}}
	inMesh(t, b, func(o *Options) {
		gate = make(chan struct{})
		o.Handlers.OnPush = func(*Conn, []*Push) { <-gate }
		o.Handlers.OnDropped = func(_ *Conn, kind string, n int) {
			mu.Lock()
			defer mu.Unlock()
			dropped += n
		}
	}, func(t *testing.T, m *Mesh) {
		defer close(gate)
		for i := range maxQueuedFrame + 100 {
			b.push(fmt.Sprintf(`{"type":"push","messageId":"m%d"}`, i))
		}
		if r := m.Member().Send(t.Context(), send("a")); r.Outcome != Accepted {
			t.Errorf("a send behind a stuck consumer: %+v", r)
		}
		mu.Lock()
		defer mu.Unlock()
		if pushes, _ := m.Member().Dropped(); dropped < 90 || dropped > 100 || uint64(dropped) != pushes {
			t.Errorf("%d drops told, %d counted, want 90 to 100", dropped, pushes)
		}
	})
}

func TestAcksOfStoredPushesSurviveALostConnection(t *testing.T) {
	var acked chan string
	b := &fakeBroker{frame: func(_ func(string), socket int, f map[string]any) {
		acked <- fmt.Sprintf("%d:%v", socket, f["brokerMessageId"])
	}}
	inMesh(t, b, func(*Options) { acked = make(chan string, 4) }, func(t *testing.T, m *Mesh) {
		b.cut(0, "")
		synctest.Wait()
		m.Member().ClientAck("", "M1")
		m.Member().ClientAck("", "")
		m.Member().ClientAck("", strings.Repeat("x", 70_000)) // no frame is that long; those behind it leave all the same
		m.Member().ClientAck("", "M2")
		if got := <-acked; got != "2:M1" {
			t.Errorf("ack %s, want M1 on the second socket", got)
		}
		if got := <-acked; got != "2:M2" {
			t.Errorf("ack %s, want M2 on the second socket", got)
		}
	})
}

// Promise 6: one goroutine acks for all meshes. A broker that has stopped reading must not hold it up.
func TestAckingNeverWaitsForASocketThatIsNotRead(t *testing.T) {
	var gate chan struct{}
	acked := make(map[any]bool)
	b := &fakeBroker{frame: func(_ func(string), _ int, f map[string]any) {
		<-gate
		if f["type"] == "client_ack" {
			acked[f["brokerMessageId"]] = true
		}
	}}
	inMesh(t, b, func(*Options) { gate = make(chan struct{}) }, func(t *testing.T, m *Mesh) {
		var wg sync.WaitGroup
		for range 40 { // twice what the link collects
			wg.Go(func() {
				_ = m.Member().Notify(t.Context(), "set_state", jsontext.Value(`{"key":"k","value":"`+strings.Repeat("x", 60_000)+`"}`))
			})
		}
		synctest.Wait()
		begin := time.Now()
		m.Member().ClientAck("", "M1")
		m.Member().ClientAck("", "M2")
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		close(gate)
		wg.Wait()
		synctest.Wait()
		if !acked["M1"] || !acked["M2"] {
			t.Errorf("once it reads, it has got %v", acked)
		}
	})
}

// Promise 9: what was journaled is acked before the connection says 1000.
func TestAcksLeaveBeforeTheConnectionIsClosed(t *testing.T) {
	const n = 3000
	acked := 0
	b := &fakeBroker{frame: func(_ func(string), _ int, f map[string]any) { acked++ }}
	inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
		for i := range n {
			m.Member().ClientAck("", fmt.Sprint("M", i))
		}
	})
	if acked != n {
		t.Errorf("%d of %d acks came before the close", acked, n)
	}
}

func TestUnsolicitedFramesReachTheHook(t *testing.T) {
	var got chan string
	b := &fakeBroker{}
	inMesh(t, b, func(o *Options) {
		got = make(chan string, 4)
		o.Handlers.OnFrame = func(_ *Conn, f Frame) { got <- f.Type + string(f.Raw) }
	}, func(t *testing.T, m *Mesh) {
		for _, f := range []string{`{"type":"state_change","key":"k","value":12345678901234567890,"updatedBy":"a"}`, `{"type":"brand_new","x":1}`} {
			b.push(f)
			if g := <-got; !strings.HasSuffix(g, f) {
				t.Errorf("got %s, want %s", g, f)
			}
		}
	})
}
