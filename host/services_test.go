package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

func askMesh(t *testing.T, s *site, a *running) {
	svc, caller := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "state"}
	if err := svc.Notify(t.Context(), caller, sdk.FrameRequest{Mesh: "team", Frame: jsontext.Value(`{"type":"set_state","key":"k","value":[1]}`)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the state is there", func() error {
		reply, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"get_state","key":"k"}`)})
		if err != nil || !strings.Contains(string(reply), `"value":[1]`) {
			return fmt.Errorf("%s, %w", reply, err)
		}
		return nil
	})
	me := s.seed.Members[0].PublicKey
	if _, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Identity: me, Frame: jsontext.Value(`{"type":"list_state"}`)}); err != nil {
		t.Errorf("as the member: %v", err)
	}
	for _, c := range []struct {
		req    sdk.FrameRequest
		reason string
	}{
		{sdk.FrameRequest{Mesh: "other"}, "mesh_not_attached"},
		{sdk.FrameRequest{Identity: "short"}, "bad_identity"},
		{sdk.FrameRequest{Identity: s.seed.Members[1].PublicKey}, "no_identity"},
	} {
		c.req.Frame = jsontext.Value(`{"type":"list_state"}`)
		if _, err := svc.Request(t.Context(), caller, c.req); err == nil {
			t.Errorf("%+v: no error", c.req)
		} else if _, reason := code(err); reason != c.reason {
			t.Errorf("%+v: %v", c.req, err)
		}
		if err := svc.Notify(t.Context(), caller, c.req); err == nil {
			t.Errorf("notify %+v: no error", c.req)
		}
	}
	view, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{})
	if err != nil || len(view.Peers) == 0 {
		t.Errorf("peers: %+v, %v", view, err)
	}
	if _, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{Mesh: "other"}); err == nil {
		t.Error("peers of a mesh that is not there: no error")
	}
}

func sendAsPlugin(t *testing.T, s *site, a, b *running) {
	svc, caller := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "x"}
	req := sdk.SendRequest{To: s.seed.Members[1].PublicKey, Message: "from a plugin", Priority: "now", ClientMessageID: "once"}
	rep, err := svc.Send(t.Context(), caller, req)
	if err != nil || rep.ClientMessageID != "once" || rep.Durable {
		t.Fatalf("%+v, %v", rep, err)
	}
	eventually(t, "b has it", func() error {
		raw, err := rooms{b.Host}.Call(t.Context(), "inbox", sdk.Call{Method: "list"})
		if err != nil || strings.Count(string(raw), "from a plugin") != 1 {
			return fmt.Errorf("%s, %w", raw, err)
		}
		return nil
	})
	req.Message = "something else"
	if _, err := svc.Send(t.Context(), caller, req); err == nil {
		t.Error("one id for two messages: no error")
	} else if c, _ := code(err); c != sdk.CodeConflict {
		t.Errorf("one id for two messages: %v", err)
	}
	for to, want := range map[string]string{s.seed.Members[0].PublicKey: "own_key", "nobody": "route_failed"} {
		_, err := svc.Send(t.Context(), caller, sdk.SendRequest{To: to, Message: "m"})
		if _, reason := code(err); reason != want {
			t.Errorf("to %s: %v", to, err)
		}
	}
	// Two members of one name: a plugin learns that it has to choose.
	for _, member := range []int{2, 3} {
		twin := s.launch(t, s.config(t, member))
		twin.open(t)
		defer twin.stop(t)
	}
	eventually(t, "both twins are listed", func() error {
		for _, member := range []int{2, 3} {
			if _, err := seenBy(t, a.Host, s.seed.Members[member].PublicKey); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = svc.Send(t.Context(), caller, sdk.SendRequest{To: "twin", Message: "m"})
	if c, reason := code(err); c != sdk.CodeConflict || reason != "ambiguous_target" {
		t.Errorf("to one of two: %v", err)
	}
}

func keepAndTell(t *testing.T, a *running) {
	svc := services{a.Host}
	mine, other := plugin.Caller{Kind: sdk.KindFeature, Name: "x"}, plugin.Caller{Kind: sdk.KindPushHandler, Name: "x"}
	if err := svc.StorePut(t.Context(), mine, "key/1", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := svc.StoreGet(t.Context(), mine, "key/1"); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := svc.StoreGet(t.Context(), other, "key/1"); err == nil {
		t.Errorf("another plugin of that name reads %q", v)
	}
	if keys, err := svc.StoreList(t.Context(), mine, "key/"); err != nil || len(keys) != 1 || keys[0] != "key/1" {
		t.Errorf("%v, %v", keys, err)
	}
	if err := svc.StoreDelete(t.Context(), mine, "key/1"); err != nil {
		t.Error(err)
	}
	if keys, err := svc.StoreList(t.Context(), mine, ""); err != nil || len(keys) != 0 {
		t.Errorf("after the delete: %v, %v", keys, err)
	}
	sub := a.bus.Subscribe(64)
	defer sub.Close()
	if err := svc.Emit(t.Context(), mine, "happened", jsontext.Value(`{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	if ev := <-sub.C; ev.Kind != "x.happened" || string(ev.Data) != `{"n":1}` {
		t.Errorf("the event is %s %s", ev.Kind, ev.Data)
	}
}

// presenceOverBrokers: what is set while nobody listens is told when somebody
// does, and again to a broker that forgot.
func presenceOverBrokers(t *testing.T, s *site, a, b *running) {
	svc, caller, me := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "peers"}, s.seed.Members[0].PublicKey
	notify := func(frame string) {
		t.Helper()
		if err := svc.Notify(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(frame)}); err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
	}
	is := func(what, summary, group string) {
		t.Helper()
		eventually(t, what, func() error {
			p, err := seenBy(t, b.Host, me)
			if err != nil {
				return err
			}
			if p.Summary != summary || len(p.Groups) != 1 || p.Groups[0].Name != group {
				return fmt.Errorf("summary %q, groups %v", p.Summary, p.Groups)
			}
			return nil
		})
	}
	notify(`{"type":"set_summary","summary":"online"}`)
	notify(`{"type":"join_group","name":"first"}`)
	is("set while connected", "online", "first")

	s.down(t)
	eventually(t, "a noticed", func() error {
		if a.meshes["team"].Ready() {
			return errors.New("it is connected")
		}
		return nil
	})
	notify(`{"type":"set_summary","summary":"offline"}`)
	notify(`{"type":"leave_group","name":"first"}`)
	notify(`{"type":"join_group","name":"second"}`)
	reply, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"set_visible","visible":true}`)})
	if err != nil || !strings.Contains(string(reply), "deferred") {
		t.Errorf("a wish with a reply: %s, %v", reply, err)
	}
	err = svc.Notify(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"set_state","key":"k","value":1}`)})
	if c, reason := code(err); c != sdk.CodeUnavailable || reason != "mesh_not_connected" {
		t.Errorf("another frame while nobody listens: %v", err)
	}
	if _, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{}); err == nil {
		t.Error("peers while nobody listens: no error")
	}
	s.up(t)
	is("set while disconnected", "offline", "second")

	s.cut(true)
	eventually(t, "a noticed the cut", func() error {
		if a.meshes["team"].Ready() {
			return errors.New("it is connected")
		}
		return nil
	})
	notify(`{"type":"set_summary","summary":"in the grace"}`)
	notify(`{"type":"leave_group","name":"second"}`)
	notify(`{"type":"join_group","name":"third"}`)
	s.cut(false)
	is("told to a presence that was found again", "in the grace", "third")
	notify(`{"type":"set_summary","summary":"offline"}`)
	notify(`{"type":"leave_group","name":"third"}`)
	notify(`{"type":"join_group","name":"second"}`)
	s.down(t)
	s.up(t)
	is("told to a broker that knows nothing", "offline", "second")
}

// Plugins start before the rooms stand; what they ask then waits.
func TestAPluginThatAsksTooEarlyWaits(t *testing.T) {
	svc := services{&Host{wired: make(chan struct{})}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	frame := sdk.FrameRequest{Frame: jsontext.Value(`{"type":"list_state"}`)}
	for name, ask := range map[string]func() error{
		"request": func() error { _, err := svc.Request(ctx, plugin.Caller{}, frame); return err },
		"notify":  func() error { return svc.Notify(ctx, plugin.Caller{}, frame) },
		"send":    func() error { _, err := svc.Send(ctx, plugin.Caller{}, sdk.SendRequest{}); return err },
		"peers":   func() error { _, err := svc.Peers(ctx, plugin.Caller{}, sdk.PeersRequest{}); return err },
	} {
		if c, reason := code(ask()); c != sdk.CodeUnavailable || reason != "starting" {
			t.Errorf("%s: %s %s", name, c, reason)
		}
	}
	close(svc.h.wired)
	if err := svc.await(t.Context()); err != nil {
		t.Error(err)
	}
}
