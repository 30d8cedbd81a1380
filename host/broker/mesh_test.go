package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/identity"
)

func TestHelloSaysWhoWeAre(t *testing.T) {
	b := &fakeBroker{}
	inMesh(t, b, func(o *Options) { o.Presence.DisplayName = "box" }, func(t *testing.T, m *Mesh) {
		session := testKey(t, "2")
		if _, err := m.AddSession(session, Presence{SessionID: "s2", PID: 7, Cwd: "/w"}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.AddSession(session, Presence{SessionID: "s2", PID: 7, Cwd: "/w"}); !errors.Is(err, ErrSessionExists) {
			t.Errorf("the same session twice: %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		b.mu.Lock()
		member, sess := b.hellos[0], b.hellos[1]
		b.mu.Unlock()
		parent := m.Member().Key().Public()
		if err := identity.VerifyHello(parent, "MESH1", "MEMBER1", int64(member["timestamp"].(float64)), member["signature"].(string)); err != nil {
			t.Errorf("member hello: %v", err)
		}
		if member["sessionId"] != "s1" || member["pid"] != 4242.0 || member["cwd"] != "/srv" || member["displayName"] != "box" {
			t.Errorf("member hello %v", member)
		}
		ts := int64(sess["timestamp"].(float64))
		if err := identity.VerifySessionHello(session.Public(), "MESH1", parent, ts, sess["signature"].(string)); err != nil {
			t.Errorf("session hello: %v", err)
		}
		att := sess["parentAttestation"].(map[string]any)
		if exp := int64(att["expiresAt"].(float64)); exp != ts+12*3600*1000 {
			t.Errorf("attested for %d ms, want 12 h", exp-ts)
		} else if err := identity.VerifyAttestation(parent, session.Public(), exp, att["signature"].(string)); err != nil {
			t.Errorf("attestation: %v", err)
		}
		if keys := m.OwnKeys(); len(keys) != 2 || keys[0] != parent || keys[1] != session.Public() {
			t.Errorf("own keys %v", keys)
		}
		if m.Conn(session.Public()) == nil || !m.Conn(session.Public()).Ready() {
			t.Error("the session isn't connected")
		}
		m.RemoveSession(session.Public())
		if m.Conn(session.Public()) != nil {
			t.Error("the session is still there")
		}
	})
}

func TestNamesThatAreNoTextDontKeepUsOut(t *testing.T) {
	var hooks chan string
	b := &fakeBroker{hook: func(body string) { hooks <- body }}
	inMesh(t, b, func(o *Options) {
		hooks = make(chan string, 1)
		o.Presence.Hostname, o.Presence.Cwd = "b\xffx", "/srv/\xe9t\xe9"
	}, func(t *testing.T, _ *Mesh) {
		if h := b.hellos[0]; h["hostname"] != "b\ufffdx" || h["cwd"] != "/srv/\ufffdt\ufffd" {
			t.Errorf("hello %v", h)
		}
		if got := <-hooks; !strings.Contains(got, "\"cwd\":\"/srv/\ufffdt\ufffd\"") {
			t.Errorf("nudged as %s, which the broker knows nobody by", got)
		}
	})
}

func TestPeerRowsThatCantBeReadAreLeftOut(t *testing.T) {
	b := &fakeBroker{frame: func(say func(string), _ int, f map[string]any) {
		say(fmt.Sprintf(`{"type":"peers_list","peers":[{"pubkey":"aa","displayName":"A","status":"idle","summary":null,"groups":[],"sessionId":"s","connectedAt":"t","cwd":"/","peerRole":"session","new":[1]},{"pubkey":3},null],"_reqId":"%s"}`, f["_reqId"]))
	}}
	inMesh(t, b, nil, func(t *testing.T, m *Mesh) {
		peers, err := m.Member().ListPeers(t.Context())
		if err != nil || len(peers) != 1 || peers[0].PeerRole != "session" || string(peers[0].Extra) != `{"new":[1]}` {
			t.Errorf("%+v, %v", peers, err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	base := func() Options {
		return Options{MeshID: "m", MemberID: "i", Key: testKey(t, "1"), URL: "ws://127.0.0.1/ws", Presence: Presence{SessionID: "s", PID: 1, Cwd: "/"}}
	}
	for name, spoil := range map[string]func(*Options){
		"no mesh": func(o *Options) { o.MeshID = "" }, "no key": func(o *Options) { o.Key = nil }, "no pid": func(o *Options) { o.Presence.PID = 0 },
		"no session id": func(o *Options) { o.Presence.SessionID = "" }, "remote ws": func(o *Options) { o.URL = "ws://example.org/ws" },
	} {
		o := base()
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(base()); err != nil {
		t.Error(err)
	}
}
