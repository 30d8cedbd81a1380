package main

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// state is the feature. The SDK lets no call run beside setup, so host needs no
// lock.
type state struct {
	host sdk.Host
	log  hclog.Logger
}

type noOptions struct{}

func (s *state) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "state",
		Version: sdk.Version,
		Doc:     "the shared key-value state of a mesh",
		Config: sdk.Configured(func(_ context.Context, _ noOptions, env sdk.Env) error {
			s.host, s.log = env.Host, env.Logger
			return nil
		}, nil),
		Feature: &sdk.Feature{
			Methods: []sdk.Method{
				sdk.NewMethod("get", "print the value of a key", sdk.CLI{Args: []string{"key"}, Print: "value"}, s.get),
				sdk.NewMethod("set", "set a key and read it back", sdk.CLI{Args: []string{"key", "value"}, Print: "value"}, s.set),
				sdk.NewMethod("list", "list all keys", sdk.CLI{Rows: "entries", Columns: []string{"key", "value", "updated_by", "updated_at"}}, s.list),
				sdk.NewMethod("watch", "list all keys, then print changes as they come", sdk.CLI{Rows: "entries", Stream: changeEvent}, s.list),
			},
			Default: "list",
			Frames:  []string{"get_state", "set_state", "list_state"},
			Watches: []string{"state_change"},
			OnFrame: s.onFrame,
		},
	}
}

type keyParams struct {
	Key string `json:"key" doc:"the key"`
}

type setParams struct {
	Key   string         `json:"key" doc:"the key"`
	Value jsontext.Value `json:"value" doc:"any JSON value but null"`
}

type noParams struct{}

// entry is one key as callers see it.
type entry struct {
	Mesh      string         `json:"mesh" doc:"the mesh"`
	Key       string         `json:"key" doc:"the key"`
	Value     jsontext.Value `json:"value" doc:"its value"`
	UpdatedBy string         `json:"updated_by" doc:"the display name of the member that set it"`
	UpdatedAt string         `json:"updated_at" doc:"when, by the broker's clock"`
}

type entries struct {
	Mesh    string  `json:"mesh" doc:"the mesh"`
	Entries []entry `json:"entries" doc:"all keys, sorted"`
}

func (s *state) get(ctx context.Context, call sdk.Call, p keyParams) (entry, error) {
	if err := checkKey(call, p.Key); err != nil {
		return entry{}, err
	}
	e, err := s.read(ctx, call, p.Key)
	if err != nil {
		return entry{}, err
	}
	if e.absent() {
		return entry{}, sdk.Errorf(sdk.CodeNotFound, "state_not_found", "mesh %q has no state under %q", call.Mesh, p.Key).
			WithNext("meshhost state list shows the keys.")
	}
	return e, nil
}

// readBacks are the waits before each look at a key that was set: the broker may
// handle the question before it has stored the value.
var readBacks = []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond, 300 * time.Millisecond, time.Second}

func (s *state) set(ctx context.Context, call sdk.Call, p setParams) (entry, error) {
	if err := checkKey(call, p.Key); err != nil {
		return entry{}, err
	}
	if p.Value.Kind() == 'n' {
		return entry{}, sdk.Errorf(sdk.CodeInvalid, "null_value", "the mesh can't hold null under %q: it would drop it without a word", p.Key).
			WithNext(`Set another value, such as "" or false; a key can't be deleted.`)
	}
	if err := s.write(ctx, call, p); err != nil {
		return entry{}, err
	}
	var e entry
	for _, wait := range readBacks {
		if err := pause(ctx, wait); err != nil {
			return entry{}, err
		}
		var err error
		if e, err = s.read(ctx, call, p.Key); err != nil {
			return entry{}, err
		}
		if same(e.Value, p.Value) {
			// The mesh tells a change to all but its author, so we do. The value is set, whatever becomes of the event.
			if err := s.publish(ctx, e); err != nil {
				s.log.Warn("the event state.change was not published", "key", e.Key, "error", err)
			}
			return e, nil
		}
	}
	if e.absent() {
		return entry{}, sdk.Errorf(sdk.CodeConflict, "not_stored", "the mesh did not store %q: the key is still empty", p.Key).
			WithNext("Try again; meshhost status shows whether the mesh is connected.")
	}
	return entry{}, sdk.Errorf(sdk.CodeConflict, "not_stored", "the mesh did not store %q: it holds another value, set by %s at %s", p.Key, e.UpdatedBy, e.UpdatedAt).
		WithNext("Somebody may have set it at the same time; get it and try again.")
}

func (s *state) list(ctx context.Context, call sdk.Call, _ noParams) (entries, error) {
	if err := call.NeedMesh(); err != nil {
		return entries{}, err
	}
	return s.readAll(ctx, call)
}

func checkKey(call sdk.Call, key string) error {
	if key == "" {
		return sdk.Errorf(sdk.CodeInvalid, "empty_key", "the key is empty").WithNext("Name a key.")
	}
	return call.NeedMesh()
}

// absent reports what the broker says of a key that nobody set (PROTOCOL 7.2).
func (e entry) absent() bool { return e.Value.Kind() == 'n' && e.UpdatedAt == "" }

// same compares two JSON values as a JavaScript broker would: member order and
// the way numbers are written don't count.
func same(a, b jsontext.Value) bool {
	a, b = a.Clone(), b.Clone()
	return a.Canonicalize() == nil && b.Canonicalize() == nil && string(a) == string(b)
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
