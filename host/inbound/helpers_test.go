package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyring is the keys of a host with one member and perhaps sessions.
type keyring struct {
	member   *identity.Key
	sessions []*identity.Key
}

func (k *keyring) Candidates(mesh string, receiving identity.PublicKey) []Candidate {
	var out []Candidate
	for _, s := range k.sessions {
		if s.Public() == receiving {
			out = append(out, Candidate{s, RecipientSession})
		}
	}
	return append(out, Candidate{k.member, RecipientMember})
}

func (k *keyring) AtRest(mesh string) *identity.AtRest {
	if mesh != "team" {
		return nil
	}
	return k.member.AtRest("journal")
}

func generate(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// acks records client_acks.
type acks struct {
	mu  sync.Mutex
	got []string // identity's first digits, client id, broker id
	c   chan string
}

func newAcks() *acks { return &acks{c: make(chan string, 100_000)} }

func (a *acks) ClientAck(_ string, receiving identity.PublicKey, clientID, brokerID string) {
	s := receiving.String()[:4] + " " + clientID + " " + brokerID
	a.mu.Lock()
	a.got = append(a.got, s)
	a.mu.Unlock()
	a.c <- s
}

func (a *acks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got)
}

// events records what is published.
type events struct {
	mu  sync.Mutex
	got []string
	all []any
}

func (e *events) Publish(kind, mesh string, data any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = append(e.got, kind)
	e.all = append(e.all, data)
}

func (e *events) count(kind string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.got {
		if k == kind {
			n++
		}
	}
	return n
}

// names knows one name and records announcements.
type names struct {
	mu        sync.Mutex
	announced []string
}

func (n *names) NameOf(mesh, key string) (string, string) {
	return "member-of-" + key[:4], "name-of-" + key[:4]
}

func (n *names) Announced(mesh, event string, data jsontext.Value) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.announced = append(n.announced, event)
}

// handlerFunc is a push handler of one function; every push is also put into got.
type handlerFunc struct {
	f   func(p *sdk.Push) sdk.Outcome
	got chan sdk.Push
}

func handler(f func(p *sdk.Push) sdk.Outcome) *handlerFunc {
	return &handlerFunc{f: f, got: make(chan sdk.Push, 100_000)}
}

func acker() *handlerFunc {
	return handler(func(*sdk.Push) sdk.Outcome { return sdk.Outcome{Decision: sdk.Ack} })
}

func (h *handlerFunc) Handle(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	out := make([]sdk.Outcome, len(pushes))
	for i := range pushes {
		out[i] = h.f(&pushes[i])
		h.got <- pushes[i]
	}
	return out, nil
}

// bodies waits for n pushes.
func (h *handlerFunc) bodies(t testing.TB, n int) (out []string) {
	t.Helper()
	for range n {
		select {
		case p := <-h.got:
			out = append(out, string(p.Body))
		case <-time.After(time.Minute):
			t.Fatalf("only %d of %d pushes came: %v", len(out), n, out)
		}
	}
	return out
}

// host is a receiver with all around it.
type host struct {
	*Receiver
	dir    string
	store  *store.Store
	keys   *keyring
	acks   *acks
	events *events
	names  *names
	sender *identity.Key
	opts   Options
	n      int
}

type setup struct {
	dir      string
	store    store.Options
	keys     *keyring
	handlers []Handler
	options  Options
}

func start(t testing.TB, s setup) *host {
	t.Helper()
	h := &host{dir: s.dir, keys: s.keys, acks: newAcks(), events: &events{}, names: &names{}, sender: generate(t)}
	if h.dir == "" {
		h.dir = t.TempDir()
	}
	if h.keys == nil {
		h.keys = &keyring{member: generate(t)}
	}
	var err error
	if h.store, err = store.Open(t.Context(), h.dir, s.store); err != nil {
		t.Fatal(err)
	}
	o := s.options
	o.Keys, o.Acker, o.Events, o.Names, o.Handlers = h.keys, h.acks, h.events, h.names, s.handlers
	if o.Journal == nil {
		o.Journal = h.store
	}
	h.opts = o
	if h.Receiver, err = New(t.Context(), o); err != nil {
		t.Fatal(errors.Join(err, h.store.Close()))
	}
	t.Cleanup(func() { h.close(t) })
	return h
}

func (h *host) close(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := errors.Join(h.Receiver.Close(ctx), h.store.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// crash returns a directory with the store as a crash at this moment would leave it.
func (h *host) crash(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		in, err := os.Open(h.store.Path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, store.FileName+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// direct is a sealed message as the queue drains it.
func (h *host) direct(t testing.TB, body string) Delivery {
	return h.directTo(t, h.sender, h.keys.member, body)
}

func (h *host) directTo(t testing.TB, from, to *identity.Key, body string) Delivery {
	t.Helper()
	nonce, ct, err := from.Seal(to.Public(), []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	h.n++
	return Delivery{
		Mesh: "team", Identity: h.keys.member.Public(), MessageID: fmt.Sprint("m", h.n), ClientMessageID: fmt.Sprint("c", h.n),
		Sender: from.Public().String(), Priority: "next", Nonce: nonce, Ciphertext: ct, CreatedAt: time.Now(),
	}
}

// multicast is a live broadcast: it names the sender's member and carries no client id.
func (h *host) multicast(t testing.TB, body string) Delivery {
	t.Helper()
	nonce, ct, err := identity.EncodePlain([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	h.n++
	return Delivery{
		Mesh: "team", Identity: h.keys.member.Public(), MessageID: fmt.Sprint("m", h.n), Sender: h.sender.Public().String(),
		SenderMember: h.sender.Public().String(), SenderName: "sender", Priority: "next", Nonce: nonce, Ciphertext: ct, CreatedAt: time.Now(),
	}
}

func (h *host) system(event, data string) Delivery {
	h.n++
	return Delivery{
		Mesh: "team", Identity: h.keys.member.Public(), MessageID: fmt.Sprint("m", h.n), Sender: "system", Priority: "low",
		Subtype: "system", Event: event, EventData: jsontext.Value(data), CreatedAt: time.Now(),
	}
}

// idle waits until the queue is empty and the handlers have no open work.
func (h *host) idle(t testing.TB) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s := h.Stats()
		open := s.Queued
		for _, n := range s.Waiting {
			open += n
		}
		if open == 0 && s.Stored+s.Duplicates+s.Echoes+s.Refused+s.Dropped == s.Received && s.Journal.Rows == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not idle: %+v", s)
		}
	}
}
