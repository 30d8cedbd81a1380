package devbroker

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type helloFrame struct {
	MeshID        text           `json:"meshId"`
	MemberID      text           `json:"memberId"`
	Pubkey        text           `json:"pubkey"`
	SessionID     text           `json:"sessionId"`
	PID           number         `json:"pid"`
	Cwd           text           `json:"cwd"`
	Timestamp     number         `json:"timestamp"`
	Signature     text           `json:"signature"`
	SessionPubkey text           `json:"sessionPubkey"`
	DisplayName   text           `json:"displayName"`
	Hostname      jsontext.Value `json:"hostname"`
	PeerType      jsontext.Value `json:"peerType"`
	Channel       jsontext.Value `json:"channel"`
	Model         jsontext.Value `json:"model"`
	Groups        jsontext.Value `json:"groups"`

	ParentMemberID     text           `json:"parentMemberId"`
	ParentMemberPubkey text           `json:"parentMemberPubkey"`
	ParentAttestation  jsontext.Value `json:"parentAttestation"`
}

type attestation struct {
	SessionPubkey      text   `json:"sessionPubkey"`
	ParentMemberPubkey text   `json:"parentMemberPubkey"`
	ExpiresAt          number `json:"expiresAt"`
	Signature          text   `json:"signature"`
}

type memberProfile struct {
	RoleTag     *string `json:"roleTag"`
	Groups      []group `json:"groups"`
	MessageMode string  `json:"messageMode"`
}

type selfEditable struct {
	Groups      bool `json:"groups"`
	RoleTag     bool `json:"roleTag"`
	DisplayName bool `json:"displayName"`
	MessageMode bool `json:"messageMode"`
}

type meshPolicy struct {
	SelfEditable selfEditable `json:"selfEditable"`
}

type helloAck struct {
	Type              string         `json:"type"`
	PresenceID        string         `json:"presenceId"`
	MemberDisplayName string         `json:"memberDisplayName"`
	MemberProfile     *memberProfile `json:"memberProfile,omitzero"`
	MeshPolicy        meshPolicy     `json:"meshPolicy"`
	Restored          bool           `json:"restored,omitzero"`
	LastSummary       *string        `json:"lastSummary,omitzero"`
	LastSeenAt        string         `json:"lastSeenAt,omitzero"`
	RestoredGroups    []group        `json:"restoredGroups,omitempty"`
	RestoredStats     *sums          `json:"restoredStats,omitzero"`
	Services          []struct{}     `json:"services,omitzero"`
}

func newAck(p *presence) helloAck {
	return helloAck{
		Type: "hello_ack", PresenceID: p.id, MemberDisplayName: p.name,
		MemberProfile: &memberProfile{Groups: []group{}, MessageMode: "push"},
		MeshPolicy:    meshPolicy{selfEditable{true, true, true, true}},
	}
}

// refuse sends an error frame and, with a close code, closes the socket with the error's code as its reason.
func (c *conn) refuse(code, message string, closeCode uint16) {
	raw, err := json.Marshal(errorFrame{Type: "error", Code: code, Message: message})
	if err != nil {
		c.b.log.Error("frame not encoded", "error", err)
		return
	}
	if c.b.frames != nil {
		c.b.frames.write(c.id, "out", raw)
	}
	c.enqueue(opText, raw)
	switch {
	case code == "revoked":
		c.closeWith(4002, "banned")
	case closeCode != 0:
		c.closeWith(closeCode, code)
	}
}

// verdict is "" or the code of a failed signature check: timestamp_skew, malformed or bad_signature, in this order.
func verdict(ts number, now time.Time, pub, signed string, sig text) string {
	if !ts.OK || math.Abs(ts.F-float64(now.UnixMilli())) > float64(helloSkew/time.Millisecond) {
		return "timestamp_skew"
	}
	return checkSignature(pub, signed, sig)
}

// checkSignature verifies a detached ed25519 signature; hex of either case is taken (PROTOCOL 2.2). The broker has its own
// verifier and not host/identity's, so that a mistake there can't agree with itself.
func checkSignature(pub, signed string, sig text) string {
	key, err := hex.DecodeString(pub)
	raw, err2 := hex.DecodeString(sig.S)
	if err != nil || err2 != nil || len(key) != ed25519.PublicKeySize || len(raw) != ed25519.SignatureSize {
		return "malformed"
	}
	if !ed25519.Verify(key, []byte(signed), raw) {
		return "bad_signature"
	}
	return ""
}

// full says whether the mesh takes no more connections; it is asked before anything else, re-attaching included.
func (b *Broker) full(m *mesh) bool {
	if m == nil || b.opts.Capacity <= 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.live) >= b.opts.Capacity
}

func revokedText(slug string) string {
	return fmt.Sprintf("You've been removed from %q. Contact the mesh owner to rejoin.", slug)
}

// hello is a member's first frame (PROTOCOL 2.3: the order of the checks).
func (c *conn) hello(msg []byte) {
	var f helloFrame
	if unmarshal(msg, &f) != nil {
		return
	}
	m := c.b.meshes[f.MeshID.S]
	switch {
	case f.SessionPubkey.S != "" && !lowerHex64.MatchString(f.SessionPubkey.S):
		c.refuse("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars", 1008)
		return
	case c.b.full(m):
		c.refuse("capacity", "mesh at connection capacity", 1008)
		return
	}
	signed := f.MeshID.S + "|" + f.MemberID.S + "|" + f.Pubkey.S + "|" + f.Timestamp.String()
	if code := verdict(f.Timestamp, c.b.opts.Now(), f.Pubkey.S, signed, f.Signature); code != "" {
		c.refuse(code, "hello rejected: "+code, 1008)
		return
	}
	if m == nil {
		c.refuse("unauthorized", "pubkey not found in mesh", 1008)
		return
	}
	c.admit(m, f.Pubkey.S, "pubkey not found in mesh", "", func(t *turn, who *member) { t.hello(who, &f) })
}

// admit finds the member and runs f in the mesh. memberID is compared if it is not "".
func (c *conn) admit(m *mesh, pub, unknown, memberID string, f func(t *turn, who *member)) {
	m.mu.Lock()
	who := m.members[pub]
	revoked := who != nil && who.revoked
	m.mu.Unlock()
	switch {
	case revoked:
		c.refuse("revoked", revokedText(m.slug), 4002)
	case who == nil:
		c.refuse("unauthorized", unknown, 1008)
	case memberID != "" && memberID != who.MemberID:
		c.refuse("parent_member_id_mismatch", "parentMemberId does not match parentMemberPubkey", 1008)
	default:
		m.turn(c, func(t *turn) { f(t, who) })
	}
}

// hello finds or makes the presence: re-attach, else de-duplicate, else new (PROTOCOL 2.7).
func (t *turn) hello(who *member, f *helloFrame) {
	for _, p := range t.m.live {
		same := p.sessionKey == "" && f.SessionPubkey.S == "" && f.SessionID.OK && p.sessionID == f.SessionID.S && p.member == who
		if p.leased && (same || f.SessionPubkey.S != "" && p.sessionKey == f.SessionPubkey.S) {
			t.reattach(p, f, who)
			ack := newAck(p)
			ack.Services = []struct{}{}
			t.reply(ack)
			t.drain(p)
			return
		}
	}
	t.deduplicate(f.SessionID)
	if !f.SessionID.OK || !f.PID.OK || !f.Cwd.OK {
		return // the reference's insert fails and nobody is told
	}
	p := t.newPresence(who, f, roleControl, f.SessionPubkey.S)
	given, _ := parseGroups(f.Groups)
	ack := newAck(p)
	ack.Services = []struct{}{}
	event := joinedData{Name: p.name, Pubkey: p.routingKey()}
	name := "peer_joined"
	if s := who.saved; s != nil {
		name = "peer_returned"
		p.groups, p.profile, p.visible = slices.Clone(s.Groups), s.Profile, s.Visible
		ack.Restored, ack.LastSummary, ack.LastSeenAt = true, s.Summary, iso(s.SeenAt)
		ack.RestoredGroups, ack.RestoredStats = s.Groups, &s.Stats
		event.LastSeenAt, event.Summary = ack.LastSeenAt, s.Summary
	}
	if len(given) > 0 {
		p.groups = given
	}
	event.Groups = p.groups
	t.reply(ack)
	t.announce(name, event, func(q *presence) bool { return q.member != who })
	t.drain(p)
}

type joinedData struct {
	Name       string  `json:"name"`
	Pubkey     string  `json:"pubkey"`
	Groups     []group `json:"groups"`
	LastSeenAt string  `json:"lastSeenAt,omitzero"`
	Summary    *string `json:"summary,omitzero"`
}

// reattach puts the asking socket under p and refreshes cwd and name, not groups, host name, channel or model.
func (t *turn) reattach(p *presence, f *helloFrame, who *member) {
	t.attach(p, t.c)
	if f.Cwd.OK {
		p.cwd = f.Cwd.S
	}
	p.name = shownName(f, who)
}

func shownName(f *helloFrame, who *member) string {
	if f.DisplayName.S != "" {
		return f.DisplayName.S
	}
	return who.DisplayName
}

// deduplicate closes every entry with this sessionId, whoever's it is: no grace, no peer_left, nothing saved.
func (t *turn) deduplicate(sessionID text) {
	if !sessionID.OK {
		return
	}
	for _, p := range slices.Clone(t.m.live) {
		if p.sessionID == sessionID.S {
			t.m.remove(p, t.now)
			t.hangUp(p.conn, 1000, "session_replaced")
		}
	}
}

// hangUp closes c ahead of whatever else this turn sends: what follows on the same socket is lost, as in the reference.
func (t *turn) hangUp(c *conn, code uint16, why string) {
	if c != nil {
		c.closeWith(code, why)
	}
}

func (t *turn) newPresence(who *member, f *helloFrame, role, sessionKey string) *presence {
	p := &presence{
		mesh: t.m, id: newID(), member: who, sessionKey: sessionKey, sessionID: f.SessionID.S, role: role, conn: t.c,
		name: shownName(f, who), cwd: f.Cwd.S, pid: f.PID, hostname: shown(f.Hostname), peerType: shown(f.PeerType),
		channel: shown(f.Channel), model: shown(f.Model), connectedAt: t.now, lastPong: t.now, lastPing: t.now,
		groups: []group{}, visible: true, status: "idle", statusAt: t.now,
	}
	if t.c.open() {
		t.c.mesh, t.c.presence = t.m, p
	} // else its own sessionId has just closed it: p is a ghost that no close ever ends (PROTOCOL 1.3)
	t.m.add(p)
	if s, ok := t.m.b.hooks.claim(p.pid, p.cwd, t.now); ok {
		p.setHookStatus(s, t.now)
	}
	return p
}

// shown keeps a descriptive field if it is a non-empty string.
func shown(v jsontext.Value) jsontext.Value {
	if v.Kind() != '"' || len(v) == 2 {
		return nil
	}
	return plain(v)
}

// sessionHello is a session's first frame (PROTOCOL 3.5: the order of the checks).
func (c *conn) sessionHello(msg []byte) {
	var f helloFrame
	if unmarshal(msg, &f) != nil {
		return
	}
	var at attestation
	if f.ParentAttestation.Kind() == '{' && unmarshal(f.ParentAttestation, &at) != nil {
		return
	}
	now, session, parent := c.b.opts.Now(), f.SessionPubkey.S, f.ParentMemberPubkey.S
	m := c.b.meshes[f.MeshID.S]
	switch {
	case !lowerHex64.MatchString(session):
		c.refuse("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars", 1008)
		return
	case !lowerHex64.MatchString(parent):
		c.refuse("bad_parent_pubkey", "parentMemberPubkey must be 64 lowercase hex chars", 1008)
		return
	case at.SessionPubkey.S != session || at.ParentMemberPubkey.S != parent:
		c.refuse("attestation_mismatch", "parentAttestation does not bind the claimed session+parent pubkeys", 1008)
		return
	case c.b.full(m):
		c.refuse("capacity", "mesh at connection capacity", 1008)
		return
	}
	if code := at.verdict(now); code != "" {
		c.refuse(code, "attestation rejected: "+code, 1008)
		return
	}
	signed := "claudemesh-session-hello|" + f.MeshID.S + "|" + parent + "|" + session + "|" + f.Timestamp.String()
	if code := verdict(f.Timestamp, now, session, signed, f.Signature); code != "" {
		c.refuse(code, "session_hello rejected: "+code, 1008)
		return
	}
	if m == nil {
		c.refuse("unauthorized", "parent pubkey not found in mesh", 1008)
		return
	}
	c.admit(m, parent, "parent pubkey not found in mesh", f.ParentMemberID.S, func(t *turn, who *member) { t.sessionHello(who, &f) })
}

// verdict is "" or why the attestation does not hold (PROTOCOL 3.2).
func (a attestation) verdict(now time.Time) string {
	if raw, err := hex.DecodeString(a.Signature.S); err != nil || len(raw) != ed25519.SignatureSize {
		return "malformed"
	}
	ms := float64(now.UnixMilli())
	switch {
	case !a.ExpiresAt.OK || a.ExpiresAt.F <= ms:
		return "expired"
	case a.ExpiresAt.F > ms+float64(maxAttestTTL/time.Millisecond):
		return "ttl_too_long"
	}
	signed := "claudemesh-session-attest|" + a.ParentMemberPubkey.S + "|" + a.SessionPubkey.S + "|" + a.ExpiresAt.String()
	return checkSignature(a.ParentMemberPubkey.S, signed, a.Signature)
}

// sessionHello takes over the entry of this session key, leased or not, or makes a new one (PROTOCOL 3.7).
func (t *turn) sessionHello(who *member, f *helloFrame) {
	for _, p := range t.m.live {
		if p.sessionKey == f.SessionPubkey.S {
			t.takeOver(p, who, f)
			return
		}
	}
	t.deduplicate(f.SessionID)
	if !f.SessionID.OK || !f.PID.OK || !f.Cwd.OK {
		return
	}
	p := t.newPresence(who, f, roleSession, f.SessionPubkey.S)
	p.groups, _ = parseGroups(f.Groups)
	t.reply(newAck(p))
	t.announce("peer_joined", joinedData{Name: p.name, Pubkey: p.routingKey(), Groups: p.groups},
		func(q *presence) bool { return q != p })
	t.drain(p)
}

// takeOver re-attaches a session. When the old socket was still open, the reference's close handler marks the shared
// entry offline just before the new socket is installed: the entry works for 90 s, is never pinged and is then forgotten,
// unless another session_hello on the same socket heals it (PROTOCOL 3.7, "the takeover defect").
func (t *turn) takeOver(p *presence, who *member, f *helloFrame) {
	old := p.conn
	stolen := old != nil && old != t.c && old.open()
	if stolen {
		t.save(p)
	}
	if old != t.c {
		t.hangUp(old, 1000, "session_replaced")
	}
	t.reattach(p, f, who)
	if f.SessionID.OK {
		p.sessionID = f.SessionID.S
	}
	if stolen {
		t.lease(p)
	}
	ack := newAck(p)
	ack.MemberProfile = nil
	t.reply(ack)
	t.drain(p)
}
