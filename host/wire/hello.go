package wire

import "github.com/go-json-experiment/json/jsontext"

// Group is a membership of a presence (PROTOCOL 2.1).
type Group struct {
	Name string `json:"name"`
	Role string `json:"role,omitzero"`
}

// Hello authenticates a member connection (PROTOCOL 2.1). SessionID, PID and Cwd are needed: without one the broker says nothing.
type Hello struct {
	MeshID        string  `json:"meshId"`
	MemberID      string  `json:"memberId"`
	Pubkey        string  `json:"pubkey"`
	SessionPubkey string  `json:"sessionPubkey,omitzero"`
	DisplayName   string  `json:"displayName,omitzero"`
	SessionID     string  `json:"sessionId"`
	PID           int32   `json:"pid"`
	Cwd           string  `json:"cwd"`
	Hostname      string  `json:"hostname,omitzero"`
	PeerType      string  `json:"peerType,omitzero"`
	Channel       string  `json:"channel,omitzero"`
	Model         string  `json:"model,omitzero"`
	Groups        []Group `json:"groups,omitempty"`
	Timestamp     int64   `json:"timestamp"` // ms
	Signature     string  `json:"signature"`
}

// FrameType returns "hello".
func (Hello) FrameType() string { return TypeHello }

// Attestation is a member's word for a session key (PROTOCOL 3.2). ExpiresAt in ms since the epoch.
type Attestation struct {
	SessionPubkey      string `json:"sessionPubkey"`
	ParentMemberPubkey string `json:"parentMemberPubkey"`
	ExpiresAt          int64  `json:"expiresAt"`
	Signature          string `json:"signature"`
}

// SessionHello authenticates a session connection (PROTOCOL 3.1). Groups: nil takes the member's defaults, empty takes none.
type SessionHello struct {
	MeshID             string      `json:"meshId"`
	ParentMemberID     string      `json:"parentMemberId"`
	ParentMemberPubkey string      `json:"parentMemberPubkey"`
	SessionPubkey      string      `json:"sessionPubkey"`
	ParentAttestation  Attestation `json:"parentAttestation"`
	DisplayName        string      `json:"displayName,omitzero"`
	SessionID          string      `json:"sessionId"`
	PID                int32       `json:"pid"`
	Cwd                string      `json:"cwd"`
	Hostname           string      `json:"hostname,omitzero"`
	PeerType           string      `json:"peerType,omitzero"`
	Channel            string      `json:"channel,omitzero"`
	Model              string      `json:"model,omitzero"`
	Groups             []Group     `json:"groups,omitzero"`
	Role               string      `json:"role,omitzero"`
	Timestamp          int64       `json:"timestamp"` // ms
	Signature          string      `json:"signature"`
}

// FrameType returns "session_hello".
func (SessionHello) FrameType() string { return TypeSessionHello }

// MemberProfile is what the broker stores of a member (PROTOCOL 2.4).
type MemberProfile struct {
	RoleTag     *string `json:"roleTag"`
	Groups      []Group `json:"groups"`
	MessageMode string  `json:"messageMode"`
}

// HelloAck accepts a hello (PROTOCOL 2.4). A nil MemberProfile means that a session's presence was re-attached (3.4).
type HelloAck struct {
	PresenceID        string         `json:"presenceId"`
	MemberDisplayName string         `json:"memberDisplayName"`
	MemberProfile     *MemberProfile `json:"memberProfile,omitzero"`
	MeshPolicy        jsontext.Value `json:"meshPolicy,omitzero"`
	Restored          bool           `json:"restored,omitzero"`
	LastSummary       *string        `json:"lastSummary,omitzero"`
	LastSeenAt        *string        `json:"lastSeenAt,omitzero"` // ISO
	RestoredGroups    []Group        `json:"restoredGroups,omitzero"`
	RestoredStats     jsontext.Value `json:"restoredStats,omitzero"`
	Services          jsontext.Value `json:"services,omitzero"`
}

// FrameType returns "hello_ack".
func (HelloAck) FrameType() string { return TypeHelloAck }

// DecodeHelloAck reads a hello_ack. Of one with a member of an odd shape only the presence is read, and whether there is a
// profile: the broker hands back what any client of the member once saved, and that mustn't keep us out.
func DecodeHelloAck(raw []byte) (*HelloAck, error) {
	ack := new(HelloAck)
	if Decode(raw, ack) == nil {
		return ack, nil
	}
	var least struct {
		PresenceID    string         `json:"presenceId"`
		MemberProfile jsontext.Value `json:"memberProfile"`
	}
	if err := unmarshal(raw, &least, TypeHelloAck); err != nil {
		return nil, err
	}
	ack = &HelloAck{PresenceID: least.PresenceID}
	if least.MemberProfile.Kind() == '{' {
		ack.MemberProfile = new(MemberProfile)
	}
	return ack, nil
}

// Error is the broker's refusal (PROTOCOL 1.6). Topic errors carry the request's id in ID instead of ReqID.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	ID      string `json:"id,omitzero"`
	ReqID   string `json:"_reqId,omitzero"`
}

// FrameType returns "error".
func (Error) FrameType() string { return TypeError }
