package main

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachMethodSendsItsFrame(t *testing.T) {
	for _, c := range []struct{ method, params, frame, result string }{
		{"summary", `{"summary":"building"}`, `{"type":"set_summary","summary":"building"}`, `{"mesh":"team","summary":"building"}`},
		{"summary", `{"summary":""}`, `{"type":"set_summary","summary":""}`, `{"mesh":"team","summary":""}`},
		{"status", `{"status":"dnd"}`, `{"type":"set_status","status":"dnd"}`, `{"mesh":"team","status":"dnd"}`},
		{"visible", `{"visible":false}`, `{"type":"set_visible","visible":false}`, `{"mesh":"team","visible":false}`},
		{"profile", `{"title":"Builder","bio":""}`, `{"type":"set_profile","title":"Builder","bio":""}`, `{"mesh":"team","title":"Builder","bio":""}`},
		{"profile", `{"capabilities":[]}`, `{"type":"set_profile","capabilities":[]}`, `{"mesh":"team","capabilities":[]}`},
		{"join", `{"name":"@reviewers","role":"lead"}`, `{"type":"join_group","name":"reviewers","role":"lead"}`, `{"mesh":"team","name":"reviewers","role":"lead"}`},
		{"join", `{"name":"reviewers"}`, `{"type":"join_group","name":"reviewers"}`, `{"mesh":"team","name":"reviewers"}`},
		{"leave", `{"name":"@reviewers"}`, `{"type":"leave_group","name":"reviewers"}`, `{"mesh":"team","name":"reviewers"}`},
	} {
		t.Run(c.method+" "+c.params, func(t *testing.T) {
			p := plugintest.Start(t, (&peers{}).plugin()).MustConfigure("")
			p.Host.OnRequest(func(string, sdk.FrameRequest) (jsontext.Value, error) {
				return jsontext.Value(`{"type":"ack","queued":false}`), nil
			})
			got, err := p.Feature().Call(t.Context(), sdk.Call{Method: c.method, Mesh: "team", Identity: "k", Params: jsontext.Value(c.params)})
			if err != nil || string(got) != c.result {
				t.Errorf("result %s, %v; want %s", got, err, c.result)
			}
			sent, others := p.Host.Notices(), p.Host.Requests()
			if c.method == "visible" || c.method == "profile" { // the broker acks these (PROTOCOL 7.1)
				sent, others = others, sent
			}
			if len(sent) != 1 || string(sent[0].Frame) != c.frame || sent[0].Mesh != "team" || sent[0].Identity != "k" || len(others) != 0 {
				t.Errorf("sent %s and %s, want %s", sent, others, c.frame)
			}
		})
	}
}

func TestARefusalReachesTheCaller(t *testing.T) {
	p := plugintest.Start(t, (&peers{}).plugin()).MustConfigure("")
	p.Host.OnRequest(func(string, sdk.FrameRequest) (jsontext.Value, error) {
		return nil, sdk.Errorf(sdk.CodeConflict, "refused", "the broker says no")
	})
	for method, params := range map[string]string{"visible": `{"visible":false}`, "profile": `{"title":"x"}`} {
		got, err := p.Feature().Call(t.Context(), sdk.Call{Method: method, Mesh: "team", Params: jsontext.Value(params)})
		if !errors.Is(err, sdk.ErrConflict) {
			t.Errorf("%s: got %s, %v", method, got, err)
		}
	}
}

func TestBadCallsSendNothing(t *testing.T) {
	p := plugintest.Start(t, (&peers{}).plugin()).MustConfigure("")
	for _, c := range []struct{ method, mesh, params, reason string }{
		{"status", "team", `{"status":"busy"}`, "bad_status"},
		{"status", "team", `{}`, "bad_params"},
		{"summary", "", `{"summary":"x"}`, "mesh_required"},
		{"visible", "team", `{"visible":"yes"}`, "bad_params"},
		{"profile", "team", `{}`, "empty_profile"},
		{"profile", "team", `{"role":"x"}`, "bad_params"},
		{"join", "team", `{"name":"@"}`, "empty_group"},
		{"leave", "team", `{"name":""}`, "empty_group"},
	} {
		_, err := p.Feature().Call(t.Context(), sdk.Call{Method: c.method, Mesh: c.mesh, Params: jsontext.Value(c.params)})
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != sdk.CodeInvalid || e.Reason != c.reason {
			t.Errorf("%s %s: got %v, want %s", c.method, c.params, err, c.reason)
		}
	}
	if n := append(p.Host.Notices(), p.Host.Requests()...); len(n) != 0 {
		t.Errorf("sent %v", n)
	}
}

func TestEveryFrameThatIsSentIsDeclared(t *testing.T) {
	d := plugintest.Start(t, (&peers{}).plugin()).Describe()
	want := map[string]bool{}
	for _, f := range []string{"set_summary", "set_status", "set_visible", "set_profile", "join_group", "leave_group"} {
		want[f] = true
	}
	for _, f := range d.Frames {
		delete(want, f)
	}
	if len(want) != 0 || len(d.Methods) != 6 || !d.Has(sdk.KindFeature) {
		t.Errorf("not declared: %v; described %+v", want, d)
	}
}
