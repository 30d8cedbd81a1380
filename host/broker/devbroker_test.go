package broker

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/meshhost/meshhost/host/wire"
)

// twoMembers runs two meshes of two members against the dev broker, in virtual time.
func twoMembers(t *testing.T, opts devbroker.Options, changeA, changeB func(*Options), test func(t *testing.T, a, b *Mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ka, kb := testKey(t, "1"), testKey(t, "2")
		opts.Seed = devbroker.Seed{Meshes: []devbroker.SeedMesh{{MeshID: "MESH1", Slug: "team", Members: []devbroker.SeedMember{
			{MemberID: "MEMBER1", DisplayName: "a", PublicKey: ka.Public().String(), Role: "admin"},
			{MemberID: "MEMBER2", DisplayName: "b", PublicKey: kb.Public().String(), Role: "member"},
		}}}}
		srv, err := devbroker.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		dial := srv.Dialer()
		to := func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", "127.0.0.1:7900") }
		a := testMesh(t, to, changeA)
		b := testMesh(t, to, func(o *Options) {
			o.MemberID, o.Key, o.Presence = "MEMBER2", kb, Presence{SessionID: "sb", PID: 4343, Cwd: "/b"}
			if changeB != nil {
				changeB(o)
			}
		})
		defer runMesh(a)()
		defer runMesh(b)()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !a.Member().Ready() || !b.Member().Ready() {
			t.Fatalf("not connected: %+v, %+v", a.Member().State(), b.Member().State())
		}
		test(t, a, b)
	})
}

func TestAMessageFromSealToClientAckAgainstTheDevBroker(t *testing.T) {
	var got chan *Push
	twoMembers(t, devbroker.Options{}, nil, func(o *Options) {
		got = make(chan *Push, 8)
		o.Handlers.OnPush = func(c *Conn, pushes []*Push) {
			for _, p := range pushes {
				if p.Subtype == "" {
					got <- p
					c.ClientAck(p.ClientMessageID, p.MessageID)
				}
			}
		}
	}, func(t *testing.T, a, b *Mesh) {
		to := b.Member().Key().Public()
		nonce, sealed, err := a.Member().Key().Seal(to, []byte("hello bee"))
		if err != nil {
			t.Fatal(err)
		}
		r := a.Member().Send(t.Context(), &wire.Send{ID: "id-1", ClientMessageID: "id-1", TargetSpec: to.String(), Priority: wire.PriorityNext, Nonce: nonce, Ciphertext: sealed})
		if r.Outcome != Accepted {
			t.Fatalf("%+v", r)
		}
		p := <-got
		if plain, err := b.Member().Key().Open(a.Member().Key().Public(), p.Nonce, p.Ciphertext); err != nil || string(plain) != "hello bee" || p.ClientMessageID != "id-1" || p.MessageID != r.MessageID {
			t.Errorf("push %+v opens to %q, %v", p, plain, err)
		}
		time.Sleep(time.Second)
		status, err := a.Member().MessageStatus(t.Context(), r.MessageID)
		if err != nil || !status.Delivered {
			t.Errorf("status %+v, %v; want delivered", status, err)
		}
		peers, err := b.Member().ListPeers(t.Context())
		if err != nil || len(peers) != 2 || peers[0].PeerRole != "control-plane" {
			t.Errorf("peers %+v, %v", peers, err)
		}
		if r := a.Member().Send(t.Context(), &wire.Send{ID: "id-2", TargetSpec: strings.Repeat("ab", 32), Priority: wire.PriorityNext, Nonce: nonce, Ciphertext: sealed}); r.Outcome != NoPeer {
			t.Errorf("a message to nobody: %+v", r)
		}
		if err := a.Member().Notify(t.Context(), wire.TypeSetState, map[string]any{"key": "k", "value": []int{1, 2}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if raw, err := b.Member().Request(t.Context(), wire.TypeGetState, wire.GetState{Key: "k"}); err != nil || !strings.Contains(string(raw), `"value":[1,2]`) {
			t.Errorf("state: %s, %v", raw, err)
		}
	})
}

func TestTheDevBrokersRateLimitIsParsed(t *testing.T) {
	twoMembers(t, devbroker.Options{SendBurst: 10, SendPerMinute: 60}, nil, nil, func(t *testing.T, a, b *Mesh) {
		for i := range 11 {
			s := send(string(rune('a' + i)))
			s.TargetSpec = b.Member().Key().Public().String()
			r := a.Member().Send(t.Context(), s)
			if i < 10 && r.Outcome != Accepted {
				t.Errorf("send %d: %+v", i, r)
			}
			if i == 10 && (r.Outcome != RateLimited || r.Rate != Rate{60, 10}) {
				t.Errorf("send %d: %+v, want the rate named", i, r)
			}
		}
	})
}

func TestAMessageClaimedDuringAShortLossArrivesByTheNudge(t *testing.T) {
	for _, status := range []string{wire.StatusIdle, wire.StatusWorking} {
		t.Run(status, func(t *testing.T) { claimedDuringALoss(t, status) })
	}
}

func claimedDuringALoss(t *testing.T, wanted string) {
	var got chan time.Time
	var cut chan struct{}
	twoMembers(t, devbroker.Options{}, nil, func(o *Options) {
		got, cut = make(chan time.Time, 8), make(chan struct{})
		dial := o.Dial
		first := true
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := dial(ctx)
			if err == nil && first {
				first = false
				go func() { <-cut; _ = conn.Close() }()
			}
			return conn, err
		}
		o.Random = func() float64 { return 0.999 }
		o.Handlers.OnPush = func(_ *Conn, pushes []*Push) {
			for _, p := range pushes {
				if p.Subtype == "" {
					got <- time.Now()
				}
			}
		}
	}, func(t *testing.T, a, b *Mesh) {
		b.Member().SetNudgeStatus(wanted)
		if err := b.Member().Notify(t.Context(), wire.TypeSetStatus, wire.SetStatus{Status: wanted}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // the first ack's nudge is over
		close(cut)
		synctest.Wait()
		s := send("lost")
		s.TargetSpec = b.Member().Key().Public().String()
		if r := a.Member().Send(t.Context(), s); r.Outcome != Accepted {
			t.Fatalf("%+v; want it claimed by the leased presence", r)
		}
		begin := time.Now()
		select {
		case at := <-got:
			if took := at.Sub(begin); took < 30*time.Second || took > 38*time.Second {
				t.Errorf("arrived after %v, want it by the nudge, 36 s after the ack", took)
			}
		case <-time.After(10 * time.Minute):
			t.Error("it never arrived")
		}
	})
}

func TestASessionSpeaksAsItselfAgainstTheDevBroker(t *testing.T) {
	twoMembers(t, devbroker.Options{}, nil, nil, func(t *testing.T, a, b *Mesh) {
		key := testKey(t, "3")
		c, err := a.AddSession(key, Presence{SessionID: "agent", PID: 99, Cwd: "/w", DisplayName: "agent"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !c.Ready() || !c.IsSession() {
			t.Fatalf("session state %+v", c.State())
		}
		s := send("from-session")
		s.TargetSpec = b.Member().Key().Public().String()
		if r := c.Send(t.Context(), s); r.Outcome != Accepted {
			t.Errorf("%+v", r)
		}
		peers, err := c.ListPeers(t.Context())
		if err != nil || len(peers) != 3 || peers[2].Pubkey != key.Public().String() || peers[2].PeerRole != "session" {
			t.Errorf("peers %+v, %v", peers, err)
		}
	})
}
