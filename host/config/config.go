package config

import (
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// Config is a whole configuration without mistakes. All paths are absolute.
type Config struct {
	// DataDir holds everything that the host keeps; a directory of the user's own where nothing is said.
	DataDir string
	// PluginDir is where plugin binaries lie; default: "plugins" beside the executable.
	PluginDir string
	// Meshes are in the order written, at least one; names are unique.
	Meshes []*Mesh
	// Uses are the plugin blocks in the order written: outbox, push_handler, peer_filter and rpc_feature. There is at
	// least one outbox and one push handler. Handlers and filters run in this order.
	Uses []*Use
	// Programs are the `plugin "x" {}` blocks by label. What a use takes from one is already in [Use.Process].
	Programs map[string]*Program
	// Control is the local API.
	Control Control
	// Log is the host's own log.
	Log Log
}

// Of returns the uses of one kind in the order written.
func (c *Config) Of(kind sdk.Kind) []*Use {
	var uses []*Use
	for _, u := range c.Uses {
		if u.Kind == kind {
			uses = append(uses, u)
		}
	}
	return uses
}

// Mesh is a `mesh "team" {}` block: one member of one mesh.
type Mesh struct {
	// Name is the label; the CLI and the API know the mesh by it.
	Name string
	// BrokerURL is ws:// (loopback only) or wss://.
	BrokerURL string
	// MeshID and MemberID are the broker's ids, never empty.
	MeshID   string
	MemberID string
	// SecretKeyFile is the member's key file and Key what it holds. The file belonged to this user alone when it was read.
	SecretKeyFile string
	Key           *identity.Key
	// DisplayName may be empty.
	DisplayName string
	// Outbox is the [Use.Name] of the one outbox that sends for this mesh.
	Outbox string

	at place
}

// OnError says what a list shows while a peer filter is broken (ARCHITECTURE 4).
type OnError string

// The values of on_error.
const (
	OnErrorSkip OnError = "skip" // the filter is left out, with a warning
	OnErrorHide OnError = "hide" // every row is withheld
	OnErrorFail OnError = "fail" // the list fails
)

// Use is an outbox, push_handler, peer_filter or rpc_feature block: one process with one configuration.
type Use struct {
	// Kind is the type of the block.
	Kind sdk.Kind
	// Label names the plugin, Name this use of it; Name is unique per kind and the label by default.
	Label string
	Name  string
	// Plugin is the label of the `plugin "x" {}` block that this use names; empty without one.
	Plugin string
	// Allow are the grants beyond what every plugin may do: "send", frame types such as "kick", patterns such as "vault_*".
	Allow []string
	// OnError has a meaning for a peer filter only; there it is never empty.
	OnError OnError
	// DataDir is the plugin's own directory, data_dir/plugins/PREFIX-NAME. Load does not make it.
	DataDir string
	// Process says what to start and how.
	Process Process

	body hcl.Body // of config {}, or hcl.EmptyBody()
	at   place
	conf place // the header of config {}, else that of the block
}

// ID names the use in logs and in file names: the kind's prefix and the name, such as push-inbox.
func (u *Use) ID() string { return u.Kind.Prefix() + "-" + u.Name }

// Process says which program to start and how to keep it running.
type Process struct {
	// Path is the binary; it existed and was executable when the configuration was read.
	Path string
	// SHA256 is what the binary must hash to, 64 lowercase hex digits; empty: unchecked.
	SHA256 string
	Args   []string
	// Env is added to the little environment that every plugin gets.
	Env      map[string]string
	Timeouts Timeouts
	Restart  Restart
}

// Timeouts bound what a plugin may take; zero is the default of host/plugin.
type Timeouts struct {
	Start time.Duration
	Call  time.Duration
}

// Restart is how a plugin that ended comes back (ARCHITECTURE 4, Supervision).
type Restart struct {
	// Initial is the second wait (the first restart is at once); each doubles, to Max.
	Initial time.Duration
	Max     time.Duration
	// Crashes within Window put the plugin in quarantine; 0: never.
	Crashes int
	Window  time.Duration
}

// defaultRestart is the policy of a plugin that says nothing of it.
var defaultRestart = Restart{Initial: 250 * time.Millisecond, Max: 30 * time.Second, Crashes: 5, Window: 10 * time.Minute}

// Program is a `plugin "x" {}` block.
type Program struct {
	// Label is what `plugin = "x"` names.
	Label string
	// Process is what the block says; Path is empty when it leaves the conventional binary of each use in force.
	Process Process

	at place
}

// Control is the `control {}` block.
type Control struct {
	// Socket is the path of the local API, at most MaxSocketPath bytes; see [DefaultSocket].
	Socket string
}

// MaxSocketPath bounds the path of a Unix socket in bytes: the kernel's limit is 108 on Linux and 104 on macOS.
const MaxSocketPath = 100

// Log is the `log {}` block.
type Log struct {
	// Level is trace, debug, info, warn or error; default info.
	Level string
	// Format is auto, text or json; auto, the default, is text on a terminal and JSON elsewhere.
	Format string
}

// pluginDataDir is where the plugin of a use keeps its files.
func pluginDataDir(dataDir string, u *Use) string {
	return filepath.Join(dataDir, "plugins", u.ID())
}
