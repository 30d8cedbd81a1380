package devbroker

import (
	"fmt"
	"strings"
)

// onClientAck marks rows delivered that this connection may have received, by either id (PROTOCOL 5.3).
func (t *turn) onClientAck(msg []byte, _ reqID) {
	var f struct {
		Client text `json:"clientMessageId"`
		Broker text `json:"brokerMessageId"`
	}
	if unmarshal(msg, &f) != nil {
		return
	}
	p, q := t.c.presence, &t.m.queue
	var ids []string
	mine := func(r *row) bool {
		return r.target == p.member.PublicKey || r.target == p.sessionKey && p.sessionKey != "" || strings.HasPrefix(r.target, "#")
	}
	take := func(r *row) {
		if r != nil && !r.delivered && mine(r) {
			q.deliver(r, t.now)
			ids = append(ids, r.id)
		}
	}
	if f.Client.S != "" {
		for r := q.byClient[f.Client.S]; r != nil; {
			next := r.nextSameClient
			take(r)
			r = next
		}
	}
	if f.Broker.S != "" {
		take(q.byID[f.Broker.S])
	}
	if len(ids) > 0 {
		t.record(record{Op: opAcked, IDs: ids, At: t.now})
	}
}

type recipient struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
	Status string `json:"status"`
}

type statusResult struct {
	Type        string      `json:"type"`
	MessageID   string      `json:"messageId"`
	TargetSpec  string      `json:"targetSpec"`
	Delivered   bool        `json:"delivered"`
	DeliveredAt *string     `json:"deliveredAt"`
	Recipients  []recipient `json:"recipients"`
	ReqID       reqID       `json:"_reqId,omitzero"`
}

// onMessageStatus answers by full id or a prefix of at least 8 (PROTOCOL 7.6).
func (t *turn) onMessageStatus(msg []byte, r reqID) {
	var f struct {
		MessageID text `json:"messageId"`
	}
	if unmarshal(msg, &f) != nil || !f.MessageID.OK {
		return
	}
	id := f.MessageID.S
	if len(id) < 8 || len(id) > 32 || strings.Trim(id, base62) != "" {
		t.fail("invalid_argument", fmt.Sprintf("messageId must be 8-32 base62 chars (got %d)", utf16Len(id)), r)
		return
	}
	hits := t.m.queue.find(id)
	switch {
	case len(hits) == 0:
		t.fail("not_found", "message not found", r)
		return
	case len(hits) > 1:
		t.fail("ambiguous_prefix", "messageId prefix matches several messages; use a longer one", r)
		return
	}
	hit := hits[0]
	out := statusResult{
		Type: "message_status_result", MessageID: id, TargetSpec: hit.target, Delivered: hit.delivered,
		Recipients: t.recipients(hit), ReqID: echo(r),
	}
	if hit.delivered {
		at := iso(hit.at)
		out.DeliveredAt = &at
	}
	t.reply(out)
}

func (t *turn) recipients(hit found) []recipient {
	status := "held"
	if hit.delivered {
		status = "delivered"
	}
	out := []recipient{}
	for _, p := range t.m.rows {
		if p.rowGone(t.now) {
			continue
		}
		switch {
		case p.routingKey() == hit.target:
			return []recipient{{p.name, p.routingKey(), status}}
		case hit.target == "*" || hit.target == "@all" || strings.HasPrefix(hit.target, "@") && p.inGroup(hit.target[1:]):
			if p.member != t.c.presence.member {
				out = append(out, recipient{p.name, p.routingKey(), status})
			}
		}
	}
	if hit.target != "" && !strings.ContainsAny(hit.target[:1], "*@#") {
		return []recipient{{"unknown", hit.target[:min(16, len(hit.target))], "disconnected"}}
	}
	return out
}
