package devbroker

import (
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// mesh is one trust boundary: its members, presences, queue and state. mu guards all of it.
type mesh struct {
	b    *Broker
	id   string
	slug string

	mu      sync.Mutex
	t       turn
	stopped bool                   // no timer fires any more
	members map[string]*member     // by public key, as the database spells it
	live    []*presence            // who can be routed to, oldest first; leases and ghosts included
	byKey   map[string][]*presence // live, by session key and by member key
	rows    []*presence            // what list_peers knows, oldest first
	queue   queue
	state   map[string]stateEntry
	topics  topics
	sized   int // bytes of state values
}

// member is a durable identity with what is saved for it.
type member struct {
	SeedMember
	revoked   bool
	revokedAt time.Time
	saved     *savedState // nil until a connection of the member has closed
	rate      bucket
}

// savedState is written on every close of any of the member's connections (PROTOCOL 2.6).
type savedState struct {
	Groups      []group   `json:"groups"`
	Profile     profile   `json:"profile"`
	Visible     bool      `json:"visible"`
	DisplayName string    `json:"display_name"`
	Summary     *string   `json:"summary"`
	Stats       sums      `json:"stats"`
	SeenAt      time.Time `json:"seen_at"`
}

// sums are a member's stats added up over its connections.
type sums struct {
	Errors      float64 `json:"errors"`
	ToolCalls   float64 `json:"toolCalls"`
	MessagesIn  float64 `json:"messagesIn"`
	MessagesOut float64 `json:"messagesOut"`
}

func newMesh(b *Broker, s SeedMesh) *mesh {
	m := &mesh{
		b: b, id: s.MeshID, slug: s.Slug, members: map[string]*member{}, byKey: map[string][]*presence{},
		queue: newQueue(), state: map[string]stateEntry{}, topics: newTopics(),
	}
	for _, p := range s.Members {
		m.members[p.PublicKey] = &member{SeedMember: p, revoked: p.Revoked, revokedAt: b.started}
	}
	m.t.m = m
	return m
}

func (m *mesh) memberByID(id string) *member {
	for _, p := range m.members {
		if p.MemberID == id {
			return p
		}
	}
	return nil
}

// turn collects what one event in a mesh causes. commit writes the records first and then lets the frames go, in order.
type turn struct {
	m    *mesh
	c    *conn // whose frame it is; nil for timers and HTTP
	now  time.Time
	recs []byte
	out  []outgoing
}

type outgoing struct {
	c     *conn
	frame []byte
	close uint16 // instead of a frame: a close code
	why   string
}

// turn runs f under the mesh's lock and commits.
func (m *mesh) turn(c *conn, f func(t *turn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &m.t
	t.c, t.now = c, m.b.opts.Now()
	t.recs, t.out = t.recs[:0], t.out[:0]
	f(t)
	t.commit()
}

func (t *turn) commit() {
	b := t.m.b
	if len(t.recs) > 0 && b.journal != nil {
		first, err := b.journal.append(t.recs)
		if first {
			b.log.Error("data file not written; frames that change something stay unanswered until a restart", "error", err)
		}
		if err != nil { // what the reference does when its database fails: no reply
			t.out = t.out[:0]
		}
	}
	for i, o := range t.out {
		switch {
		case o.close != 0:
			o.c.closeWith(o.close, o.why)
		default:
			if b.frames != nil {
				b.frames.write(o.c.id, "out", o.frame)
			}
			o.c.enqueue(opText, o.frame)
		}
		t.out[i] = outgoing{}
	}
	t.c = nil
}

// send queues a frame for c.
func (t *turn) send(c *conn, frame any) {
	if c == nil || !c.open() {
		return
	}
	t.raw(c, t.encode(frame))
}

func (t *turn) raw(c *conn, frame []byte) { t.out = append(t.out, outgoing{c: c, frame: frame}) }

// reply queues a frame for whoever asked.
func (t *turn) reply(frame any) { t.send(t.c, frame) }

func (t *turn) fail(code, message string, r reqID) {
	t.reply(errorFrame{Type: "error", Code: code, Message: message, ReqID: echo(r)})
}

func (t *turn) close(c *conn, code uint16, why string) {
	if c != nil {
		t.out = append(t.out, outgoing{c: c, close: code, why: why})
	}
}

func (t *turn) encode(frame any) []byte {
	raw, err := json.Marshal(frame, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	if err != nil { // only our own structs come here
		t.m.b.log.Error("frame not encoded", "error", err)
	}
	return raw
}

// record adds a record to what commit writes; without a data file it is not even encoded.
func (t *turn) record(r record) {
	if t.m.b.journal == nil {
		return
	}
	r.Mesh = t.m.id
	t.recs = appendRecord(t.recs, r)
}

type systemPush struct {
	Type         string `json:"type"`
	Subtype      string `json:"subtype"`
	Event        string `json:"event"`
	EventData    any    `json:"eventData"`
	MessageID    string `json:"messageId"`
	MeshID       string `json:"meshId"`
	SenderPubkey string `json:"senderPubkey"`
	Priority     string `json:"priority"`
	Nonce        string `json:"nonce"`
	Ciphertext   string `json:"ciphertext"`
	CreatedAt    string `json:"createdAt"`
}

// announce sends a system event to every open connection that `to` picks.
func (t *turn) announce(event string, data any, to func(*presence) bool) {
	var frame []byte
	for _, p := range t.m.live {
		if p.conn == nil || !p.conn.open() || !to(p) {
			continue
		}
		if frame == nil {
			frame = t.encode(systemPush{
				Type: "push", Subtype: "system", Event: event, EventData: data, MessageID: uuid.NewString(), MeshID: t.m.id,
				SenderPubkey: "system", Priority: "low", CreatedAt: iso(t.now),
			})
		}
		t.raw(p.conn, frame)
	}
}

// beat is the mesh's part of the global tick: ping, terminate the stale, sweep rows, drop what outlived the queue.
func (m *mesh) beat() {
	m.turn(nil, func(t *turn) {
		for _, p := range slices.Clone(m.live) {
			// A lease has no socket to ping, and the entry of a taken-over session is not pinged either (PROTOCOL 3.7).
			if p.leased || p.conn == nil || !p.conn.open() {
				continue
			}
			if t.now.Sub(p.lastPong) > stalePong {
				p.conn.terminate()
				continue
			}
			p.conn.enqueue(opPing, nil)
		}
		m.rows = slices.DeleteFunc(m.rows, func(p *presence) bool {
			return t.now.Sub(p.lastPing) > sweepAfter || p.rowGone(t.now)
		})
		t.expire()
	})
}

// pong notes proof of life of a connection.
func (m *mesh) pong(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := c.presence; p != nil && p.conn == c {
		p.lastPong = m.b.opts.Now()
		p.lastPing = p.lastPong
	}
}

// stopTimers keeps leases from expiring while the broker goes down.
func (m *mesh) stopTimers() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	for _, p := range m.live {
		p.stopTimer()
	}
}
