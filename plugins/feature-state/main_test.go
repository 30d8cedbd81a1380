package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh answers as the reference broker does (transcript 05).
type mesh struct {
	mu     sync.Mutex
	values map[string]jsontext.Value
	// late is how many questions are answered before a value that was set is
	// there; deaf drops what is set.
	late int
	deaf bool
	set  map[string]jsontext.Value
}

func (m *mesh) request(kind string, req sdk.FrameRequest) (jsontext.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.late == 0 {
		maps.Copy(m.values, m.set)
	} else {
		m.late--
	}
	var frame struct{ Key string }
	if err := json.Unmarshal(req.Frame, &frame, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, err
	}
	switch kind {
	case "get_state":
		row := m.row(frame.Key)
		return jsontext.Value(`{"type":"state_result",` + string(row[1:])), nil
	case "list_state":
		rows := []string{}
		for _, key := range slices.Sorted(maps.Keys(m.values)) {
			rows = append(rows, string(m.row(key)))
		}
		return jsontext.Value(`{"type":"state_list","entries":[` + strings.Join(rows, ",") + `]}`), nil
	}
	return nil, errors.New("unexpected frame " + kind)
}

func (m *mesh) row(key string) jsontext.Value {
	name, _ := json.Marshal(key)
	value, ok := m.values[key]
	if !ok {
		return jsontext.Value(`{"key":` + string(name) + `,"value":null,"updatedBy":"","updatedAt":""}`)
	}
	return jsontext.Value(`{"key":` + string(name) + `,"value":` + string(value) + `,"updatedBy":"peer-a","updatedAt":"2026-11-22T19:28:23.555Z"}`)
}

func (m *mesh) notify(kind string, req sdk.FrameRequest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var frame struct {
		Key   string         `json:"key"`
		Value jsontext.Value `json:"value"`
	}
	if err := json.Unmarshal(req.Frame, &frame); err != nil || kind != "set_state" {
		return errors.New("unexpected frame " + string(req.Frame))
	}
	if !m.deaf {
		m.set[frame.Key] = frame.Value
	}
	return nil
}

func start(t *testing.T, m *mesh) *plugintest.Plugin {
	if m.values == nil {
		m.values = map[string]jsontext.Value{}
	}
	m.set = map[string]jsontext.Value{}
	p := plugintest.Start(t, (&state{}).plugin()).MustConfigure("")
	p.Host.OnRequest(m.request)
	p.Host.OnNotify(m.notify)
	return p
}

func call(t *testing.T, p *plugintest.Plugin, method, params string) (string, error) {
	t.Helper()
	res, err := p.Feature().Call(t.Context(), sdk.Call{Method: method, Mesh: "team", Params: jsontext.Value(params)})
	return string(res), err
}

const buildEntry = `{"mesh":"team","key":"build","value":{"n":1,"ok":true},"updated_by":"peer-a","updated_at":"2026-11-22T19:28:23.555Z"}`

func TestGetGivesTheEntry(t *testing.T) {
	p := start(t, &mesh{values: map[string]jsontext.Value{"build": jsontext.Value(`{"n":1,"ok":true}`)}})
	if got, err := call(t, p, "get", `{"key":"build"}`); err != nil || got != buildEntry {
		t.Errorf("got %s, %v", got, err)
	}
	if req := p.Host.Requests()[0]; req.Mesh != "team" || string(req.Frame) != `{"type":"get_state","key":"build"}` {
		t.Errorf("asked %s on %q", req.Frame, req.Mesh)
	}
}

func TestGetOfAKeyThatNobodySetIsNotFound(t *testing.T) {
	_, err := call(t, start(t, &mesh{}), "get", `{"key":"nope"}`)
	if !errors.Is(err, sdk.ErrNotFound) || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("got %v", err)
	}
}

func TestSetReadsBackAndPublishes(t *testing.T) {
	p := start(t, &mesh{late: 2})
	got, err := call(t, p, "set", `{"key":"build","value":{"ok":true,"n":1.0}}`)
	if want := strings.Replace(buildEntry, `{"n":1,"ok":true}`, `{"ok":true,"n":1.0}`, 1); err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
	events := p.Host.Events()
	if len(events) != 1 || events[0].Kind != "change" || string(events[0].Data) != got {
		t.Errorf("published %+v", events)
	}
}

// mute is a host that can't publish.
type mute struct{ *plugintest.Host }

func (mute) Emit(context.Context, string, jsontext.Value) error {
	return sdk.Errorf(sdk.CodeUnavailable, "busy", "not now")
}

func TestSetIsNoErrorWhereOnlyTheEventFails(t *testing.T) {
	m := &mesh{values: map[string]jsontext.Value{}, set: map[string]jsontext.Value{}}
	host := plugintest.NewHost()
	host.OnRequest(m.request)
	host.OnNotify(m.notify)
	p := plugintest.Start(t, (&state{}).plugin(), plugintest.WithHost(mute{host})).MustConfigure("")
	got, err := call(t, p, "set", `{"key":"k","value":"v"}`)
	if err != nil || !strings.Contains(got, `"value":"v"`) || !strings.Contains(p.Logs(), "not published") {
		t.Errorf("got %s, %v; logged %s", got, err, p.Logs())
	}
}

func TestSetThatDidNotTakeIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]jsontext.Value
		says   string
	}{
		"nothing there": {nil, "still empty"},
		"another value": {map[string]jsontext.Value{"k": jsontext.Value(`"theirs"`)}, "peer-a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, &mesh{deaf: true, values: c.values})
			_, err := call(t, p, "set", `{"key":"k","value":"mine"}`)
			if !errors.Is(err, sdk.ErrConflict) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if events := p.Host.Events(); len(events) != 0 {
				t.Errorf("published %+v", events)
			}
		})
	}
}

func TestBadCallsAskNothingOfTheMesh(t *testing.T) {
	p := start(t, &mesh{})
	for name, c := range map[string]struct {
		call   sdk.Call
		reason string
	}{
		"null":              {sdk.Call{Method: "set", Mesh: "team", Params: jsontext.Value(`{"key":"k","value":null}`)}, "null_value"},
		"no value":          {sdk.Call{Method: "set", Mesh: "team", Params: jsontext.Value(`{"key":"k"}`)}, "bad_params"},
		"unknown parameter": {sdk.Call{Method: "get", Mesh: "team", Params: jsontext.Value(`{"key":"k","x":1}`)}, "bad_params"},
		"empty key":         {sdk.Call{Method: "get", Mesh: "team", Params: jsontext.Value(`{"key":""}`)}, "empty_key"},
		"no mesh, get":      {sdk.Call{Method: "get", Params: jsontext.Value(`{"key":"k"}`)}, "mesh_required"},
		"no mesh, set":      {sdk.Call{Method: "set", Params: jsontext.Value(`{"key":"k","value":1}`)}, "mesh_required"},
		"no mesh, list":     {sdk.Call{Method: "list"}, "mesh_required"},
		"no such method":    {sdk.Call{Method: "delete", Mesh: "team"}, "no_method"},
	} {
		_, err := p.Feature().Call(t.Context(), c.call)
		var e *sdk.Error
		if !errors.As(err, &e) || e.Reason != c.reason {
			t.Errorf("%s: got %v, want reason %s", name, err, c.reason)
		}
	}
	if len(p.Host.Requests())+len(p.Host.Notices()) != 0 {
		t.Errorf("asked %v, told %v", p.Host.Requests(), p.Host.Notices())
	}
}

func TestListAndWatchGiveAllKeysSorted(t *testing.T) {
	p := start(t, &mesh{values: map[string]jsontext.Value{"s": jsontext.Value(`"str"`), "build": jsontext.Value(`{"n":1,"ok":true}`)}})
	want := `{"mesh":"team","entries":[` + buildEntry + `,{"mesh":"team","key":"s","value":"str","updated_by":"peer-a","updated_at":"2026-11-22T19:28:23.555Z"}]}`
	for _, method := range []string{"list", "watch"} {
		if got, err := call(t, p, method, ""); err != nil || got != want {
			t.Errorf("%s: got %s, %v", method, got, err)
		}
	}
	if got, err := call(t, start(t, &mesh{}), "list", "{}"); err != nil || got != `{"mesh":"team","entries":[]}` {
		t.Errorf("empty: got %s, %v", got, err)
	}
}

func TestChangesOfOthersBecomeEventsInOrder(t *testing.T) {
	p := start(t, &mesh{})
	frame := func(body string) sdk.Frame {
		return sdk.Frame{Mesh: "team", Type: "state_change", Frame: jsontext.Value(body)}
	}
	err := p.Feature().OnFrame(t.Context(), []sdk.Frame{
		frame(`{"type":"state_change","key":"a","value":[1,2],"updatedBy":"peer-b"}`),
		frame(`{"type":"state_change","key":5}`),
		frame(`{"type":"state_change","key":"b","value":"x","updatedBy":"peer-b"}`),
	})
	if err == nil || !strings.Contains(err.Error(), "state_change") {
		t.Errorf("the bad frame gave %v", err)
	}
	var got []string
	for _, e := range p.Host.Events() {
		got = append(got, e.Kind+" "+string(e.Data))
	}
	want := []string{
		`change {"mesh":"team","key":"a","value":[1,2],"updated_by":"peer-b"}`,
		`change {"mesh":"team","key":"b","value":"x","updated_by":"peer-b"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}

func TestErrorsOfTheHostComeThrough(t *testing.T) {
	p := start(t, &mesh{})
	p.Host.OnRequest(nil)
	if _, err := call(t, p, "get", `{"key":"k"}`); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("not connected: got %v", err)
	}
	p.Host.OnRequest(func(string, sdk.FrameRequest) (jsontext.Value, error) { return jsontext.Value(`{"key":7}`), nil })
	if _, err := call(t, p, "get", `{"key":"k"}`); !errors.Is(err, sdk.ErrInternal) {
		t.Errorf("odd answer: got %v", err)
	}
}

func TestSetGivesUpWithItsCaller(t *testing.T) {
	p := start(t, &mesh{deaf: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Feature().Call(ctx, sdk.Call{Method: "set", Mesh: "team", Params: jsontext.Value(`{"key":"k","value":1}`)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
