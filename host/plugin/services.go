package plugin

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

// Services is what the daemon does for plugins; package host implements it.
// Every call was checked against the caller's grants and limits before it gets
// here. Errors that a plugin should understand are *sdk.Error values; others
// reach it as internal, without their text.
type Services interface {
	// Request sends a frame of a type that the plugin declared and returns the
	// reply.
	Request(ctx context.Context, caller Caller, req sdk.FrameRequest) (jsontext.Value, error)
	// Notify sends a declared frame that has no reply.
	Notify(ctx context.Context, caller Caller, req sdk.FrameRequest) error
	// Send puts a message in the outbox; the caller was allowed to.
	Send(ctx context.Context, caller Caller, req sdk.SendRequest) (sdk.SendReply, error)
	// Peers returns the filtered peer list.
	Peers(ctx context.Context, caller Caller, req sdk.PeersRequest) (sdk.PeerView, error)
	// Emit publishes an event of kind caller.Name + "." + kind.
	Emit(ctx context.Context, caller Caller, kind string, data jsontext.Value) error

	// StoreGet, StorePut, StoreDelete and StoreList are the key-value space of
	// caller.Space(). The number of keys is for the implementation to bound.
	StoreGet(ctx context.Context, caller Caller, key string) ([]byte, error)
	StorePut(ctx context.Context, caller Caller, key string, value []byte) error
	StoreDelete(ctx context.Context, caller Caller, key string) error
	StoreList(ctx context.Context, caller Caller, prefix string) ([]string, error)
}

// Caller is the plugin that calls a service, known by its socket and token.
type Caller struct {
	Kind sdk.Kind
	Name string
}

// Space names what belongs to this plugin alone, such as "push-inbox".
func (c Caller) Space() string { return c.Kind.Prefix() + "-" + c.Name }
