package devbroker

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// profile is what set_profile keeps. Fields merge one by one.
type profile struct {
	Avatar       *string  `json:"avatar,omitzero"`
	Title        *string  `json:"title,omitzero"`
	Bio          *string  `json:"bio,omitzero"`
	Capabilities []string `json:"capabilities,omitzero"`
}

func (p profile) empty() bool {
	return p.Avatar == nil && p.Title == nil && p.Bio == nil && p.Capabilities == nil
}

// peerRow is one row of peers_list (PROTOCOL 7.1).
type peerRow struct {
	Pubkey       string         `json:"pubkey"`
	MemberPubkey string         `json:"memberPubkey"`
	DisplayName  string         `json:"displayName"`
	Status       string         `json:"status"`
	Summary      *string        `json:"summary"`
	Groups       []group        `json:"groups"`
	SessionID    string         `json:"sessionId"`
	ConnectedAt  string         `json:"connectedAt"`
	Cwd          string         `json:"cwd"`
	PeerRole     string         `json:"peerRole"`
	Hostname     jsontext.Value `json:"hostname,omitzero"`
	PeerType     jsontext.Value `json:"peerType,omitzero"`
	Channel      jsontext.Value `json:"channel,omitzero"`
	Model        jsontext.Value `json:"model,omitzero"`
	Stats        jsontext.Value `json:"stats,omitzero"`
	Visible      *bool          `json:"visible,omitzero"`
	Profile      *profile       `json:"profile,omitzero"`
}

type peersList struct {
	Type  string    `json:"type"`
	Peers []peerRow `json:"peers"`
	ReqID reqID     `json:"_reqId,omitzero"`
}

// onListPeers joins database rows with what memory knows by public key. A member key is shared by all of a member's
// connections, so the last of them lends its cwd, host name and profile to the member's row (PROTOCOL 7.1).
func (t *turn) onListPeers(_ []byte, r reqID) {
	memory := make(map[string]*presence, len(t.m.live)*2)
	for _, p := range t.m.live {
		for _, k := range p.keys() {
			memory[k] = p
		}
	}
	out := peersList{Type: "peers_list", Peers: make([]peerRow, 0, len(t.m.rows)), ReqID: echo(r)}
	t.m.rows = slices.DeleteFunc(t.m.rows, func(p *presence) bool { return p.rowGone(t.now) })
	for _, p := range t.m.rows {
		in := memory[p.routingKey()]
		if in != nil && !in.visible && p.member != t.c.presence.member {
			continue
		}
		out.Peers = append(out.Peers, p.row(in, t.now))
	}
	t.reply(out)
}

func (p *presence) row(in *presence, now time.Time) peerRow {
	status := p.status
	if status == "working" && now.Sub(p.statusAt) > time.Minute { // the reference's sweep (PROTOCOL 4.6)
		status = "idle"
	}
	out := peerRow{
		Pubkey: p.routingKey(), MemberPubkey: p.member.PublicKey, DisplayName: p.name, Status: status, Summary: p.summary,
		Groups: p.groups, SessionID: p.sessionID, ConnectedAt: iso(p.connectedAt), Cwd: p.cwd, PeerRole: p.role,
	}
	if in != nil {
		visible := in.visible
		out.Cwd, out.Hostname, out.PeerType, out.Channel, out.Model = in.cwd, in.hostname, in.peerType, in.channel, in.model
		out.Stats, out.Visible = in.stats, &visible
		if !in.profile.empty() {
			given := in.profile
			out.Profile = &given
		}
	}
	return out
}

func validStatus(s string) bool { return s == "idle" || s == "working" || s == "dnd" }

// onSetStatus never answers; a value that the database refuses changes nothing.
func (t *turn) onSetStatus(msg []byte, _ reqID) {
	var f struct {
		Status text `json:"status"`
	}
	if unmarshal(msg, &f) == nil && validStatus(f.Status.S) {
		p := t.c.presence
		p.status, p.statusAt, p.fromHook = f.Status.S, t.now, false
	}
}

// setHookStatus is set-status by HTTP, which can't clear dnd.
func (p *presence) setHookStatus(status string, now time.Time) {
	if p.status != "dnd" {
		p.status, p.statusAt, p.fromHook = status, now, true
	}
}

func (t *turn) onSetSummary(msg []byte, _ reqID) {
	var f struct {
		Summary text `json:"summary"`
	}
	if unmarshal(msg, &f) == nil && f.Summary.OK {
		t.c.presence.summary = &f.Summary.S
	}
}

func (t *turn) onSetStats(msg []byte, _ reqID) {
	var f struct {
		Stats jsontext.Value `json:"stats"`
	}
	if unmarshal(msg, &f) == nil && f.Stats.Kind() == '{' {
		t.c.presence.stats = plain(f.Stats)
	}
}

func (t *turn) onSetVisible(msg []byte, r reqID) {
	var f struct {
		Visible truth `json:"visible"`
	}
	if unmarshal(msg, &f) != nil || !f.Visible.OK {
		return
	}
	p := t.c.presence
	p.visible = f.Visible.B
	event := "peer_hidden"
	if p.visible {
		event = "peer_visible"
	}
	t.announce(event, leftData{p.name, p.routingKey()}, func(q *presence) bool { return q != p })
	t.done(r)
}

// done is the success answer of set_visible and set_profile: an ack with queued false and no error.
func (t *turn) done(r reqID) {
	t.reply(ackFrame{Type: "ack", ID: echoText(r), ReqID: echo(r)})
}

func (t *turn) onSetProfile(msg []byte, r reqID) {
	var f struct {
		Avatar       text           `json:"avatar"`
		Title        text           `json:"title"`
		Bio          text           `json:"bio"`
		Capabilities jsontext.Value `json:"capabilities"`
	}
	if unmarshal(msg, &f) != nil {
		return
	}
	p := &t.c.presence.profile
	for _, field := range []struct {
		to   **string
		from text
	}{{&p.Avatar, f.Avatar}, {&p.Title, f.Title}, {&p.Bio, f.Bio}} {
		if field.from.OK {
			*field.to = &field.from.S
		}
	}
	if f.Capabilities.Kind() == '[' {
		var caps []string
		if unmarshal(f.Capabilities, &caps) == nil {
			p.Capabilities = caps
		}
	}
	t.done(r)
}

func (t *turn) onJoinGroup(msg []byte, _ reqID) {
	var f struct {
		Name text `json:"name"`
		Role text `json:"role"`
	}
	if unmarshal(msg, &f) != nil || !f.Name.OK {
		return
	}
	p := t.c.presence
	add := group{Name: f.Name.S, Role: f.Role.S}
	groups := slices.Clone(p.groups) // shared with events and saved state
	if i := slices.IndexFunc(groups, func(g group) bool { return g.Name == add.Name }); i >= 0 {
		groups[i] = add
	} else if len(groups) < maxGroups {
		groups = append(groups, add)
	}
	p.groups = groups
}

// maxGroups bounds what one connection may join; the reference has no bound.
const maxGroups = 1000

func (t *turn) onLeaveGroup(msg []byte, _ reqID) {
	var f struct {
		Name text `json:"name"`
	}
	if unmarshal(msg, &f) != nil || !f.Name.OK {
		return
	}
	p := t.c.presence
	p.groups = slices.DeleteFunc(slices.Clone(p.groups), func(g group) bool { return g.Name == f.Name.S })
}

// refreshStatus is what the reference does at every drain: dnd stays, a hook's word younger than 30 s holds, everything
// else falls back to idle.
func (p *presence) refreshStatus(now time.Time) {
	if p.status == "dnd" || p.fromHook && now.Sub(p.statusAt) < 30*time.Second {
		return
	}
	p.status, p.fromHook = "idle", false
}
