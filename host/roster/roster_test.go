package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key makes 64 hex digits that begin with s.
func key(s string) string { return s + strings.Repeat("0", 64-len(s)) }

var ownMember, ownSession = key("aaaa0000aaaa"), key("aaaa1111aaaa")

type own struct{}

func (own) MemberKey(string) string { return ownMember }

func (own) IsOwn(_, k string) bool { return k == ownMember || k == ownSession }

// broker answers lists.
type broker struct {
	mu    sync.Mutex
	rows  []sdk.Peer
	err   error
	asked atomic.Int64
	hold  chan struct{} // not nil: an answer waits for it
}

func (b *broker) ListPeers(ctx context.Context, mesh string) ([]sdk.Peer, error) {
	b.asked.Add(1)
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.rows), b.err
}

// disk is a directory in memory.
type disk struct {
	mu   sync.Mutex
	rows map[string]store.Peer
	puts int
}

func (d *disk) PutPeers(_ context.Context, peers []store.Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.puts++
	for _, p := range peers {
		d.rows[p.Mesh+p.Key] = p
	}
	return nil
}

func (d *disk) Peers(context.Context) (out []store.Peer, _ error) {
	for _, p := range d.rows {
		out = append(out, p)
	}
	return out, nil
}

func start(t *testing.T, b *broker, known []store.Peer, filters ...Filter) (*Roster, *disk) {
	t.Helper()
	d := &disk{rows: make(map[string]store.Peer)}
	for _, p := range known {
		d.rows[p.Mesh+p.Key] = p
	}
	r, err := New(t.Context(), Options{Lister: b, Own: own{}, Directory: d, Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r, d
}

func peer(k, member, name, role string) sdk.Peer {
	return sdk.Peer{PubKey: key(k), MemberPubKey: key(member), DisplayName: name, Role: role}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct{ peerRole, role, channel, want string }{
		{"control-plane", "", "", "control-plane"},
		{"session", "control-plane", "claudemesh-daemon", "session"},
		{"service", "", "", "service"},
		{"", "control-plane", "", "control-plane"},
		{"", "service", "claudemesh-daemon", "service"},
		{"", "lead reviewer", "", "session"},
		{"", "lead reviewer", "claudemesh-daemon", "control-plane"},
		{"", "", "claudemesh-daemon", "control-plane"},
		{"", "", "cli", "session"},
		{"robot", "", "claudemesh-daemon", "session"},
		{"robot", "service", "", "service"},
		{"Session", "", "", "session"},
		{"", "", "", "session"},
	} {
		if got := NormaliseRole(c.peerRole, c.role, c.channel); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

type filterFunc func(ctx context.Context, q sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error)

func (f filterFunc) Filter(ctx context.Context, q sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	return f(ctx, q, rows)
}

// hideRole hides rows of a role and notes how many rows it saw.
func hideRole(role, reason string, saw *[]int) sdk.PeerFilter {
	return filterFunc(func(_ context.Context, _ sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
		*saw = append(*saw, len(rows))
		out := make([]sdk.Verdict, len(rows))
		for i := range rows {
			out[i] = sdk.Verdict{Hide: rows[i].Role == role, Reason: reason, Annotations: map[string]string{"seen": rows[i].Annotations["seen"] + reason + ";"}}
		}
		return out, nil
	})
}

func failing(err error) sdk.PeerFilter {
	return filterFunc(func(context.Context, sdk.PeerQuery, []sdk.Peer) ([]sdk.Verdict, error) { return nil, err })
}

var threeRows = []sdk.Peer{
	peer("b1", "b0", "bob", sdk.RoleSession), peer("b0", "b0", "bob", sdk.RoleControlPlane), peer("c1", "c0", "cat", sdk.RoleService),
}

func TestFiltersRunInOrderOnWhatIsLeft(t *testing.T) {
	var saw1, saw2 []int
	b := &broker{rows: threeRows}
	r, _ := start(t, b, nil,
		Filter{Name: "role", Filter: hideRole(sdk.RoleControlPlane, "control", &saw1)},
		Filter{Name: "service", Filter: hideRole(sdk.RoleService, "bots", &saw2)})
	view, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"})
	if err != nil {
		t.Fatal(err)
	}
	want := []sdk.HiddenCount{{Filter: "role", Reason: "control", Count: 1}, {Filter: "service", Reason: "bots", Count: 1}}
	if len(view.Peers) != 1 || view.Peers[0].PubKey != key("b1") || !slices.Equal(view.Hidden, want) || len(view.Warnings) != 0 {
		t.Errorf("%+v", view)
	}
	if a := view.Peers[0].Annotations["seen"]; a != "control;bots;" || view.Peers[0].Mesh != "m" {
		t.Errorf("annotations %q: a filter must see those of the earlier ones", a)
	}
	if saw1[0] != 3 || saw2[0] != 2 {
		t.Errorf("filters saw %v and %v rows", saw1, saw2)
	}
	all, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m", All: true})
	if err != nil || len(all.Peers) != 3 || !slices.Equal(all.Hidden, want) || saw2[1] != 2 {
		t.Errorf("-all: %+v %v", all, err)
	}
	if all.Peers[1].Role != sdk.RoleControlPlane {
		t.Errorf("-all must keep the broker's order: %+v", all.Peers)
	}
	if len(b.rows[0].Annotations) != 0 {
		t.Error("a list wrote into the shared rows")
	}
}

// Must hold for every way of failing and every on_error: a list is filtered, or warns, or fails; never neither.
func TestAFilterThatFailsNeverGoesUnnoticed(t *testing.T) {
	dir := map[string]sdk.PeerFilter{
		"down": failing(sdk.ErrUnavailable),
		"too few verdicts": filterFunc(func(context.Context, sdk.PeerQuery, []sdk.Peer) ([]sdk.Verdict, error) {
			return make([]sdk.Verdict, 2), nil
		}),
		"too many": filterFunc(func(context.Context, sdk.PeerQuery, []sdk.Peer) ([]sdk.Verdict, error) {
			return make([]sdk.Verdict, 4), nil
		}),
		"frozen": filterFunc(func(ctx context.Context, _ sdk.PeerQuery, _ []sdk.Peer) ([]sdk.Verdict, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"frozen, deaf to its context": filterFunc(func(context.Context, sdk.PeerQuery, []sdk.Peer) ([]sdk.Verdict, error) {
			time.Sleep(time.Minute)
			return make([]sdk.Verdict, 3), nil
		}),
	}
	for name, f := range dir {
		for _, on := range []OnError{"", OnErrorSkip, OnErrorHide, OnErrorFail} {
			for _, all := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/all=%v", name, on, all), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var saw []int
						r, _ := start(t, &broker{rows: threeRows}, nil, Filter{Name: "bad", Filter: f, OnError: on},
							Filter{Name: "role", Filter: hideRole(sdk.RoleControlPlane, "control", &saw)})
						begun := time.Now()
						view, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m", All: all})
						if time.Since(begun) > filterTimeout {
							t.Errorf("the list took %s", time.Since(begun))
						}
						checkFailure(t, on, all, view, err)
					})
				})
			}
		}
	}
}

func checkFailure(t *testing.T, on OnError, all bool, view sdk.PeerView, err error) {
	t.Helper()
	if on == OnErrorFail {
		if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), `"bad"`) {
			t.Errorf("on_error fail: %+v %v", view, err)
		}
		return
	}
	if err != nil || len(view.Warnings) != 1 || !strings.Contains(view.Warnings[0], `"bad"`) {
		t.Fatalf("no warning: %+v %v", view, err)
	}
	hidden, shown := 0, 2
	for _, h := range view.Hidden {
		hidden += h.Count
	}
	wantHidden := 1
	if on == OnErrorHide {
		shown, wantHidden = 0, 3
	}
	if all {
		shown = 3
	}
	if len(view.Peers) != shown || hidden != wantHidden {
		t.Errorf("%d rows shown and %d counted as hidden, want %d and %d", len(view.Peers), hidden, shown, wantHidden)
	}
}

func TestAFrozenFilterHoldsABoundedNumberOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		frozen := filterFunc(func(context.Context, sdk.PeerQuery, []sdk.Peer) ([]sdk.Verdict, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Hour)
			return nil, nil
		})
		r, _ := start(t, &broker{rows: threeRows}, nil, Filter{Name: "bad", Filter: frozen})
		for range 100 {
			if view, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); err != nil || len(view.Warnings) != 1 || len(view.Peers) != 3 {
				t.Fatalf("%+v %v", view, err)
			}
		}
		if most.Load() != filterCalls {
			t.Errorf("%d calls at once, want %d", most.Load(), filterCalls)
		}
	})
}

func TestListsAtOnceShareOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{rows: threeRows, hold: make(chan struct{})}
		r, _ := start(t, b, nil)
		impatient, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.List(impatient, sdk.PeerQuery{Mesh: "m"}); !errors.Is(err, context.Canceled) {
				t.Errorf("the one that left: %v", err)
			}
		})
		for range 50 {
			wg.Go(func() {
				if view, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); err != nil || len(view.Peers) != 3 {
					t.Errorf("%+v %v", view, err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(b.hold)
		wg.Wait()
		if b.asked.Load() != 1 {
			t.Errorf("the broker was asked %d times", b.asked.Load())
		}
		if _, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); err != nil || b.asked.Load() != 2 {
			t.Errorf("a later list must ask anew: %d, %v", b.asked.Load(), err)
		}
	})
}

func TestABrokerThatCannotBeAskedIsAnError(t *testing.T) {
	r, _ := start(t, &broker{err: sdk.Errorf(sdk.CodeUnavailable, "offline", "mesh is not connected")}, nil)
	if _, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestTheDirectoryIsWrittenWhenThereIsNewsAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{rows: threeRows}
		d := &disk{rows: make(map[string]store.Peer)}
		r, err := New(t.Context(), Options{Lister: b, Own: own{}, Directory: d, DirectoryRows: 20})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if d.puts != 1 || len(d.rows) != 3 {
			t.Errorf("%d writes of %d rows for ten equal lists", d.puts, len(d.rows))
		}
		r.Announced("m", "peer_joined", []byte(`{"name":"dora","pubkey":"`+key("d1")+`","groups":[]}`))
		r.Announced("m", "peer_left", []byte(`{"name":"eve","pubkey":"`+key("e1")+`"}`))
		r.Announced("m", "peer_joined", []byte(`{"name":"bad","pubkey":"zz"}`))
		r.Announced("m", "peer_joined", []byte(`[]`))
		synctest.Wait()
		if len(d.rows) != 4 || d.rows["m"+key("d1")].Name != "dora" {
			t.Errorf("%+v", d.rows)
		}
		if member, name := r.NameOf("m", key("b1")); member != key("b0") || name != "bob" {
			t.Errorf("name of bob: %q %q", member, name)
		}
		for i := range 100 {
			time.Sleep(time.Second)
			r.Announced("m", "peer_joined", fmt.Appendf(nil, `{"name":"n%d","pubkey":"%s"}`, i, key(fmt.Sprintf("f%03d", i))))
		}
		if n := len(r.book.rows); n > 22 || n < 20 {
			t.Errorf("%d rows in memory", n)
		}
		if _, name := r.NameOf("m", key("f099")); name != "n99" {
			t.Error("the newest was forgotten")
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTheDirectoryKeepsNoMoreOfANameThanCanBeTyped(t *testing.T) {
	key := strings.Repeat("ab", 32)
	b := newBook(nil, 10)
	b.listed("m", []sdk.Peer{{PubKey: key, MemberPubKey: strings.Repeat("c", 1000), DisplayName: "x" + strings.Repeat("é", 1000)}}, time.Now())
	if p, ok := b.get("m", key); !ok || len(p.Name) != 255 || len(p.MemberKey) != 256 || !utf8.ValidString(p.Name) {
		t.Errorf("%v, %d and %d bytes", ok, len(p.Name), len(p.MemberKey))
	}
}
