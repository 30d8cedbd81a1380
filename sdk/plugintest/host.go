package plugintest

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

// Event is what a plugin published by Emit.
type Event struct {
	Kind string
	Data jsontext.Value
}

// Host is a host that records. Its store works; frames are answered by what
// OnRequest, OnNotify and OnSend say. Without an OnRequest a request is ErrUnavailable,
// as while no mesh is connected.
type Host struct {
	mu        sync.Mutex
	onRequest func(frameType string, req sdk.FrameRequest) (jsontext.Value, error)
	onNotify  func(frameType string, req sdk.FrameRequest) error
	onSend    func(req sdk.SendRequest) error
	requests  []sdk.FrameRequest
	notices   []sdk.FrameRequest
	sends     []sdk.SendRequest
	events    []Event
	peers     sdk.PeerView
	store     map[string][]byte
}

// NewHost makes a host that has recorded nothing.
func NewHost() *Host { return &Host{store: make(map[string][]byte)} }

// OnRequest sets what answers frames that have a reply.
func (h *Host) OnRequest(f func(frameType string, req sdk.FrameRequest) (jsontext.Value, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onRequest = f
}

// OnNotify sets what happens with frames that have none; they succeed otherwise.
func (h *Host) OnNotify(f func(frameType string, req sdk.FrameRequest) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onNotify = f
}

// OnSend sets what the outbox says to a message; it takes all otherwise.
func (h *Host) OnSend(f func(req sdk.SendRequest) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onSend = f
}

// SetPeers sets the answer of Peers.
func (h *Host) SetPeers(view sdk.PeerView) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers = view
}

// Requests are the frames that had a reply, in order.
func (h *Host) Requests() []sdk.FrameRequest { return snapshot(h, &h.requests) }

// Notices are the frames that had none, in order.
func (h *Host) Notices() []sdk.FrameRequest { return snapshot(h, &h.notices) }

// Sends are the messages for the outbox, refused ones too, in order.
func (h *Host) Sends() []sdk.SendRequest { return snapshot(h, &h.sends) }

// Events are what was published, in order.
func (h *Host) Events() []Event { return snapshot(h, &h.events) }

func snapshot[T any](h *Host, list *[]T) []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(*list)
}

// frameType is the type of a frame; one without is refused, as the daemon does.
func frameType(frame jsontext.Value) (string, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(frame, &head); err != nil || head.Type == "" {
		return "", sdk.Errorf(sdk.CodeInvalid, "bad_frame", "a frame is a JSON object with a type")
	}
	return head.Type, nil
}

// Request records the frame and answers as OnRequest says.
func (h *Host) Request(_ context.Context, req sdk.FrameRequest) (jsontext.Value, error) {
	kind, err := frameType(req.Frame)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.requests = append(h.requests, req)
	answer := h.onRequest
	h.mu.Unlock()
	if answer == nil {
		return nil, sdk.Errorf(sdk.CodeUnavailable, "not_connected", "the mesh is not connected")
	}
	return answer(kind, req)
}

// Notify records the frame and does what OnNotify says.
func (h *Host) Notify(_ context.Context, req sdk.FrameRequest) error {
	kind, err := frameType(req.Frame)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.notices = append(h.notices, req)
	answer := h.onNotify
	h.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(kind, req)
}

// Send records the message and takes it, unless OnSend says otherwise.
func (h *Host) Send(_ context.Context, req sdk.SendRequest) (sdk.SendReply, error) {
	h.mu.Lock()
	h.sends = append(h.sends, req)
	answer := h.onSend
	h.mu.Unlock()
	if answer != nil {
		if err := answer(req); err != nil {
			return sdk.SendReply{}, err
		}
	}
	id := req.ClientMessageID
	if id == "" {
		id = "plugintest-message"
	}
	return sdk.SendReply{ID: id, ClientMessageID: id, Durable: true}, nil
}

// Peers answers what SetPeers said.
func (h *Host) Peers(context.Context, sdk.PeersRequest) (sdk.PeerView, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peers, nil
}

// Emit records the event.
func (h *Host) Emit(_ context.Context, kind string, data jsontext.Value) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, Event{Kind: kind, Data: data})
	return nil
}

// StoreGet reads a key.
func (h *Host) StoreGet(_ context.Context, key string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, ok := h.store[key]
	if !ok {
		return nil, sdk.Errorf(sdk.CodeNotFound, "no_key", "no key %q", key)
	}
	return slices.Clone(value), nil
}

// The limits of the daemon's store.
const (
	maxKey   = 512
	maxValue = 64 << 10
	maxKeys  = 10_000
)

// StorePut writes a key, within the daemon's limits.
func (h *Host) StorePut(_ context.Context, key string, value []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, there := h.store[key]
	switch {
	case key == "" || len(key) > maxKey || len(value) > maxValue:
		return sdk.Errorf(sdk.CodeInvalid, "too_large", "keys have 1 to %d bytes, values at most %d", maxKey, maxValue)
	case !there && len(h.store) >= maxKeys:
		return sdk.Errorf(sdk.CodeFull, "too_many_keys", "there are %d keys already", maxKeys)
	}
	h.store[key] = slices.Clone(value)
	return nil
}

// StoreDelete removes a key.
func (h *Host) StoreDelete(_ context.Context, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.store, key)
	return nil
}

// StoreList lists keys, sorted.
func (h *Host) StoreList(_ context.Context, prefix string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []string
	for key := range h.store {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
