package devbroker

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
)

// hook posts to /hook/set-status.
func (w *world) hook(t *testing.T, body string) obj {
	t.Helper()
	status, raw := w.post(t, "/hook/set-status", body)
	var got obj
	if err := json.Unmarshal(raw, &got); err != nil || status != http.StatusOK {
		t.Fatalf("hook: status %d, %s, %v", status, raw, err)
	}
	return got
}

func (w *world) post(t *testing.T, path, body string) (int, []byte) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DialContext: w.b.Dialer(), DisableKeepAlives: true}}
	resp, err := hc.Post("http://broker"+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, raw
}

func TestSendRateIsPerMemberWithTheReferenceText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{SendBurst: 10, SendPerMinute: 60})
		w.join("b")
		one := w.join("a")
		two := connect(t, w.b)
		second := w.hello("a")
		second["sessionId"] = "another"
		two.ask(second)
		for i := range 10 {
			c := []*client{one, two}[i%2]
			if got := c.ask(dm(w.keys["b"], "x")); got[len(got)-1]["queued"] != true {
				t.Fatalf("send %d refused: %v", i, got)
			}
		}
		const text = "rate_limit: max 60 msg/min (burst 10) — slow down"
		wantFrames(t, "the eleventh", one.ask(dm(w.keys["b"], "y")), "ack:"+text)
		time.Sleep(time.Second)
		wantFrames(t, "a second later", two.ask(dm(w.keys["b"], "z")), "ack")
		wantFrames(t, "and again", one.ask(dm(w.keys["b"], "y")), "ack:"+text)
	})
}

func TestCapacityCountsLeasesAndRefusesEvenAReattach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Capacity: 2})
		w.join("a")
		b := w.join("b")
		b.hang()
		for _, name := range []string{"c", "b"} {
			c := connect(t, w.b)
			wantFrames(t, name, c.ask(w.hello(name)), "error:capacity")
			if code, reason := c.closed(); code != 1008 || reason != "capacity" {
				t.Errorf("%s closed with %d %q", name, code, reason)
			}
		}
		time.Sleep(graceLease + time.Second)
		w.join("c")
	})
}

func TestAnyOtherPathLosesItsConnectionWithoutAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		for _, path := range []string{"/", "/ws/", "/ws?x=1", "/WS", "/hook/set-status", "/health"} {
			nc, err := w.b.Dialer()(context.Background(), "tcp", "broker")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = io.WriteString(nc, "GET "+path+" HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
					"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
			}()
			if got, err := io.ReadAll(nc); err != nil || len(got) != 0 {
				t.Errorf("%s answered %q, %v", path, got, err)
			}
			nc.Close()
		}
	})
}

func TestHealthAndHookAnswerOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		hc := &http.Client{Transport: &http.Transport{DialContext: w.b.Dialer(), DisableKeepAlives: true}}
		resp, err := hc.Get("http://broker/health")
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(raw), `"status":"ok"`) {
			t.Errorf("health: %d %s", resp.StatusCode, raw)
		}
		if got := w.hook(t, `{}`); got["error"] != "cwd and status required" || got["ok"] != false {
			t.Errorf("empty hook: %v", got)
		}
		if got := w.hook(t, `{"cwd":"/b","pid":1,"status":"dnd"}`); got["pending"] != true {
			t.Errorf("hook for nobody: %v", got)
		}
		b := w.join("b")
		peers := b.ask(obj{"type": "list_peers"})[0]["peers"].([]any)
		if got := peers[0].(obj)["status"]; got != "dnd" {
			t.Errorf("the pending status was not applied: %v", got)
		}
		for range 40 {
			if status, _ := w.post(t, "/hook/set-status", `{"cwd":"/x","pid":9,"status":"idle"}`); status == http.StatusTooManyRequests {
				return
			}
		}
		t.Error("forty hooks at once were not rate limited")
	})
}

func TestAFrameOfSixteenMiBIsTakenAndALongerOneCutsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		const head, tail = `{"type":"set_state","key":"k","value":"`, `"}`
		a.write(head + strings.Repeat("v", maxFrame-len(head)-len(tail)) + tail)
		got := b.take()
		if len(got) != 1 || len(got[0]["value"].(string)) != maxFrame-len(head)-len(tail) {
			t.Fatalf("b heard %d frames", len(got))
		}
		_ = a.ws.Write(context.Background(), websocket.MessageText, []byte(strings.Repeat(" ", maxFrame+1)))
		if code, _ := a.closed(); code != 1006 {
			t.Errorf("a longer frame: code %d", code)
		}
	})
}

func TestASlowClientIsCutOffAndStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, c := w.join("a"), w.join("c")
		nc, err := w.b.Dialer()(context.Background(), "tcp", "broker")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		deaf, _, err := websocket.Dial(context.Background(), "ws://broker/ws", &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: &http.Transport{
				DialContext:       func(context.Context, string, string) (net.Conn, error) { return nc, nil },
				DisableKeepAlives: true,
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := json.Marshal(w.hello("b"))
		if err := deaf.Write(context.Background(), websocket.MessageText, raw); err != nil {
			t.Fatal(err)
		}
		value := strings.Repeat("v", 1<<20)
		for i := range 40 {
			a.send(obj{"type": "set_state", "key": "k", "value": value, "n": i})
		}
		if got := c.take(); len(got) < 40 {
			t.Errorf("c got %d of 40 while b did not read", len(got))
		}
		if _, err := io.ReadAll(nc); err != nil {
			t.Errorf("the slow client's connection: %v", err)
		}
		if got := a.ask(obj{"type": "list_peers"}); len(got) == 0 {
			t.Error("a is stalled")
		}
	})
}

func TestABacklogLargerThanTheSocketsBufferArrivesWholeAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		b.send(obj{"type": "set_status", "status": "dnd"})
		b.take()
		const n = 600
		body := strings.Repeat("A", 48_000)
		for i := range n {
			f := dm(w.keys["b"], jsNumber(float64(i)))
			f["ciphertext"] = body
			a.send(f)
		}
		a.take()
		b.send(obj{"type": "set_status", "status": "idle"})
		b.take()
		w.hook(t, `{"cwd":"/b","pid":1,"status":"idle"}`)
		got := b.take()
		if len(got) != n {
			t.Fatalf("%d of %d arrived", len(got), n)
		}
		for i, f := range got {
			if f["client_message_id"] != jsNumber(float64(i)) {
				t.Fatalf("position %d holds %v", i, f["client_message_id"])
			}
		}
	})
}

func TestWhatTheBrokerCantUseIsMetWithSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		a.take()
		for _, raw := range []string{
			`{nope`, `null`, `[]`, `5`, `"x"`, `{}`, `{"type":5}`, `{"type":"bogus"}`, `{"type":"send"}`, "\xff\xfe",
			`{"type":"send","targetSpec":5,"nonce":"","ciphertext":""}`, `{"type":"send","targetSpec":"*","nonce":"","ciphertext":7}`,
			`{"type":"set_state","key":"k"}`, `{"type":"set_state","value":1}`, `{"type":"get_state"}`, `{"type":"set_status","status":"x"}`,
			`{"type":"set_visible"}`, `{"type":"join_group"}`, `{"type":"message_status"}`, `{"type":"client_ack"}`,
			strings.Repeat("[", 20_000),
		} {
			a.write(raw)
			if got := append(a.take(), b.take()...); len(got) != 0 {
				t.Errorf("%.60s was answered: %v", raw, got)
			}
		}
		wantFrames(t, "still there", a.ask(obj{"type": "list_peers"}), "peers_list")
	})
}
