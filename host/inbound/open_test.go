package inbound

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// What a push is, whom it is for and what text it has follow from PROTOCOL 5.1, 5.4 and 6.
func TestWhatAPushIs(t *testing.T) {
	inbox := acker()
	session := generate(t)
	h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
	member, sess := h.keys.member.Public().String(), session.Public().String()

	onSession := func(d Delivery) Delivery { d.Identity = session.Public(); return d }
	plain := func(d Delivery, text string) Delivery {
		d.Ciphertext = base64.StdEncoding.EncodeToString([]byte(text))
		return d
	}
	cases := []struct {
		name     string
		delivery Delivery
		kind     sdk.PushKind
		body     string
		to       string
		toKind   string
		opens    bool
		acked    bool
	}{
		{"direct to the member", h.direct(t, "hi"), sdk.PushDirect, "hi", member, "member", true, true},
		{"direct to a session", onSession(h.directTo(t, h.sender, session, "s")), sdk.PushDirect, "s", sess, "session", true, true},
		{"direct to the member on a session's socket", onSession(h.direct(t, "m")), sdk.PushDirect, "m", member, "member", true, true},
		{"sealed for somebody else", h.directTo(t, h.sender, generate(t), "no"), sdk.PushDirect, "", member, "member", false, true},
		{"plaintext under a nonce from the queue", plain(h.direct(t, "x"), "looks like text"), sdk.PushDirect, "", member, "member", false, true},
		{"a fired reminder", func() Delivery { d := plain(h.direct(t, "x"), "tea"); d.Nonce = ""; return d }(), sdk.PushDirect, "tea", member, "member", true, true},
		{"live broadcast", h.multicast(t, "all"), sdk.PushBroadcast, "all", member, "member", true, false},
		{"live multicast that is no text", plain(h.multicast(t, "x"), "\xff\xfe\x00"), sdk.PushDirect, "", member, "member", false, false},
		{"system", h.system("tick", `{"tick":1}`), sdk.PushSystem, "", member, "member", true, false},
		{"webhook", func() Delivery { d := h.system("ci", `[1]`); d.Subtype, d.Sender = "webhook", "webhook:ci"; return d }(), sdk.PushWebhook, "", member, "member", true, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := h.acks.count()
			h.Accept([]Delivery{c.delivery})
			p := <-inbox.got
			if p.Kind != c.kind || string(p.Body) != c.body || p.Recipient != c.to || p.RecipientKind != c.toKind || p.Undecryptable == c.opens {
				t.Errorf("got %s %q for %s %s, undecryptable %v", p.Kind, p.Body, p.RecipientKind, p.Recipient, p.Undecryptable)
			}
			if acked := h.acks.count() > before; acked != c.acked {
				t.Errorf("acked %v, want %v", acked, c.acked)
			}
			if p.ID == "" || p.Attempt != 1 || p.ReceivedAt.IsZero() || !p.CreatedAt.Equal(c.delivery.CreatedAt) || len(p.DedupKeys) == 0 {
				t.Errorf("incomplete: %+v", p)
			}
			if c.kind == sdk.PushDirect && c.delivery.SenderName == "" && p.SenderName != "name-of-"+p.Sender[:4] {
				t.Errorf("sender's name %q is not the directory's", p.SenderName)
			}
		})
	}
}

// Promise 3, with its keys: c|mesh|recipient|sender|client id and b|mesh|recipient|message id.
func TestWhatIsTheSameMessage(t *testing.T) {
	session := generate(t)
	type made struct{ first, second Delivery }
	cases := []struct {
		name string
		make func(h *host) made
		same bool
	}{
		{"another message", func(h *host) made { return made{h.direct(t, "a"), h.direct(t, "b")} }, false},
		{"the same push again", func(h *host) made { d := h.direct(t, "a"); return made{d, d} }, true},
		{"sent twice by the sender: same client id", func(h *host) made {
			a, b := h.direct(t, "a"), h.direct(t, "a")
			b.ClientMessageID = a.ClientMessageID
			return made{a, b}
		}, true},
		{"same client id from another sender", func(h *host) made {
			a, b := h.direct(t, "a"), h.directTo(t, generate(t), h.keys.member, "b")
			b.ClientMessageID = a.ClientMessageID
			return made{a, b}
		}, false},
		{"same client id for another recipient", func(h *host) made {
			a, b := h.direct(t, "a"), h.directTo(t, h.sender, session, "a")
			b.ClientMessageID, b.Identity = a.ClientMessageID, session.Public()
			return made{a, b}
		}, false},
		{"member mail on two sockets", func(h *host) made {
			a := h.direct(t, "a")
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, true},
		{"same message id without a client id", func(h *host) made {
			a := h.direct(t, "a")
			a.ClientMessageID = ""
			return made{a, a}
		}, true},
		{"a broadcast for two identities of ours", func(h *host) made {
			a := h.multicast(t, "a")
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, false},
		{"a system event on two sockets", func(h *host) made {
			a := h.system("tick", `{}`)
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inbox := acker()
			h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
			m := c.make(h)
			h.Accept([]Delivery{m.first})
			h.Accept([]Delivery{m.second})
			h.idle(t)
			want := 2
			if c.same {
				want = 1
			}
			if len(inbox.got) != want {
				t.Errorf("handed out %d times, want %d", len(inbox.got), want)
			}
			acked := 0
			for _, d := range []Delivery{m.first, m.second} {
				if d.ackable() {
					acked++
				}
			}
			if h.acks.count() != acked {
				t.Errorf("%d acks, want %d: duplicates are acked too, or they come back for ever", h.acks.count(), acked)
			}
		})
	}
}

func TestAnEchoIsAckedAndDropped(t *testing.T) {
	inbox := acker()
	session := generate(t)
	h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
	echo := h.direct(t, "x")
	echo.Sender = h.keys.member.Public().String()
	sibling := h.directTo(t, h.keys.member, session, "from a sibling") // a real message of one identity of ours to another
	sibling.Identity = session.Public()
	h.Accept([]Delivery{echo, sibling})
	if got := inbox.bodies(t, 1); got[0] != "from a sibling" {
		t.Errorf("got %q", got)
	}
	h.idle(t)
	if s := h.Stats(); s.Echoes != 1 || h.acks.count() != 2 || len(inbox.got) != 0 {
		t.Errorf("%+v, %d acks", s, h.acks.count())
	}
}

func TestPlaintextIsSealedInTheJournal(t *testing.T) {
	block := make(chan struct{})
	h := start(t, setup{handlers: []Handler{{Name: "stuck", Push: handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })}}})
	defer close(block)
	session := generate(t)
	h.keys.sessions = append(h.keys.sessions, session)
	toSession := h.directTo(t, h.sender, session, "SECRET-4")
	toSession.Identity = session.Public()
	h.Accept([]Delivery{h.direct(t, "SECRET-1"), h.multicast(t, "SECRET-2"), h.system("watch_triggered", `{"newValue":"SECRET-3"}`), toSession})
	<-h.acks.c
	<-h.acks.c
	frames, err := h.store.Frames(t.Context(), []int64{1, 2, 3, 4})
	if err != nil || len(frames) != 4 {
		t.Fatal(frames, err)
	}
	for _, f := range frames {
		text := string(f.Frame)
		for i := 1; i <= 4; i++ {
			secret := fmt.Sprint("SECRET-", i)
			if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
				t.Errorf("frame %d holds %s in the clear", f.Seq, secret)
			}
		}
	}
}
