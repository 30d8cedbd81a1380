package devbroker

import (
	"slices"
	"strings"
	"time"
)

type removalFrame struct {
	Target text   `json:"target"`
	Stale  number `json:"stale"`
	All    truth  `json:"all"`
}

type removalAck struct {
	Type     string   `json:"type"`
	Kicked   []string `json:"kicked"`
	Affected []string `json:"affected"`
	Skipped  []string `json:"skipped_control_plane,omitempty"`
	ReqID    reqID    `json:"_reqId,omitzero"`
}

// mayAdminister refuses whoever is no admin.
func (t *turn) mayAdminister(verb string, r reqID) bool {
	if t.c.presence.member.Role == "admin" {
		return true
	}
	t.fail("forbidden", "only owner or admin can "+verb, r)
	return false
}

func (t *turn) onKick(msg []byte, r reqID) { t.throwOut(msg, r, "kick", "kicked", 4001) }
func (t *turn) onDisconnect(msg []byte, r reqID) {
	t.throwOut(msg, r, "disconnect", "disconnected", 1000)
}

// throwOut removes connections at once: no grace, no peer_left. A kick spares control-plane connections (PROTOCOL 7.8).
func (t *turn) throwOut(msg []byte, r reqID, verb, past string, code uint16) {
	var f removalFrame
	if unmarshal(msg, &f) != nil || !t.mayAdminister(past, r) {
		return
	}
	why := past
	var hit func(p *presence) bool
	switch {
	case f.Target.S != "":
		hit = func(p *presence) bool {
			return p.name == f.Target.S || strings.HasPrefix(p.member.PublicKey, f.Target.S)
		}
	case f.Stale.OK:
		why += "_stale"
		limit := time.Duration(f.Stale.F * float64(time.Millisecond))
		hit = func(p *presence) bool { return p != t.c.presence && t.now.Sub(p.lastPing) > limit }
	case f.All.B:
		hit = func(p *presence) bool { return p != t.c.presence }
	default:
		return
	}
	ack := removalAck{Type: verb + "_ack", Kicked: []string{}, ReqID: echo(r)}
	var victims []*conn
	for _, p := range slices.Clone(t.m.live) {
		switch {
		case !hit(p):
		case verb == "kick" && p.role == roleControl:
			ack.Skipped = append(ack.Skipped, p.name)
		default:
			ack.Kicked = append(ack.Kicked, p.name)
			t.m.remove(p, t.now)
			victims = append(victims, p.conn)
		}
	}
	ack.Affected = ack.Kicked
	t.reply(ack)
	for _, c := range victims {
		t.close(c, code, why)
	}
}

func (t *turn) onBan(msg []byte, r reqID) {
	var f removalFrame
	if unmarshal(msg, &f) != nil || !t.mayAdminister("ban", r) {
		return
	}
	if f.Target.S == "" {
		t.fail("invalid", "target required", r)
		return
	}
	who := t.pickMember(func(m *member) bool {
		return !m.revoked && (m.DisplayName == f.Target.S || strings.HasPrefix(m.PublicKey, f.Target.S))
	})
	if who == nil {
		t.fail("not_found", "member not found", r)
		return
	}
	t.revoke(who, true)
	t.reply(struct {
		Type   string `json:"type"`
		Banned string `json:"banned"`
		ReqID  reqID  `json:"_reqId,omitzero"`
	}{"ban_ack", who.DisplayName, echo(r)})
	for _, p := range slices.Clone(t.m.live) {
		if p.member == who {
			t.m.remove(p, t.now)
			t.close(p.conn, 4002, "banned")
		}
	}
}

func (t *turn) onUnban(msg []byte, r reqID) {
	var f removalFrame
	if unmarshal(msg, &f) != nil || !t.mayAdminister("unban", r) {
		return
	}
	who := t.pickMember(func(m *member) bool {
		return m.revoked && (m.DisplayName == f.Target.S || m.PublicKey == f.Target.S)
	})
	if who == nil {
		t.fail("not_found", "no banned member of that name or key", r)
		return
	}
	t.revoke(who, false)
	t.reply(struct {
		Type     string `json:"type"`
		Unbanned string `json:"unbanned"`
		ReqID    reqID  `json:"_reqId,omitzero"`
	}{"unban_ack", who.DisplayName, echo(r)})
}

func (t *turn) revoke(who *member, revoked bool) {
	who.revoked, who.revokedAt = revoked, t.now
	t.record(record{Op: opRevoked, Member: who.MemberID, Revoked: revoked, At: t.now})
}

// pickMember returns the first match in the order of the member ids, so that the choice does not vary.
func (t *turn) pickMember(ok func(*member) bool) *member {
	var best *member
	for _, m := range t.m.members {
		if ok(m) && (best == nil || m.MemberID < best.MemberID) {
			best = m
		}
	}
	return best
}

func (t *turn) onListBans(_ []byte, r reqID) {
	type ban struct {
		Name      string `json:"name"`
		Pubkey    string `json:"pubkey"`
		RevokedAt string `json:"revokedAt"`
	}
	out := struct {
		Type  string `json:"type"`
		Bans  []ban  `json:"bans"`
		ReqID reqID  `json:"_reqId,omitzero"`
	}{"list_bans_result", []ban{}, echo(r)}
	for _, m := range t.m.members {
		if m.revoked {
			out.Bans = append(out.Bans, ban{m.DisplayName, m.PublicKey, iso(m.revokedAt)})
		}
	}
	slices.SortFunc(out.Bans, func(a, b ban) int { return strings.Compare(a.Name+a.Pubkey, b.Name+b.Pubkey) })
	t.reply(out)
}
