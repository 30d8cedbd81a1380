package sdk

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// PeerFilter decides which peers a list shows. It is a pure function of its
// input: the host may cache and may call it again.
type PeerFilter interface {
	// Filter returns one verdict for each row, in order. It has 250 ms.
	Filter(ctx context.Context, query PeerQuery, rows []Peer) ([]Verdict, error)
}

// PeerQuery says who asks for which list.
type PeerQuery struct {
	Mesh string
	// Viewer is the public key of the identity that asks, 64 hex digits.
	Viewer string
	// All is true when the caller asked to see hidden rows too; the host then
	// reports verdicts without acting on them.
	All bool
}

// Role is the class of a peer's connection, normalised by the host (PROTOCOL 8).
const (
	RoleControlPlane = "control-plane"
	RoleSession      = "session"
	RoleService      = "service"
)

// Group is a group that a peer is in.
type Group struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
}

// Peer is one row of the mesh's peer list.
type Peer struct {
	Mesh         string
	PubKey       string // routing key, 64 hex digits
	MemberPubKey string
	DisplayName  string
	Status       string // idle, working or dnd
	Summary      string
	Groups       []Group
	SessionID    string
	ConnectedAt  time.Time
	Cwd          string
	// Role is one of the Role constants, never empty.
	Role     string
	Hostname string
	PeerType string
	Channel  string
	Model    string
	// Visible is nil when the broker did not say.
	Visible *bool
	// Wire is the row as the broker sent it.
	Wire jsontext.Value
	// Annotations are what earlier filters added.
	Annotations map[string]string
}

// Verdict is what a filter says of one row.
type Verdict struct {
	// Hide withholds the row; Reason, a short word, is what lists count by.
	Hide   bool
	Reason string
	// Annotations are added to the row.
	Annotations map[string]string
}
