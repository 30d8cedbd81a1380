package feature

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type source struct {
	d       sdk.Description
	calls   []string
	frames  int
	gate    chan struct{}
	batches []int
}

func (s *source) Description() sdk.Description { return s.d }
func (s *source) Feature() sdk.FeatureCaller   { return s }

func (s *source) Call(_ context.Context, c sdk.Call) (jsontext.Value, error) {
	s.calls = append(s.calls, c.Method)
	return jsontext.Value(`{}`), nil
}

func (s *source) OnConnect(_ context.Context, c sdk.Connected) error {
	s.calls = append(s.calls, "connect:"+c.Mesh)
	return nil
}

func (s *source) OnFrame(ctx context.Context, fs []sdk.Frame) error {
	select {
	case <-s.gate:
	case <-ctx.Done():
	}
	s.frames += len(fs)
	s.batches = append(s.batches, len(fs))
	return nil
}

func described(methods ...string) *source {
	d := sdk.Description{Kinds: []sdk.Kind{sdk.KindFeature}, DefaultMethod: "list", Watches: []string{"state_change"}, OnConnect: true}
	for _, m := range methods {
		d.Methods = append(d.Methods, sdk.Method{Name: m})
	}
	gate := make(chan struct{})
	close(gate)
	return &source{d: d, gate: gate}
}

func TestCallFindsMethodsByDeclaration(t *testing.T) {
	s, young := described("list", "get"), &source{}
	filter := &source{d: sdk.Description{Kinds: []sdk.Kind{sdk.KindPeerFilter}}}
	r := New([]Entry{{"state", "rpc_feature.state", s}, {"young", "rpc_feature.young", young}, {"role", "peer_filter.role", filter}}, hclog.NewNullLogger())
	for _, c := range []struct {
		feature, method string
		want            error
		called          string
	}{
		{"state", "get", nil, "get"},
		{"state", "", nil, "list"},
		{"state", "set", sdk.ErrNotFound, ""},
		{"young", "get", sdk.ErrUnavailable, ""},
		{"role", "get", sdk.ErrNotFound, ""},
		{"none", "get", sdk.ErrNotFound, ""},
	} {
		t.Run(c.feature+"."+c.method, func(t *testing.T) {
			s.calls = nil
			_, err := r.Call(t.Context(), c.feature, sdk.Call{Method: c.method})
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if got := fmt.Sprint(s.calls); c.called != "" && got != "["+c.called+"]" {
				t.Fatalf("called %s, want %s", got, c.called)
			}
		})
	}
}

func TestOfTwoWithOneNameTheFirstThatIsAFeatureHasIt(t *testing.T) {
	filter := &source{d: sdk.Description{Kinds: []sdk.Kind{sdk.KindPeerFilter}}}
	young, first, second := &source{}, described("a"), described("b")
	r := New([]Entry{{"x", "young", young}, {"x", "filter", filter}, {"x", "first", first}, {"x", "second", second}}, hclog.NewNullLogger())
	if l := r.List(); len(l) != 1 || l[0].Plugin != "first" {
		t.Fatalf("listed %+v", l)
	}
	young.d = second.d // it turns out to be one, and was there before
	if l := r.List(); len(l) != 1 || l[0].Plugin != "young" {
		t.Fatalf("listed %+v", l)
	}
}

func TestFramesGoToWhoWatchesThemInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := described("list")
		r := New([]Entry{{"state", "p", s}}, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		r.Start(ctx)
		r.Frame(sdk.Frame{Type: "stream_data"})
		r.Connected(sdk.Connected{Mesh: "m"})
		for range 3 {
			r.Frame(sdk.Frame{Type: "state_change"})
		}
		synctest.Wait()
		if s.frames != 3 || len(s.calls) != 1 || s.calls[0] != "connect:m" {
			t.Fatalf("frames %d, calls %v; want 3 and one connect", s.frames, s.calls)
		}
		cancel()
		r.Wait()
	})
}

func TestAFeatureThatComesUpHearsWhatIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, other, deaf := described("list"), described("list"), described("list")
		deaf.d.OnConnect = false
		r := New([]Entry{{"s", "p", s}, {"other", "q", other}, {"deaf", "p", deaf}}, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		r.Start(ctx)
		r.Ready("p", []sdk.Connected{{Mesh: "m"}, {Mesh: "n"}})
		synctest.Wait()
		if fmt.Sprint(s.calls) != "[connect:m connect:n]" || len(other.calls) != 0 || len(deaf.calls) != 0 {
			t.Errorf("%v, %v, %v", s.calls, other.calls, deaf.calls)
		}
		cancel()
		r.Wait()
	})
}

func TestASlowFeatureLosesTheOldestAndStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := described("list"), described("list")
		slow.gate = make(chan struct{})
		r := New([]Entry{{"slow", "p", slow}, {"quick", "p", quick}}, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		r.Start(ctx)
		const n = 3 * feedItems
		for i := range n {
			r.Frame(sdk.Frame{Type: "state_change", Frame: jsontext.Value(fmt.Sprint(i))})
			if i%feedBatch == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if quick.frames != n {
			t.Fatalf("the quick feature got %d frames of %d", quick.frames, n)
		}
		close(slow.gate)
		synctest.Wait()
		if slow.frames > feedItems+feedBatch || slow.frames < feedItems {
			t.Fatalf("the slow feature got %d frames, want its queue of %d and the batch in its hands", slow.frames, feedItems)
		}
		cancel()
		r.Wait()
	})
}
