package main

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

// changeEvent is the event of a change; the host publishes it as state.change.
const changeEvent = "change"

// wireEntry is a key as the broker writes it (PROTOCOL 7.2), in state_result, in
// a row of state_list and, without the time, in state_change.
type wireEntry struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
	UpdatedAt string         `json:"updatedAt"`
}

func (w wireEntry) entry(mesh string) entry {
	if len(w.Value) == 0 {
		w.Value = jsontext.Value("null")
	}
	return entry{Mesh: mesh, Key: w.Key, Value: w.Value, UpdatedBy: w.UpdatedBy, UpdatedAt: w.UpdatedAt}
}

// request asks the mesh and reads the reply into out.
func (s *state) request(ctx context.Context, call sdk.Call, frame, out any) error {
	raw, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	reply, err := s.host.Request(ctx, sdk.FrameRequest{Mesh: call.Mesh, Identity: call.Identity, Frame: raw})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return sdk.Errorf(sdk.CodeInternal, "bad_reply", "the broker's answer is not understood: %v", err)
	}
	return nil
}

func (s *state) read(ctx context.Context, call sdk.Call, key string) (entry, error) {
	var reply wireEntry
	err := s.request(ctx, call, struct {
		Type string `json:"type"`
		Key  string `json:"key"`
	}{"get_state", key}, &reply)
	if err == nil && reply.Key != key {
		err = sdk.Errorf(sdk.CodeInternal, "bad_reply", "the broker answered for key %q instead of %q", reply.Key, key)
	}
	return reply.entry(call.Mesh), err
}

func (s *state) readAll(ctx context.Context, call sdk.Call) (entries, error) {
	var reply struct {
		Entries []wireEntry `json:"entries"`
	}
	err := s.request(ctx, call, struct {
		Type string `json:"type"`
	}{"list_state"}, &reply)
	if err != nil {
		return entries{}, err
	}
	all := entries{Mesh: call.Mesh, Entries: make([]entry, len(reply.Entries))}
	for i, w := range reply.Entries {
		all.Entries[i] = w.entry(call.Mesh)
	}
	return all, nil
}

func (s *state) write(ctx context.Context, call sdk.Call, p setParams) error {
	raw, err := json.Marshal(struct {
		Type  string         `json:"type"`
		Key   string         `json:"key"`
		Value jsontext.Value `json:"value"`
	}{"set_state", p.Key, p.Value})
	if err != nil {
		return err
	}
	return s.host.Notify(ctx, sdk.FrameRequest{Mesh: call.Mesh, Identity: call.Identity, Frame: raw})
}

// onFrame publishes changes that others made. One frame that is not understood
// keeps none of the others back.
func (s *state) onFrame(ctx context.Context, frames []sdk.Frame) error {
	var errs []error
	for _, f := range frames {
		var change wireEntry
		if err := json.Unmarshal(f.Frame, &change); err != nil {
			errs = append(errs, sdk.Errorf(sdk.CodeInvalid, "bad_frame", "state_change: %v", err))
			continue
		}
		if err := s.publish(ctx, change.entry(f.Mesh)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// change is the event's data; updated_at is absent where the wire has none.
type change struct {
	Mesh      string         `json:"mesh"`
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updated_by"`
	UpdatedAt string         `json:"updated_at,omitempty"`
}

func (s *state) publish(ctx context.Context, e entry) error {
	data, err := json.Marshal(change(e))
	if err != nil {
		return err
	}
	return s.host.Emit(ctx, changeEvent, data)
}
