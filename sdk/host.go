package sdk

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Host is what a plugin can ask of the daemon. Keys and sockets never leave it.
// Errors are *Error values: ErrUnavailable while a mesh is not connected,
// ErrPermission for what the plugin neither declared nor was allowed.
type Host interface {
	// Request sends a frame whose type the feature declared, with an id of the
	// host's choosing, and returns the reply.
	Request(ctx context.Context, req FrameRequest) (jsontext.Value, error)
	// Notify sends a declared frame that has no reply.
	Notify(ctx context.Context, req FrameRequest) error
	// Send puts a message in the outbox; it needs allow = ["send"].
	Send(ctx context.Context, req SendRequest) (SendReply, error)
	// Peers returns the filtered peer list of a mesh.
	Peers(ctx context.Context, req PeersRequest) (PeerView, error)
	// Emit publishes an event on the local API; its kind becomes NAME.kind,
	// NAME being the plugin's block name.
	Emit(ctx context.Context, kind string, data jsontext.Value) error

	// StoreGet, StorePut, StoreDelete and StoreList are a small durable
	// key-value space of this plugin's own: keys to 512 bytes, values to 64 KiB,
	// 10,000 keys. StoreGet answers ErrNotFound.
	StoreGet(ctx context.Context, key string) ([]byte, error)
	StorePut(ctx context.Context, key string, value []byte) error
	StoreDelete(ctx context.Context, key string) error
	StoreList(ctx context.Context, prefix string) ([]string, error)
}

// FrameRequest is a frame for the mesh.
type FrameRequest struct {
	// Mesh is the mesh's name in mesh.hcl; empty: the only one.
	Mesh string
	// Identity is a session's public key; empty: the member.
	Identity string
	// Frame is a JSON object with a "type"; ids are the host's to add.
	Frame jsontext.Value
}

// SendRequest is a message for the outbox.
type SendRequest struct {
	Mesh            string
	To              string
	Message         string
	Priority        string // empty: next
	ClientMessageID string // empty: the host makes one
}

// SendReply says what the outbox did.
type SendReply struct {
	ID              string
	ClientMessageID string
	Durable         bool
}

// PeersRequest asks for a peer list.
type PeersRequest struct {
	Mesh string
	// All shows what filters would hide.
	All bool
}

// PeerView is a filtered list.
type PeerView struct {
	Peers    []Peer
	Hidden   []HiddenCount
	Warnings []string
}

// HiddenCount counts rows that one filter hid for one reason.
type HiddenCount struct {
	Filter string `json:"filter"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// Connected tells a feature that an identity's connection is up.
type Connected struct {
	Mesh       string
	Identity   string // public key
	PresenceID string
	At         time.Time
}

// Frame is an unsolicited frame of a type that the feature watches.
type Frame struct {
	Mesh     string
	Identity string
	Type     string
	Frame    jsontext.Value
}
