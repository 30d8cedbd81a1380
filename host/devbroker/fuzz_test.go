package devbroker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
)

// FuzzInbound: whatever an authenticated client sends, the broker does not panic, the connection answers list_peers
// afterwards, and so does its neighbour. What may rightly end the client's own connection is left out: another hello, and
// what an admin says against itself.
func FuzzInbound(f *testing.F) {
	for _, s := range loadSeedFrames() {
		f.Add([]byte(s))
	}
	key := newTestKey()
	seed := Seed{Meshes: []SeedMesh{{MeshID: "mesh", Slug: "m", Members: []SeedMember{
		{MemberID: "member-a", DisplayName: "a", PublicKey: key.pub, Role: "admin"},
	}}}}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var env envelope
		if unmarshal(frame, &env) == nil {
			switch env.Type.S {
			case "hello", "session_hello", "disconnect", "ban": // these may close the socket by right
				return
			}
		}
		b, err := New(Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var socks []*websocket.Conn
		for i := range 2 {
			ws, _, err := websocket.Dial(ctx, "ws://b/ws", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: &http.Transport{DialContext: b.Dialer(), DisableKeepAlives: true}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			ws.SetReadLimit(-1)
			now := time.Now().UnixMilli()
			hello, _ := json.Marshal(obj{
				"type": "hello", "meshId": "mesh", "memberId": "member-a", "pubkey": key.pub, "sessionId": fmt.Sprint(i), "pid": i, "cwd": "/",
				"timestamp": now, "signature": key.sign(fmt.Sprintf("mesh|member-a|%s|%d", key.pub, now)),
			})
			if err := ws.Write(ctx, websocket.MessageText, hello); err != nil {
				t.Fatal(err)
			}
			socks = append(socks, ws)
		}
		if err := socks[0].Write(ctx, websocket.MessageText, frame); err != nil {
			t.Fatal(err)
		}
		for i, ws := range socks {
			if err := ws.Write(ctx, websocket.MessageText, []byte(`{"type":"list_peers","_reqId":"after the fuzz"}`)); err != nil {
				t.Fatal(err)
			}
			for {
				_, raw, err := ws.Read(ctx)
				if err != nil {
					t.Fatalf("socket %d after %q: %v", i, frame, err)
				}
				var got obj
				if err := json.Unmarshal(raw, &got); err != nil {
					t.Fatalf("the broker said %q: %v", raw, err)
				}
				if got["type"] == "peers_list" && got["_reqId"] == "after the fuzz" {
					break
				}
			}
		}
	})
}

// loadSeedFrames are one of each request.
func loadSeedFrames() []string {
	return []string{
		`{"type":"send","id":"1","client_message_id":"1","targetSpec":"*","priority":"now","nonce":"","ciphertext":"eA=="}`,
		`{"type":"send","targetSpec":"#t","nonce":"","ciphertext":"","mentions":["x"],"replyToId":"y","bodyVersion":2}`,
		`{"type":"client_ack","clientMessageId":"1","brokerMessageId":"2"}`,
		`{"type":"message_status","messageId":"AAAAAAAA","_reqId":{"a":[1]}}`,
		`{"type":"set_profile","avatar":"x","capabilities":["a"],"_reqId":"r"}`, `{"type":"set_stats","stats":{"messagesIn":1e309}}`,
		`{"type":"set_visible","visible":false,"_reqId":"r"}`, `{"type":"set_state","key":"k","value":{"a":1,"a":2}}`,
		`{"type":"get_state","key":"k"}`, `{"type":"list_state"}`, `{"type":"join_group","name":"x","role":"y"}`, `{"type":"leave_group","name":"x"}`,
		`{"type":"topic_create","name":"x"}`, `{"type":"topic_history","topic":"x","limit":-1}`, `{"type":"kick","all":true}`,
		`{"type":"unban","target":""}`, `{"type":"list_bans"}`, `[]`, `null`, `{`, "\x00",
	}
}

// FuzzSocket: whatever bytes arrive on a connection, before or after the upgrade, the connection ends when the client does
// and the broker goes on answering others.
func FuzzSocket(f *testing.F) {
	const upgrade = "GET /ws HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	for _, s := range []string{
		"", "GET / HTTP/1.1\r\n\r\n", "POST /hook/set-status HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{", upgrade,
		upgrade + "\x81\x82\x00\x00\x00\x00{}", upgrade + "\x01\x81\x00\x00\x00\x00{\x80\x81\x00\x00\x00\x00}", upgrade + "\x89\x80\x01\x02\x03\x04",
		upgrade + "\x88\x82\x00\x00\x00\x00\x03\xe8", upgrade + "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", upgrade + "\x81\x02{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := New(Options{Seed: GenerateSeed("m", "a")})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		nc, err := b.Dialer()(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		var reader sync.WaitGroup
		reader.Go(func() { _, _ = io.Copy(io.Discard, nc) }) // ends with nc
		_ = nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = nc.Write(raw) // the broker may hang up in the middle
		nc.Close()
		reader.Wait()
		hc := &http.Client{Transport: &http.Transport{DialContext: b.Dialer(), DisableKeepAlives: true}}
		resp, err := hc.Get("http://b/health")
		if err != nil {
			t.Fatalf("after %q: %v", raw, err)
		}
		resp.Body.Close()
	})
}
