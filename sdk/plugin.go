package sdk

import (
	"context"

	"github.com/hashicorp/go-hclog"
)

// Version is the version of this SDK, reported by Describe.
const Version = "0.1.0"

// Kind names one of the four things that a plugin can be. The values are the
// block types of mesh.hcl.
type Kind string

// The kinds of a plugin.
const (
	KindOutbox      Kind = "outbox"
	KindPushHandler Kind = "push_handler"
	KindPeerFilter  Kind = "peer_filter"
	KindFeature     Kind = "rpc_feature"
)

// Prefix is the word that a kind has in file names: the binary of
// `push_handler "inbox"` is meshhost-push-inbox and its data directory
// push-inbox. It is empty for an unknown kind.
func (k Kind) Prefix() string {
	switch k {
	case KindOutbox:
		return "outbox"
	case KindPushHandler:
		return "push"
	case KindPeerFilter:
		return "filter"
	case KindFeature:
		return "feature"
	default:
		return ""
	}
}

// Plugin is what a program hands to Serve: who it is and what it does. At
// least one of Outbox, PushHandler, PeerFilter and Feature is set. The kind of
// the block that started the process is live, and so is Feature, under any block.
type Plugin struct {
	// Name is the label that a block uses for this plugin, such as "sqlite".
	Name string
	// Version is the plugin's own version, such as "1.2.0".
	Version string
	// Doc says in one line what the plugin does.
	Doc string

	// Config declares the options and receives their values; made by
	// Configured. Nil: the plugin takes no options and needs no setup.
	Config Configurer
	// Drain finishes what is in flight; no call comes after it but Configure. It
	// comes only after a Configure that succeeded. Nil: nothing to finish.
	Drain func(ctx context.Context) error
	// Stop releases what Configure opened, before the process exits; it does not
	// come where Configure never succeeded.
	Stop func() error

	// Outbox stores messages until the mesh has taken them.
	Outbox Outbox
	// Durable says that the outbox keeps its promise over kill -9 and power
	// loss. Where it is false the host warns and tells each sender.
	Durable bool

	// PushHandler receives what the mesh pushes.
	PushHandler PushHandler
	// Wants chooses the pushes that PushHandler gets; empty: all of them.
	Wants []Want

	// PeerFilter decides which peers a list shows.
	PeerFilter PeerFilter

	// Feature brings methods, and with them CLI verbs and HTTP routes.
	Feature *Feature
}

// Env is what a plugin gets with its configuration. It is valid until the next
// Configure or the end of the process.
type Env struct {
	// Name is the name of the block that started this process.
	Name string
	// DataDir is a directory of the plugin's own, mode 0700, that exists.
	DataDir string
	// Host calls back into the daemon.
	Host Host
	// Logger writes to the daemon's log under the plugin's name.
	Logger hclog.Logger
}

// Description is what a plugin says of itself before it has any configuration.
type Description struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Doc        string `json:"doc,omitempty"`
	SDKVersion string `json:"sdk_version"`
	// Protocol is the version of the plugin protocol, ProtocolVersion here.
	Protocol int    `json:"protocol"`
	Kinds    []Kind `json:"kinds"`
	// Durable is Plugin.Durable; it has a meaning for an outbox only.
	Durable bool   `json:"durable,omitzero"`
	Schema  Schema `json:"schema"`
	// Wants are the pushes that the push handler gets.
	Wants []Want `json:"wants,omitempty"`
	// Methods, DefaultMethod, Frames and Watches are the feature's, see Feature.
	Methods       []Method `json:"methods,omitempty"`
	DefaultMethod string   `json:"default_method,omitempty"`
	Frames        []string `json:"frames,omitempty"`
	Watches       []string `json:"watches,omitempty"`
	OnConnect     bool     `json:"on_connect,omitzero"`
}

// Has reports whether the plugin is of kind k.
func (d Description) Has(k Kind) bool {
	for _, have := range d.Kinds {
		if have == k {
			return true
		}
	}
	return false
}
