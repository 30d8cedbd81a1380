package wire

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ListPeers asks who is there (PROTOCOL 7.1).
type ListPeers struct {
	ReqID string `json:"_reqId,omitzero"`
}

// FrameType returns "list_peers".
func (ListPeers) FrameType() string { return TypeListPeers }

// Peer is one row of a peer list (PROTOCOL 7.1). Stats and Profile stay as they came, and members that this type doesn't
// name are kept in Extra, so that encoding a Peer gives the wire's row back.
type Peer struct {
	Pubkey       string         `json:"pubkey"`
	MemberPubkey string         `json:"memberPubkey,omitzero"`
	DisplayName  string         `json:"displayName"`
	Status       string         `json:"status"`
	Summary      *string        `json:"summary"`
	Groups       []Group        `json:"groups"`
	SessionID    string         `json:"sessionId"`
	ConnectedAt  string         `json:"connectedAt"` // ISO
	Cwd          string         `json:"cwd"`
	PeerRole     string         `json:"peerRole,omitzero"`
	Role         string         `json:"role,omitzero"` // brokers of one day sent the class under this name (PROTOCOL 8)
	Hostname     string         `json:"hostname,omitzero"`
	PeerType     string         `json:"peerType,omitzero"`
	Channel      string         `json:"channel,omitzero"`
	Model        string         `json:"model,omitzero"`
	Stats        jsontext.Value `json:"stats,omitzero"`
	Visible      *bool          `json:"visible,omitzero"`
	Profile      jsontext.Value `json:"profile,omitzero"`

	Extra jsontext.Value `json:",embed"`
}

// PeersList answers list_peers.
type PeersList struct {
	Peers []Peer `json:"peers"`
	ReqID string `json:"_reqId,omitzero"`
}

// FrameType returns "peers_list".
func (PeersList) FrameType() string { return TypePeersList }

// DecodePeers reads a peers_list row by row: one row of an odd shape costs that row only. bad counts such rows.
func DecodePeers(raw []byte) (peers []Peer, bad int, err error) {
	var list struct {
		Peers []jsontext.Value `json:"peers"`
	}
	if err := unmarshal(raw, &list, TypePeersList); err != nil {
		return nil, 0, err
	}
	if list.Peers == nil {
		return nil, 0, fmt.Errorf("%w: peers_list without peers", ErrMalformed)
	}
	peers = make([]Peer, 0, len(list.Peers))
	for _, row := range list.Peers {
		var p Peer
		if row.Kind() != '{' || json.Unmarshal(row, &p) != nil || p.Pubkey == "" {
			bad++
			continue
		}
		peers = append(peers, p)
	}
	return peers, bad, nil
}

// SetStatus sets the presence's status: idle, working or dnd (PROTOCOL 7.1, 4.6). No reply.
type SetStatus struct {
	Status string `json:"status"`
}

// FrameType returns "set_status".
func (SetStatus) FrameType() string { return TypeSetStatus }

// SetSummary sets the presence's one-line summary. No reply.
type SetSummary struct {
	Summary string `json:"summary"`
}

// FrameType returns "set_summary".
func (SetSummary) FrameType() string { return TypeSetSummary }

// SetVisible hides or shows the presence; the reply is an [Ack].
type SetVisible struct {
	Visible bool   `json:"visible"`
	ReqID   string `json:"_reqId,omitzero"`
}

// FrameType returns "set_visible".
func (SetVisible) FrameType() string { return TypeSetVisible }

// SetProfile merges the members that are present into the presence's profile; the reply is an [Ack].
type SetProfile struct {
	Avatar       *string  `json:"avatar,omitzero"`
	Title        *string  `json:"title,omitzero"`
	Bio          *string  `json:"bio,omitzero"`
	Capabilities []string `json:"capabilities,omitzero"`
	ReqID        string   `json:"_reqId,omitzero"`
}

// FrameType returns "set_profile".
func (SetProfile) FrameType() string { return TypeSetProfile }

// SetStats replaces the presence's counters, kept as they came. No reply.
type SetStats struct {
	Stats jsontext.Value `json:"stats"`
}

// FrameType returns "set_stats".
func (SetStats) FrameType() string { return TypeSetStats }

// JoinGroup adds the presence to a group or changes its role in it. No reply.
type JoinGroup struct {
	Name string `json:"name"`
	Role string `json:"role,omitzero"`
}

// FrameType returns "join_group".
func (JoinGroup) FrameType() string { return TypeJoinGroup }

// LeaveGroup takes the presence out of a group. No reply.
type LeaveGroup struct {
	Name string `json:"name"`
}

// FrameType returns "leave_group".
func (LeaveGroup) FrameType() string { return TypeLeaveGroup }
