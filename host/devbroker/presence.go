package devbroker

import (
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	roleControl = "control-plane"
	roleSession = "session"
	// rowLinger is how long an evicted presence stays in peers_list: the reference announces peer_left first and updates
	// its database afterwards (seen 10 ms later in 19-offline-queue, gone 500 ms later in 09-session-hello).
	rowLinger = 50 * time.Millisecond
)

// presence is one connection's entry: who it is, what it shows, where frames for it go. It outlives its socket by a lease.
type presence struct {
	mesh       *mesh
	id         string
	member     *member
	sessionKey string // "" for a plain hello
	sessionID  string
	role       string // how it authenticated: roleControl or roleSession

	conn   *conn       // the socket that owns it; may be closed already (a ghost)
	leased bool        // offline, waiting for a re-attach until the timer fires
	timer  *time.Timer // eviction of a lease; nil without one
	gone   bool        // evicted or removed: frames of its socket are ignored

	name, cwd                          string
	pid                                number
	hostname, peerType, channel, model jsontext.Value
	connectedAt, lastPong, lastPing    time.Time
	rowEnd                             time.Time // when it leaves peers_list; zero = not yet

	groups   []group
	summary  *string
	visible  bool
	profile  profile
	stats    jsontext.Value // as set_stats gave it
	status   string
	statusAt time.Time
	fromHook bool
}

// routingKey is the session key if there is one, else the member key.
func (p *presence) routingKey() string {
	if p.sessionKey != "" {
		return p.sessionKey
	}
	return p.member.PublicKey
}

func (p *presence) rowGone(now time.Time) bool { return !p.rowEnd.IsZero() && !now.Before(p.rowEnd) }

func (p *presence) stopTimer() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

func (m *mesh) add(p *presence) {
	m.live = append(m.live, p)
	m.rows = append(m.rows, p)
	for _, k := range p.keys() {
		m.byKey[k] = append(m.byKey[k], p)
	}
}

func (p *presence) keys() []string {
	if p.sessionKey != "" && p.sessionKey != p.member.PublicKey {
		return []string{p.member.PublicKey, p.sessionKey}
	}
	return []string{p.member.PublicKey}
}

// remove takes p out of routing; its row stays listed until rowEnd.
func (m *mesh) remove(p *presence, rowEnd time.Time) {
	p.stopTimer()
	p.gone, p.rowEnd = true, rowEnd
	m.live = slices.DeleteFunc(m.live, func(q *presence) bool { return q == p })
	for _, k := range p.keys() {
		left := slices.DeleteFunc(m.byKey[k], func(q *presence) bool { return q == p })
		if m.byKey[k] = left; len(left) == 0 {
			delete(m.byKey, k)
		}
	}
}

// socketClosed makes the presence that c owns a lease. A second call, or one for a socket that was replaced, does nothing.
func (m *mesh) socketClosed(c *conn) {
	m.turn(nil, func(t *turn) {
		p := c.presence
		if p == nil || p.gone || p.conn != c {
			return
		}
		p.conn = nil
		t.save(p)
		if p.leased { // its entry was taken for offline since a takeover: no grace (PROTOCOL 3.7)
			t.evict(p)
			return
		}
		t.lease(p)
	})
}

// lease starts the 90 s in which p can be re-attached. Peers are told nothing (PROTOCOL 2.7).
func (t *turn) lease(p *presence) {
	p.leased = true
	p.stopTimer()
	m := t.m
	if m.stopped {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(graceLease, func() {
		m.turn(nil, func(t *turn) {
			if p.timer == timer && !p.gone && !m.stopped {
				t.evict(p)
			}
		})
	})
	p.timer = timer
}

type leftData struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
}

// evict ends a presence for good; members other than its own hear peer_left.
func (t *turn) evict(p *presence) {
	t.m.remove(p, t.now.Add(rowLinger))
	t.announce("peer_left", leftData{p.name, p.routingKey()}, func(q *presence) bool { return q.member != p.member })
}

// attach gives p a new socket.
func (t *turn) attach(p *presence, c *conn) {
	p.stopTimer()
	p.leased = false
	p.conn = c
	c.mesh, c.presence = t.m, p
	p.lastPong, p.lastPing = t.now, t.now
	if !slices.Contains(t.m.rows, p) { // swept while it was away
		t.m.rows = append(t.m.rows, p)
		slices.SortStableFunc(t.m.rows, func(a, b *presence) int { return a.connectedAt.Compare(b.connectedAt) })
	}
}

// save writes what is kept per member; the last connection to close wins (PROTOCOL 2.6).
func (t *turn) save(p *presence) {
	s := &savedState{
		Groups: slices.Clone(p.groups), Profile: p.profile, Visible: p.visible, DisplayName: p.name, Summary: p.summary, SeenAt: t.now,
	}
	if old := p.member.saved; old != nil {
		s.Stats = old.Stats
	}
	var add struct {
		In     number `json:"messagesIn"`
		Out    number `json:"messagesOut"`
		Tools  number `json:"toolCalls"`
		Errors number `json:"errors"`
	}
	if len(p.stats) > 0 && unmarshal(p.stats, &add) == nil {
		s.Stats.MessagesIn = finiteSum(s.Stats.MessagesIn, add.In.F)
		s.Stats.MessagesOut = finiteSum(s.Stats.MessagesOut, add.Out.F)
		s.Stats.ToolCalls = finiteSum(s.Stats.ToolCalls, add.Tools.F)
		s.Stats.Errors = finiteSum(s.Stats.Errors, add.Errors.F)
	}
	p.member.saved = s
	t.record(record{Op: opMember, Member: p.member.MemberID, Saved: s})
}

// finiteSum stays within what JSON has a word for: clients choose these numbers, and an infinite sum can't be written.
func finiteSum(a, b float64) float64 { return min(max(a+b, -math.MaxFloat64), math.MaxFloat64) }
