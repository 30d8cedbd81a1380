package devbroker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
)

// obj is a JSON object.
type obj = map[string]any

// client is a WebSocket client of a broker in the same synctest bubble.
type client struct {
	t  *testing.T
	ws *websocket.Conn
	wg sync.WaitGroup

	mu     sync.Mutex
	frames []obj
	pings  int
	code   int // 0 while open; 1006 for a cut connection
	reason string
}

func connect(t *testing.T, b *Broker) *client {
	t.Helper()
	c := &client{t: t}
	ws, _, err := websocket.Dial(context.Background(), "ws://broker/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: b.Dialer(), DisableKeepAlives: true}},
		OnPingReceived: func(context.Context, []byte) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.pings++
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	c.ws = ws
	c.wg.Go(c.read)
	t.Cleanup(func() {
		_ = ws.CloseNow()
		c.wg.Wait()
	})
	return c
}

func (c *client) read() {
	for {
		_, data, err := c.ws.Read(context.Background())
		c.mu.Lock()
		if err != nil {
			c.code = 1006
			var ce websocket.CloseError
			if errors.As(err, &ce) {
				c.code, c.reason = int(ce.Code), ce.Reason
			}
			c.mu.Unlock()
			return
		}
		var f obj
		if err := json.Unmarshal(data, &f); err != nil {
			f = obj{"unreadable": string(data)}
		}
		c.frames = append(c.frames, f)
		c.mu.Unlock()
	}
}

// take returns what arrived since the last call.
func (c *client) take() []obj {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frames
	c.frames = nil
	return f
}

func (c *client) closed() (code int, reason string) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code, c.reason
}

func (c *client) pingCount() int {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pings
}

func (c *client) send(f obj) {
	c.t.Helper()
	raw, err := json.Marshal(f)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(raw))
}

func (c *client) write(raw string) {
	c.t.Helper()
	if err := c.ws.Write(context.Background(), websocket.MessageText, []byte(raw)); err != nil {
		c.t.Errorf("write: %v", err)
	}
}

// ask sends a request and returns the frames that came.
func (c *client) ask(f obj) []obj {
	c.t.Helper()
	c.send(f)
	return c.take()
}

// hang ends the connection as a lost network does.
func (c *client) hang() {
	_ = c.ws.CloseNow()
	c.wg.Wait()
	synctest.Wait()
}

// world is a broker with one mesh of a, b and c, in a bubble.
type world struct {
	t    *testing.T
	b    *Broker
	mesh SeedMesh
	keys map[string]testKey // by display name
}

// newWorld starts a broker; o may name what differs from the zero Options.
func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{t: t, keys: map[string]testKey{}}
	w.mesh = SeedMesh{MeshID: newID(), Slug: "m"}
	for _, name := range []string{"a", "b", "c"} {
		k := newTestKey()
		w.keys[name] = k
		w.mesh.Members = append(w.mesh.Members, SeedMember{MemberID: "member-" + name, DisplayName: name, PublicKey: k.pub, Role: "member"})
	}
	w.mesh.Members[0].Role = "admin"
	w.open(o)
	return w
}

// open starts the broker of w, or the next one after an Abort.
func (w *world) open(o Options) {
	w.t.Helper()
	o.Seed = Seed{Meshes: []SeedMesh{w.mesh}}
	b, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.b = b
	w.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) hello(name string) obj {
	k, now := w.keys[name], time.Now().UnixMilli()
	return obj{
		"type": "hello", "meshId": w.mesh.MeshID, "memberId": "member-" + name, "pubkey": k.pub, "sessionId": "sid-" + name,
		"pid": 1, "cwd": "/" + name, "timestamp": now,
		"signature": k.sign(fmt.Sprintf("%s|member-%s|%s|%d", w.mesh.MeshID, name, k.pub, now)),
	}
}

// join connects a member and says hello.
func (w *world) join(name string) *client {
	w.t.Helper()
	c := connect(w.t, w.b)
	if got := c.ask(w.hello(name)); len(got) == 0 || got[0]["type"] != "hello_ack" {
		w.t.Fatalf("hello of %s: %v", name, got)
	}
	return c
}

func (w *world) sessionHello(name string, session testKey, change ...func(obj)) obj {
	k, now := w.keys[name], time.Now().UnixMilli()
	exp := now + 3_600_000
	f := obj{
		"type": "session_hello", "meshId": w.mesh.MeshID, "parentMemberId": "member-" + name, "parentMemberPubkey": k.pub,
		"sessionPubkey": session.pub, "sessionId": "sid-" + session.pub[:8], "pid": 2, "cwd": "/s", "timestamp": now,
		"parentAttestation": obj{
			"sessionPubkey": session.pub, "parentMemberPubkey": k.pub, "expiresAt": exp,
			"signature": k.sign(fmt.Sprintf("claudemesh-session-attest|%s|%s|%d", k.pub, session.pub, exp)),
		},
		"signature": session.sign(fmt.Sprintf("claudemesh-session-hello|%s|%s|%s|%d", w.mesh.MeshID, k.pub, session.pub, now)),
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func dm(to testKey, id string) obj {
	return obj{"type": "send", "id": id, "client_message_id": id, "targetSpec": to.pub, "priority": "next", "nonce": "bm9uY2U=", "ciphertext": "Ym9keQ=="}
}

// summary is the frames' types, with what tells them apart.
func summary(frames []obj) string {
	var out []string
	for _, f := range frames {
		s := fmt.Sprint(f["type"])
		for _, k := range []string{"event", "client_message_id", "error", "code"} {
			if f[k] != nil {
				s += ":" + fmt.Sprint(f[k])
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func wantFrames(t *testing.T, what string, got []obj, want string) {
	t.Helper()
	if s := summary(got); s != want {
		t.Errorf("%s: got %q, want %q", what, s, want)
	}
}

func secretOf(t testing.TB, m SeedMember) testKey {
	t.Helper()
	raw, err := hex.DecodeString(m.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{m.PublicKey, raw}
}

// dialMember connects member i over TCP and says hello.
func dialMember(ctx context.Context, addr string, m SeedMesh, i int, key testKey) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws", nil)
	if err != nil {
		return nil, err
	}
	p, now := m.Members[i], time.Now().UnixMilli()
	raw, err := json.Marshal(obj{
		"type": "hello", "meshId": m.MeshID, "memberId": p.MemberID, "pubkey": p.PublicKey, "sessionId": p.MemberID, "pid": i, "cwd": "/",
		"timestamp": now, "signature": key.sign(fmt.Sprintf("%s|%s|%s|%d", m.MeshID, p.MemberID, p.PublicKey, now)),
	})
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, raw)
	}
	if err == nil {
		_, err = readUntil(ctx, ws, "hello_ack")
	}
	if err != nil {
		return nil, errors.Join(err, ws.CloseNow())
	}
	return ws, nil
}

// seen is what tests over TCP look at in a frame.
type seen struct {
	Type      string `json:"type"`
	MessageID string `json:"messageId"`
	ClientID  string `json:"client_message_id"`
	Subtype   string `json:"subtype"`
}

// readUntil reads up to a frame of type want, system events aside; one of a type in bad is an error.
func readUntil(ctx context.Context, ws *websocket.Conn, want string, bad ...string) (seen, error) {
	for {
		_, raw, err := ws.Read(ctx)
		if err != nil {
			return seen{}, err
		}
		var f seen
		if err := json.Unmarshal(raw, &f); err != nil {
			return f, err
		}
		if slices.Contains(bad, f.Type) {
			return f, fmt.Errorf("got %s", raw)
		}
		if f.Type == want && f.Subtype == "" {
			return f, nil
		}
	}
}
