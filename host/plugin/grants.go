package plugin

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

// Limits of what a plugin may hand to the host in one call.
const (
	maxFrame     = 65_536 // bytes of a finished frame (ARCHITECTURE 7)
	maxMessage   = 48_000 // bytes of text, the published limit (ARCHITECTURE 7)
	maxMessageID = 128
	maxEvent     = 65_536
	maxEventKind = 64
	maxStoreKey  = 512
	maxStoreItem = 64 << 10
	maxName      = 256 // a mesh, a target, an identity
)

// hostFrames are frame types that only the host sends: they make or break the
// connection, and sending is the outbox's.
var hostFrames = []string{"hello", "session_hello", "send", "client_ack"}

// guardedFrames need the operator's allow, declared or not: they act on other
// members, on secrets, on files or run things (ARCHITECTURE 4).
var guardedFrames = []string{
	"kick", "ban", "unban", "disconnect", "vault_*", "mcp_*", "mesh_execute",
	"graph_execute", "apikey_*", "peer_file_*", "peer_dir_*",
}

// grants are what one plugin may ask for.
type grants struct {
	declared []string // Description.Frames
	allow    []string // Spec.Allow
}

// frame checks a frame that the plugin wants sent.
func (g grants) frame(req sdk.FrameRequest) error {
	if len(req.Frame) > maxFrame {
		return sdk.Errorf(sdk.CodeInvalid, "frame_too_large", "the frame has %d bytes, at most %d are possible", len(req.Frame), maxFrame)
	}
	if err := shortNames(req.Mesh, req.Identity); err != nil {
		return err
	}
	typ, err := frameType(req.Frame)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(hostFrames, typ):
		return sdk.Errorf(sdk.CodePermission, "frame_reserved", "frames of type %q are the host's own; no plugin sends them", typ)
	case !slices.Contains(g.declared, typ):
		return sdk.Errorf(sdk.CodePermission, "frame_not_declared", "the plugin did not declare frames of type %q", typ).
			WithNext("Add it to Feature.Frames of the plugin.")
	case matches(guardedFrames, typ) && !matches(g.allow, typ):
		return sdk.Errorf(sdk.CodePermission, "frame_not_allowed", "frames of type %q need a grant", typ).
			WithNext(`Add allow = ["` + typ + `"] to the plugin's block in mesh.hcl.`)
	}
	return nil
}

// send checks a message that the plugin wants sent.
func (g grants) send(req sdk.SendRequest) error {
	switch {
	case !slices.Contains(g.allow, "send"):
		return sdk.Errorf(sdk.CodePermission, "send_not_allowed", "sending messages needs a grant").
			WithNext(`Add allow = ["send"] to the plugin's block in mesh.hcl.`)
	case len(req.Message) > maxMessage:
		return sdk.Errorf(sdk.CodeInvalid, "message_too_large", "the message has %d bytes, at most %d are possible", len(req.Message), maxMessage)
	case len(req.ClientMessageID) > maxMessageID:
		return sdk.Errorf(sdk.CodeInvalid, "client_message_id_too_long", "client_message_id has %d bytes, at most %d are possible", len(req.ClientMessageID), maxMessageID)
	}
	return shortNames(req.Mesh, req.To, req.Priority)
}

// event checks what the plugin wants published.
func (g grants) event(kind string, data jsontext.Value) error {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	}
	switch {
	case kind == "" || len(kind) > maxEventKind || strings.ContainsFunc(kind, odd):
		return sdk.Errorf(sdk.CodeInvalid, "bad_event_kind", "an event's kind is 1 to %d of a-z, 0-9, '.', '_' and '-'", maxEventKind)
	case len(data) > maxEvent:
		return sdk.Errorf(sdk.CodeInvalid, "event_too_large", "the event has %d bytes, at most %d are possible", len(data), maxEvent)
	case len(data) > 0 && !data.IsValid():
		return sdk.Errorf(sdk.CodeInvalid, "bad_event", "the event's data is not JSON")
	}
	return nil
}

// storeKey checks a key of the plugin's store.
func storeKey(key string) error {
	if key == "" || len(key) > maxStoreKey {
		return sdk.Errorf(sdk.CodeInvalid, "bad_key", "a key has 1 to %d bytes, this one has %d", maxStoreKey, len(key))
	}
	return nil
}

// storeValue checks a value of the plugin's store.
func storeValue(value []byte) error {
	if len(value) > maxStoreItem {
		return sdk.Errorf(sdk.CodeInvalid, "value_too_large", "the value has %d bytes, at most %d are possible", len(value), maxStoreItem)
	}
	return nil
}

func shortNames(names ...string) error {
	for _, n := range names {
		if len(n) > maxName {
			return sdk.Errorf(sdk.CodeInvalid, "name_too_long", "a name of %d bytes; at most %d are possible", len(n), maxName)
		}
	}
	return nil
}

// frameType reads the type of a frame as strictly as the wire does: a duplicate
// "type" could mean one thing here and another to the broker.
func frameType(frame jsontext.Value) (string, error) {
	var f struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return "", sdk.Errorf(sdk.CodeInvalid, "bad_frame", "the frame is not a JSON object with a type: %v", err)
	}
	if f.Type == nil || *f.Type == "" {
		return "", sdk.Errorf(sdk.CodeInvalid, "bad_frame", `the frame has no "type"`)
	}
	return *f.Type, nil
}

// matches reports whether name is in patterns; a pattern may end in *.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			// "*" alone would grant everything by an oversight.
			return prefix != "" && strings.HasPrefix(name, prefix)
		}
		return p == name
	})
}
