package plugintest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keeper is a feature that does whatever a host allows.
type keeper struct {
	env   sdk.Env
	steps *[]string
}

func (k *keeper) plugin() sdk.Plugin {
	type options struct {
		Greeting string `mesh:"greeting" default:"hi"`
	}
	return sdk.Plugin{
		Name: "keeper", Version: "1",
		Config: sdk.Configured(func(_ context.Context, o options, env sdk.Env) error {
			k.env = env
			*k.steps = append(*k.steps, "configure "+o.Greeting+" "+env.Name)
			env.Logger.Info("configured", "greeting", o.Greeting)
			return nil
		}, nil),
		Drain: func(context.Context) error { *k.steps = append(*k.steps, "drain"); return nil },
		Stop:  func() error { *k.steps = append(*k.steps, "stop"); return nil },
		Feature: &sdk.Feature{Methods: []sdk.Method{
			sdk.NewMethod("greet", "", sdk.CLI{}, func(context.Context, sdk.Call, struct{}) (struct{}, error) { return struct{}{}, nil }),
		}},
	}
}

func TestAPluginLivesItsWholeLife(t *testing.T) {
	var steps []string
	t.Run("life", func(t *testing.T) {
		p := plugintest.Start(t, (&keeper{steps: &steps}).plugin(), plugintest.WithName("doorman"))
		if d := p.Describe(); d.Name != "keeper" || len(d.Schema.Attributes) != 1 {
			t.Errorf("described %+v", d)
		}
		if diags := p.Validate(`{"greeting":1}`); !diags.HasErrors() {
			t.Error("a number was taken as a greeting")
		}
		p.MustConfigure("")
		if _, err := p.Feature().Call(t.Context(), sdk.Call{Method: "greet"}); err != nil {
			t.Error(err)
		}
		if !strings.Contains(p.Logs(), `"greeting":"hi"`) {
			t.Errorf("logged %s", p.Logs())
		}
	})
	if want := []string{"configure hi doorman", "drain", "stop"}; !slices.Equal(steps, want) {
		t.Errorf("it lived %q, want %q", steps, want)
	}
}

func TestAPluginThatWasNeverConfiguredIsNotDrained(t *testing.T) {
	var steps []string
	t.Run("life", func(t *testing.T) { plugintest.Start(t, (&keeper{steps: &steps}).plugin()) })
	if len(steps) != 0 {
		t.Errorf("it lived %q", steps)
	}
}

func TestTheFakeHostRecordsAndAnswers(t *testing.T) {
	k := &keeper{steps: new([]string)}
	p := plugintest.Start(t, k.plugin()).MustConfigure("")
	ctx, host := t.Context(), k.env.Host
	ask := sdk.FrameRequest{Mesh: "team", Frame: jsontext.Value(`{"type":"get_state"}`)}
	if _, err := host.Request(ctx, ask); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("without an answer: %v", err)
	}
	p.Host.OnRequest(func(kind string, _ sdk.FrameRequest) (jsontext.Value, error) {
		return jsontext.Value(`{"type":"` + kind + `"}`), nil
	})
	if reply, err := host.Request(ctx, ask); err != nil || string(reply) != `{"type":"get_state"}` {
		t.Errorf("got %s, %v", reply, err)
	}
	if _, err := host.Request(ctx, sdk.FrameRequest{Frame: jsontext.Value(`{}`)}); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a frame without a type: %v", err)
	}
	if err := host.Notify(ctx, ask); err != nil {
		t.Error(err)
	}
	p.Host.OnNotify(func(string, sdk.FrameRequest) error { return sdk.ErrPermission })
	if err := host.Notify(ctx, ask); !errors.Is(err, sdk.ErrPermission) {
		t.Errorf("refused: %v", err)
	}
	if _, err := host.Send(ctx, sdk.SendRequest{To: "bob", Message: "hi"}); err != nil {
		t.Error(err)
	}
	p.Host.OnSend(func(req sdk.SendRequest) error {
		if req.To == "carol" {
			return sdk.ErrNotFound
		}
		return nil
	})
	if _, err := host.Send(ctx, sdk.SendRequest{To: "carol", Message: "hi"}); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("refused: %v", err)
	}
	if _, err := host.Send(ctx, sdk.SendRequest{To: "bob", Message: "hi"}); err != nil {
		t.Error(err)
	}
	if err := host.Emit(ctx, "seen", jsontext.Value(`{"n":1}`)); err != nil {
		t.Error(err)
	}
	h := p.Host
	if len(h.Requests()) != 2 || len(h.Notices()) != 2 || len(h.Sends()) != 3 || len(h.Events()) != 1 || h.Events()[0].Kind != "seen" {
		t.Errorf("recorded %v, %v, %v, %v", h.Requests(), h.Notices(), h.Sends(), h.Events())
	}
	h.SetPeers(sdk.PeerView{Warnings: []string{"w"}})
	if view, err := host.Peers(ctx, sdk.PeersRequest{}); err != nil || len(view.Warnings) != 1 {
		t.Errorf("peers %+v, %v", view, err)
	}
}

func TestTheFakeHostHasAStoreWithLimits(t *testing.T) {
	k := &keeper{steps: new([]string)}
	plugintest.Start(t, k.plugin()).MustConfigure("")
	ctx, host := t.Context(), k.env.Host
	if _, err := host.StoreGet(ctx, "a"); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("an absent key: %v", err)
	}
	for _, key := range []string{"b", "a", "c/1"} {
		if err := host.StorePut(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.StoreDelete(ctx, "b"); err != nil {
		t.Error(err)
	}
	if keys, err := host.StoreList(ctx, ""); err != nil || !slices.Equal(keys, []string{"a", "c/1"}) {
		t.Errorf("keys %q, %v", keys, err)
	}
	if keys, err := host.StoreList(ctx, "c/"); err != nil || !slices.Equal(keys, []string{"c/1"}) {
		t.Errorf("keys with a prefix %q, %v", keys, err)
	}
	if err := host.StorePut(ctx, strings.Repeat("k", 513), nil); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a long key: %v", err)
	}
	if err := host.StorePut(ctx, "k", make([]byte, 64<<10+1)); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a large value: %v", err)
	}
}
