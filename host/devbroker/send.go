package devbroker

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const noPeer = "no connected peer for target (not online, or targetSpec is your own key without another session)"

type sendFrame struct {
	ID          text           `json:"id"`
	Target      text           `json:"targetSpec"`
	Priority    jsontext.Value `json:"priority"`
	Nonce       text           `json:"nonce"`
	Ciphertext  text           `json:"ciphertext"`
	ClientID    text           `json:"client_message_id"`
	Fingerprint text           `json:"request_fingerprint"`
	ReplyTo     text           `json:"replyToId"`
	BodyVersion number         `json:"bodyVersion"`
}

// priority is the frame's, "next" if it has none; ok is false for a value that the reference's database refuses.
func (f *sendFrame) priority() (p string, ok bool) {
	if len(f.Priority) == 0 || f.Priority.Kind() == 'n' {
		return "next", true
	}
	var s text
	if unmarshal(f.Priority, &s) != nil {
		return "", false
	}
	return s.S, s.S == "now" || s.S == "next" || s.S == "low"
}

// pushFrame is a push as it comes out of the queue, or live to many (PROTOCOL 5.1).
type pushFrame struct {
	Type               string  `json:"type"`
	MessageID          string  `json:"messageId"`
	MeshID             string  `json:"meshId"`
	SenderPubkey       string  `json:"senderPubkey"`
	SenderMemberPubkey string  `json:"senderMemberPubkey,omitzero"`
	SenderMemberID     string  `json:"senderMemberId,omitzero"`
	SenderName         string  `json:"senderName,omitzero"`
	Priority           string  `json:"priority"`
	Nonce              string  `json:"nonce"`
	Ciphertext         string  `json:"ciphertext"`
	CreatedAt          string  `json:"createdAt"`
	ReplyToID          string  `json:"replyToId,omitzero"`
	ClientMessageID    *string `json:"client_message_id,omitzero"`
	RequestFingerprint *string `json:"request_fingerprint,omitzero"`
}

// onSend checks rate, size, presence of a recipient; queues; acks; pushes (PROTOCOL 4.3, 4.4).
func (t *turn) onSend(msg []byte, _ reqID) {
	var f sendFrame
	if unmarshal(msg, &f) != nil {
		return
	}
	from, o := t.c.presence, &t.m.b.opts
	refuse := func(why string) { t.reply(ackFrame{Type: "ack", ID: f.ID.S, Error: why}) }
	if o.SendBurst > 0 && o.SendPerMinute > 0 && !from.member.rate.take(t.now, o.SendBurst, o.SendPerMinute) {
		refuse(rateText(o.SendBurst, o.SendPerMinute))
		return
	}
	if !f.Target.OK || !f.Nonce.OK || !f.Ciphertext.OK {
		return
	}
	if n := utf16Len(f.Ciphertext.S) + utf16Len(f.Nonce.S) + utf16Len(f.Target.S); n > maxPayload {
		refuse(fmt.Sprintf("payload too large: %d bytes > MAX_MESSAGE_BYTES=%d", n, maxPayload))
		return
	}
	target := f.Target.S
	many := target == "*" || strings.HasPrefix(target, "@")
	topic := strings.HasPrefix(target, "#")
	if !many && !topic && !t.reachable(from, target) {
		refuse(noPeer)
		return
	}
	priority, ok := f.priority()
	if !ok {
		return
	}
	r := &row{
		id: newID(), target: target, priority: priority, nonce: f.Nonce.S, ciphertext: f.Ciphertext.S, sender: from.routingKey(),
		clientID: f.ClientID.S, print: f.Fingerprint.S, createdAt: t.now,
		senderHasClientID: f.ClientID.OK, senderHasPrint: f.Fingerprint.OK,
	}
	if many {
		t.m.queue.noteDone(r.id, target, t.now)
		t.record(record{Op: opDone, IDs: []string{r.id}, Target: target, At: t.now})
	} else {
		if !t.m.queue.put(r) {
			t.m.b.log.Warn("queue full: send left unanswered", "mesh", t.m.slug, "limit_bytes", maxQueued)
			return
		}
		t.record(record{Op: opQueued, Row: r.stored()})
	}
	t.reply(ackFrame{Type: "ack", ID: f.ID.S, MessageID: r.id, Queued: true})
	switch {
	case many:
		t.multicast(from, r, f.ReplyTo.S)
	case topic:
		t.m.topics.post(target[1:], from, r, &f)
	default:
		for _, p := range t.m.byKey[target] {
			if p != from {
				t.drain(p)
			}
		}
	}
}

// reachable says whether someone but the sending connection answers to this key; leases and ghosts count.
func (t *turn) reachable(from *presence, key string) bool {
	for _, p := range t.m.byKey[key] {
		if p != from {
			return true
		}
	}
	return false
}

func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}

// multicast pushes to whoever is connected; the hidden and all of the sender's member are skipped.
func (t *turn) multicast(from *presence, r *row, replyTo string) {
	var frame []byte
	name := strings.TrimPrefix(r.target, "@")
	for _, p := range t.m.live {
		if p.member == from.member || !p.visible || p.conn == nil || !p.conn.open() {
			continue
		}
		if r.target != "*" && r.target != "@all" && !p.inGroup(name) {
			continue
		}
		if frame == nil {
			frame = t.encode(pushFrame{
				Type: "push", MessageID: r.id, MeshID: t.m.id, SenderPubkey: r.sender,
				SenderMemberPubkey: from.member.PublicKey, SenderMemberID: from.member.MemberID, SenderName: from.name,
				Priority: r.priority, Nonce: r.nonce, Ciphertext: r.ciphertext, CreatedAt: iso(r.createdAt), ReplyToID: replyTo,
			})
		}
		t.raw(p.conn, frame)
	}
}

func (p *presence) inGroup(name string) bool {
	for _, g := range p.groups {
		if g.Name == name {
			return true
		}
	}
	return false
}

// drain claims what waits for p and pushes it. A presence without a socket claims too: the rows are stuck until the claim
// ends and something else drains (PROTOCOL 4.6).
func (t *turn) drain(p *presence) {
	p.refreshStatus(t.now)
	budget := int(^uint(0) >> 1)
	if p.conn != nil && p.conn.open() {
		if budget = drainPause - p.conn.backlog(); budget <= 0 {
			p.conn.pauseDrain(p)
			return
		}
	}
	rows, more := t.m.queue.take(t.targets(p), p.status != "idle", t.now, budget)
	if len(rows) == 0 {
		return
	}
	if t.m.b.journal != nil {
		ids := make([]string, len(rows))
		for i, r := range rows {
			ids[i] = r.id
		}
		t.record(record{Op: opClaimed, IDs: ids, At: t.now.Add(claimLease)})
	}
	for _, r := range rows {
		t.send(p.conn, r.push(t.m.id))
	}
	if more && p.conn != nil {
		p.conn.pauseDrain(p)
	}
}

// resumeDrain goes on where a full socket stopped a drain.
func (m *mesh) resumeDrain(p *presence, c *conn) {
	m.turn(nil, func(t *turn) {
		if !p.gone && p.conn == c {
			t.drain(p)
		}
	})
}

// targets are the queue targets that p may drain. Multicast rows are delivered at once and never wait.
func (t *turn) targets(p *presence) []string {
	return append(p.keys(), t.m.topics.targets(p.member)...)
}

func (r *row) push(meshID string) pushFrame {
	f := pushFrame{
		Type: "push", MessageID: r.id, MeshID: meshID, SenderPubkey: r.sender, Priority: r.priority,
		Nonce: r.nonce, Ciphertext: r.ciphertext, CreatedAt: iso(r.createdAt),
	}
	if r.senderHasClientID {
		f.ClientMessageID = &r.clientID
	}
	if r.senderHasPrint {
		f.RequestFingerprint = &r.print
	}
	return f
}
