package control

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// Outbound accepts messages.
type Outbound interface {
	// Send puts a message in the outbox and returns once the outbox has it.
	// Errors: *Conflict, *Ambiguous, *MeshRequired, *UnknownOutcome, *Problem,
	// *sdk.Error.
	Send(ctx context.Context, req SendRequest) (SendReply, error)
	// SendMany is Send for several messages at once. It returns when they are on
	// their way to the outbox, in their order; wait, which must be called, returns
	// the outcomes in the same order.
	SendMany(ctx context.Context, reqs []SendRequest) (wait func() []SendOutcome)
}

// SendOutcome is what became of one of several messages.
type SendOutcome struct {
	Reply SendReply
	Err   error // as of Send
}

// Outbox shows and changes what is queued. An id is an entry's id.
type Outbox interface {
	// List pages through entries, newest first, bodies left out.
	List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error)
	// Get returns one entry and whether it is in flight right now;
	// sdk.ErrNotFound if there is none.
	Get(ctx context.Context, id string) (entry *sdk.Entry, inflight bool, err error)
	// Inflight lists the ids that are in flight right now; bounded by the
	// host's send windows.
	Inflight() []string
	// Requeue makes a dead, expired or cancelled entry pending again and
	// returns it; sdk.ErrConflict in any other state.
	Requeue(ctx context.Context, id string) (*sdk.Entry, error)
	// Cancel stops an entry that was not sent yet; sdk.ErrConflict with reason
	// "in_flight" or "not_cancellable".
	Cancel(ctx context.Context, id string) error
	// Wait returns the entry once it is in state (accepted or delivered) or can
	// no longer get there, and the context's error when that ends first.
	Wait(ctx context.Context, id string, state sdk.EntryState) (*sdk.Entry, error)
	// Trace returns the way of a message by its id, its client_message_id or the
	// broker's id; sdk.ErrNotFound if it is not known.
	Trace(ctx context.Context, id string) (*MessageTrace, error)
}

// Peers lists peers through the filters.
type Peers interface {
	// Peers lists one mesh, or with an empty name every mesh.
	Peers(ctx context.Context, mesh string, all bool) (sdk.PeerView, error)
}

// Features are the RPC features of the running plugins.
type Features interface {
	// Features lists them in the order of the configuration.
	Features(ctx context.Context) ([]Feature, error)
	// Call runs a method; sdk.ErrNotFound with reason "no_feature" or
	// "no_method", sdk.ErrUnavailable while the plugin is down.
	Call(ctx context.Context, feature string, call sdk.Call) (jsontext.Value, error)
}

// Plugins are the plugin processes.
type Plugins interface {
	Plugins(ctx context.Context) ([]PluginStatus, error)
}

// Overview is the state of the host as a whole.
type Overview interface {
	Status(ctx context.Context) (Status, error)
}

// SendRequest is what a program asks to send (PROTOCOL 10.4).
type SendRequest struct {
	To       string
	Message  string
	Priority string // now, next, low; empty: next
	// Meta is a JSON object or empty; it enters the fingerprint only.
	Meta      jsontext.Value
	ReplyToID string
	// ClientMessageID is the caller's idempotency key; empty: the host makes one.
	ClientMessageID string
	// Mesh is the mesh's name; empty: the only one.
	Mesh string
}

// SendReply says what the outbox did.
type SendReply struct {
	ID              string
	ClientMessageID string
	// Status is queued, inflight or done (PROTOCOL 10.4's table).
	Status string
	// Duplicate is true when the same message was there already.
	Duplicate       bool
	BrokerMessageID string
	// Durable is false when the outbox forgets at its exit.
	Durable  bool
	Resolved Resolved
}

// Resolved says how the target's name became a key.
type Resolved struct {
	// Target is the wire's targetSpec.
	Target string `json:"target"`
	Name   string `json:"name,omitempty"`
	// From is "live" (a fresh peer list), "directory" (seen before) or
	// "verbatim" (as written).
	From string `json:"from"`
}

// Feature is one RPC feature as the API shows it.
type Feature struct {
	Name string `json:"name"`
	// Plugin is the block that brings it, such as "rpc_feature.state".
	Plugin string `json:"plugin"`
	// State is the plugin's state; methods answer while it is "ready".
	State         string       `json:"state"`
	Version       string       `json:"version,omitempty"`
	Doc           string       `json:"doc,omitempty"`
	DefaultMethod string       `json:"default_method,omitempty"`
	Methods       []sdk.Method `json:"methods"`
}

// The states of a plugin process (ARCHITECTURE 4, Supervision).
const (
	PluginStarting    = "starting"
	PluginReady       = "ready"
	PluginDraining    = "draining"
	PluginBackoff     = "backoff"
	PluginQuarantined = "quarantined"
	PluginStopped     = "stopped"
)

// PluginStatus is one plugin process. It never carries values of its
// configuration.
type PluginStatus struct {
	// Kind and Name identify the block: outbox "sqlite".
	Kind    sdk.Kind   `json:"kind"`
	Name    string     `json:"name"`
	Kinds   []sdk.Kind `json:"kinds,omitempty"`
	State   string     `json:"state"`
	Version string     `json:"version,omitempty"`
	PID     int        `json:"pid,omitzero"`
	// Since is when it entered State.
	Since    time.Time `json:"since,omitzero"`
	Restarts int       `json:"restarts"`
	// LastError is the last crash report or refusal, one line.
	LastError string `json:"last_error,omitempty"`
	Path      string `json:"path,omitempty"`
	SHA256    string `json:"sha256,omitempty"`
	// Description is what the plugin said of itself; nil until it did.
	Description *sdk.Description `json:"description,omitempty"`
}

// Settled reports whether the plugin is up or known to be broken. One that has
// failed and waits for its next start is known to be: an outbox may do so for
// ever.
func (p *PluginStatus) Settled() bool {
	return p.State != PluginStarting && p.State != PluginDraining && p.State != ""
}

// The states of a mesh (PROTOCOL 10.3, /v1/health), and ours for a terminal
// rejection.
const (
	MeshConnecting   = "connecting"
	MeshOpen         = "open"
	MeshClosed       = "closed"
	MeshReconnecting = "reconnecting"
	MeshRejected     = "rejected"
)

// MeshStatus is one mesh.
type MeshStatus struct {
	Name      string `json:"name"`
	MeshID    string `json:"mesh_id,omitempty"`
	MemberID  string `json:"member_id,omitempty"`
	PubKey    string `json:"pubkey,omitempty"`
	BrokerURL string `json:"broker_url,omitempty"`
	State     string `json:"state"`
	// Since is when it entered State.
	Since time.Time `json:"since,omitzero"`
	// Detail is the last refusal or network error, one line.
	Detail string `json:"detail,omitempty"`
	// Outbox is the outbox that serves it.
	Outbox string `json:"outbox,omitempty"`
}

// OutboxStatus counts what one outbox holds.
type OutboxStatus struct {
	Name    string                   `json:"name"`
	Durable bool                     `json:"durable"`
	States  map[sdk.EntryState]int64 `json:"states,omitempty"`
	// Bytes is the sum of the bodies.
	Bytes      int64     `json:"bytes"`
	OldestLive time.Time `json:"oldest_live,omitzero"`
	// Error says why there are no numbers.
	Error string `json:"error,omitempty"`
}

// Status is the host as a whole.
type Status struct {
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	StartedAt time.Time      `json:"started_at,omitzero"`
	UptimeMS  int64          `json:"uptime_ms"`
	DataDir   string         `json:"data_dir,omitempty"`
	Socket    string         `json:"socket,omitempty"`
	Meshes    []MeshStatus   `json:"meshes"`
	Plugins   []PluginStatus `json:"plugins"`
	Outboxes  []OutboxStatus `json:"outboxes"`
	Warnings  []string       `json:"warnings,omitempty"`
}
