package outbound

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// peers resolves names by the first letter: "@…" and "*" as they are, anything
// else to a key made of it.
type peers struct {
	keys map[string]string
	err  error
}

func (p *peers) Resolve(_ context.Context, _, to string) (Target, error) {
	if p.err != nil {
		return Target{}, p.err
	}
	if isMulticast(to) {
		return Target{Spec: to, Kind: Multicast, From: "verbatim"}, nil
	}
	return Target{Spec: p.keys[to], Kind: Direct, Name: to, From: "live"}, nil
}

// house is an Outbound on a store and a link that may outlive it.
type house struct {
	t     *testing.T
	store *store
	other *store // a second outbox, if not nil
	link  *fakeLink
	names *peers
	key   *identity.Key
	out   *Outbound
	stop  context.CancelFunc // what kill -9 is to the rest
	life  time.Duration
	log   hclog.Logger

	incarnation string
	owner       string
	ahead       atomic.Int64 // of the wall clock, ns, to the monotonic one
	relists     int
	events      []*change
}

func newHouse(t *testing.T) *house {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, store: newStore(), link: newFakeLink(), key: key, names: &peers{keys: map[string]string{}}, incarnation: "1", owner: "me", log: hclog.NewNullLogger()}
	for _, name := range []string{"ann", "bob", "cy", "dee", "eve"} {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		h.names.keys[name] = k.Public().String()
	}
	return h
}

// start runs a new incarnation, connected.
func (h *house) start() {
	h.t.Helper()
	h.startOffline()
	h.out.Online("team", true, true)
	synctest.Wait()
}

func (h *house) startOffline() {
	h.t.Helper()
	var err error
	boxes := map[string]Backend{"box": backend(h.store)}
	if h.other != nil {
		boxes["other"] = backend(h.other)
	}
	h.out, err = New(Options{
		Meshes:   []Mesh{{Name: "team", Key: h.key, Link: h.link, Outbox: "box"}},
		Outboxes: boxes,
		Owner:    h.owner, Incarnation: h.incarnation, Names: h.names, Logger: h.log, Lifetime: h.life,
		Publish: func(_, _ string, data any) {
			h.store.mu.Lock()
			defer h.store.mu.Unlock()
			h.events = append(h.events, data.(*change))
		},
		Relist: func(string) {
			h.store.mu.Lock()
			defer h.store.mu.Unlock()
			h.relists++
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.out.meshes["team"].lane.wall = func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	h.out.Start(ctx)
}

func backend(s *store) Backend { return Backend{Outbox: s, Durable: func() bool { return true }} }

// kill ends everything at once, without a word to the store or the link.
func (h *house) kill() {
	dead := errors.New("killed")
	h.store.set(func(string, []sdk.Op) error { return dead }, nil)
	h.stop()
	h.out.wg.Wait()
	for _, b := range h.out.list() {
		b.reads.close(context.Background())
	}
	h.store.set(nil, nil)
	h.incarnation += "1"
}

func (h *house) close() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.out.Close(ctx); err != nil {
		h.t.Errorf("close: %v", err)
	}
	h.stop()
}

// send accepts a message that must be accepted and returns its id.
func (h *house) send(to, key string) string {
	h.t.Helper()
	rep, err := h.out.Accept(context.Background(), Request{To: to, Message: "hello " + key, ClientMessageID: key})
	if err != nil {
		h.t.Fatalf("send %s: %v", key, err)
	}
	return rep.ID
}

// lists is how often the peers were asked for.
func (h *house) lists() int {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return h.relists
}

func (h *house) wantState(id string, want sdk.EntryState) {
	h.t.Helper()
	synctest.Wait()
	if got := h.store.state(id); got != want {
		h.t.Errorf("the row is %q, want %q", got, want)
	}
}

func (h *house) wantIDs(target, want string) {
	h.t.Helper()
	synctest.Wait()
	if target != "" && !isMulticast(target) {
		target = h.names.keys[target]
	}
	if got := strings.Join(h.link.ids(target), " "); got != want {
		h.t.Errorf("written: %q, want %q", got, want)
	}
}

// inHouse runs a test in virtual time.
func inHouse(t *testing.T, f func(t *testing.T, h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		f(t, h)
	})
}

func reason(err error) string {
	var e *sdk.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
