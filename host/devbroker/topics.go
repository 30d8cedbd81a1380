package devbroker

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of what topics keep in memory; the reference has a database. Topics are not kept in the data file.
const (
	maxTopics  = 1000
	maxHistory = 1000 // posts a topic
)

// topics are a mesh's channels. A post waits in the queue under "#id" until an unrelated drain of some member's connection
// happens to take it (PROTOCOL 4.7).
type topics struct {
	byID   map[string]*topic
	byName map[string]*topic
}

type topic struct {
	id, name, description, visibility string
	createdAt                         time.Time
	members                           []topicMember // in the order of joining
	posts                             []topicPost   // oldest first
}

type topicMember struct {
	who      *member
	role     string
	joinedAt time.Time
	readAt   time.Time
}

type topicPost struct {
	id, key, name, nonce, body, replyTo string
	memberID                            string
	version                             int
	at                                  time.Time
}

func newTopics() topics { return topics{byID: map[string]*topic{}, byName: map[string]*topic{}} }

func (ts *topics) find(ref string) *topic {
	if c := ts.byName[ref]; c != nil {
		return c
	}
	return ts.byID[ref]
}

// targets are the queue targets of the topics that who joined.
func (ts *topics) targets(who *member) (out []string) {
	for id, c := range ts.byID {
		if c.index(who) >= 0 {
			out = append(out, "#"+id)
		}
	}
	return out
}

func (c *topic) index(who *member) int {
	return slices.IndexFunc(c.members, func(m topicMember) bool { return m.who == who })
}

// post puts a message into the history; an unknown id is not noticed.
func (ts *topics) post(id string, from *presence, r *row, f *sendFrame) {
	c := ts.byID[id]
	if c == nil {
		return
	}
	version := 1
	if f.BodyVersion.F == 2 {
		version = 2
	}
	reply := ""
	if slices.ContainsFunc(c.posts, func(p topicPost) bool { return p.id == f.ReplyTo.S }) {
		reply = f.ReplyTo.S
	}
	if len(c.posts) >= maxHistory {
		c.posts = slices.Delete(c.posts, 0, 1)
	}
	c.posts = append(c.posts, topicPost{
		id: newID(), key: from.member.PublicKey, memberID: from.member.MemberID, name: from.member.DisplayName,
		nonce: r.nonce, body: r.ciphertext, version: version, replyTo: reply, at: r.createdAt,
	})
}

type topicFrame struct {
	Topic       text   `json:"topic"`
	Name        text   `json:"name"`
	Description text   `json:"description"`
	Visibility  text   `json:"visibility"`
	Role        text   `json:"role"`
	Limit       number `json:"limit"`
	BeforeID    text   `json:"beforeId"`
}

// withTopic finds the topic that a frame names. An unknown one is an error with the request id in `id` (PROTOCOL 1.6).
func (t *turn) withTopic(msg []byte, r reqID, f func(c *topic, q *topicFrame)) {
	var q topicFrame
	if unmarshal(msg, &q) != nil || !q.Topic.OK {
		return
	}
	if c := t.m.topics.find(q.Topic.S); c != nil {
		f(c, &q)
		return
	}
	t.reply(errorFrame{Type: "error", Code: "topic_not_found", Message: fmt.Sprintf("topic %q not found", q.Topic.S), ID: echoText(r)})
}

func (t *turn) onTopicCreate(msg []byte, r reqID) {
	var f topicFrame
	if unmarshal(msg, &f) != nil || !f.Name.OK {
		return
	}
	visibility := cmp.Or(f.Visibility.S, "public")
	c, created := t.m.topics.byName[f.Name.S], false
	if c == nil {
		if len(t.m.topics.byID) >= maxTopics {
			return
		}
		created = true
		c = &topic{id: newID(), name: f.Name.S, description: f.Description.S, visibility: visibility, createdAt: t.now}
		c.members = []topicMember{{who: t.c.presence.member, role: "lead", joinedAt: t.now}}
		t.m.topics.byID[c.id], t.m.topics.byName[c.name] = c, c
	}
	type shown struct {
		ID         string `json:"id"`
		Name       string `json:"name"`
		Visibility string `json:"visibility"`
	}
	t.reply(struct {
		Type    string `json:"type"`
		Topic   shown  `json:"topic"`
		Created bool   `json:"created"`
		ReqID   reqID  `json:"_reqId,omitzero"`
	}{"topic_created", shown{c.id, c.name, visibility}, created, echo(r)})
}

func (t *turn) onTopicList(_ []byte, r reqID) {
	type row struct {
		ID          string  `json:"id"`
		Name        string  `json:"name"`
		Description *string `json:"description"`
		Visibility  string  `json:"visibility"`
		MemberCount int     `json:"memberCount"`
		CreatedAt   string  `json:"createdAt"`
	}
	rows := []row{}
	for _, c := range t.m.topics.byID {
		out := row{ID: c.id, Name: c.name, Visibility: c.visibility, MemberCount: len(c.members), CreatedAt: iso(c.createdAt)}
		if c.description != "" {
			out.Description = &c.description
		}
		rows = append(rows, out)
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.Name, b.Name) })
	t.reply(struct {
		Type   string `json:"type"`
		Topics []row  `json:"topics"`
		ReqID  reqID  `json:"_reqId,omitzero"`
	}{"topic_list_response", rows, echo(r)})
}

func (t *turn) onTopicJoin(msg []byte, r reqID) {
	t.withTopic(msg, r, func(c *topic, q *topicFrame) {
		if who := t.c.presence.member; c.index(who) < 0 {
			c.members = append(c.members, topicMember{who: who, role: cmp.Or(q.Role.S, "member"), joinedAt: t.now})
		}
	})
}

func (t *turn) onTopicLeave(msg []byte, r reqID) {
	t.withTopic(msg, r, func(c *topic, _ *topicFrame) {
		if i := c.index(t.c.presence.member); i >= 0 {
			c.members = slices.Delete(c.members, i, i+1)
		}
	})
}

func (t *turn) onTopicMembers(msg []byte, r reqID) {
	type row struct {
		MemberID    string  `json:"memberId"`
		Pubkey      string  `json:"pubkey"`
		DisplayName string  `json:"displayName"`
		Role        string  `json:"role"`
		JoinedAt    string  `json:"joinedAt"`
		LastReadAt  *string `json:"lastReadAt"`
	}
	t.withTopic(msg, r, func(c *topic, q *topicFrame) {
		rows := []row{}
		for _, m := range c.members {
			out := row{MemberID: m.who.MemberID, Pubkey: m.who.PublicKey, DisplayName: m.who.DisplayName, Role: m.role, JoinedAt: iso(m.joinedAt)}
			if !m.readAt.IsZero() {
				at := iso(m.readAt)
				out.LastReadAt = &at
			}
			rows = append(rows, out)
		}
		t.reply(struct {
			Type    string `json:"type"`
			Topic   string `json:"topic"`
			Members []row  `json:"members"`
			ReqID   reqID  `json:"_reqId,omitzero"`
		}{"topic_members_response", q.Topic.S, rows, echo(r)})
	})
}

func (t *turn) onTopicMarkRead(msg []byte, r reqID) {
	t.withTopic(msg, r, func(c *topic, _ *topicFrame) {
		if i := c.index(t.c.presence.member); i >= 0 {
			c.members[i].readAt = t.now
		}
	})
}

func (t *turn) onTopicHistory(msg []byte, r reqID) {
	type row struct {
		ID             string `json:"id"`
		SenderPubkey   string `json:"senderPubkey"`
		SenderMemberID string `json:"senderMemberId"`
		SenderName     string `json:"senderName"`
		Nonce          string `json:"nonce"`
		Ciphertext     string `json:"ciphertext"`
		BodyVersion    int    `json:"bodyVersion"`
		ReplyToID      string `json:"replyToId,omitzero"`
		CreatedAt      string `json:"createdAt"`
	}
	t.withTopic(msg, r, func(c *topic, q *topicFrame) {
		limit := 50
		if q.Limit.OK {
			limit = int(min(max(q.Limit.F, 1), 200))
		}
		rows, on := []row{}, q.BeforeID.S == ""
		for _, p := range slices.Backward(c.posts) {
			if on && len(rows) < limit {
				rows = append(rows, row{p.id, p.key, p.memberID, p.name, p.nonce, p.body, p.version, p.replyTo, iso(p.at)})
			}
			on = on || p.id == q.BeforeID.S
		}
		t.reply(struct {
			Type     string `json:"type"`
			Topic    string `json:"topic"`
			Messages []row  `json:"messages"`
			ReqID    reqID  `json:"_reqId,omitzero"`
		}{"topic_history_response", q.Topic.S, rows, echo(r)})
	})
}
