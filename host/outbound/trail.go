package outbound

import (
	"container/list"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Bounds of what a mesh's trail keeps.
const (
	maxTracks     = 5000
	maxTrailBytes = 8 << 20
	// firstHops and lastHops of a message are kept; those between go.
	firstHops = 8
	lastHops  = 24
	usualHops = 6
	trackCost = 320 // bytes of a track without its hops, about
	hopCost   = 112
)

// The hops of a message's way. Those that are a transition of the row have the
// word of the event's state or detail.
const (
	HopReceived  = "received"  // a program asked to send it
	HopResolved  = "resolved"  // its recipient's name became a key
	HopStored    = "stored"    // the outbox has it: the sender was told
	HopSent      = "sent"      // an attempt that the broker did not take
	HopAccepted  = "accepted"  // the broker's ack
	HopAsked     = "asked"     // message_status, with no news
	HopDelivered = "delivered" // the recipient's client_ack
	HopDeferred  = "deferred"
	HopWaiting   = "waiting"
	HopWoken     = "woken"
	HopDead      = "dead"
	HopExpired   = "expired"
	HopCancelled = "cancelled"
	HopRequeued  = "requeued"
	HopResent    = "resent"
	HopForgotten = "forgotten" // by the broker, too long after its ack
)

// Hop is one step of a message's way.
type Hop struct {
	At     time.Time
	Name   string
	Detail string
	// BrokerMessageID is set with accepted.
	BrokerMessageID string
	// Times is above 1 for a hop that came several times in a row; Last is when it
	// came last.
	Times int
	Last  time.Time
	// FromRow is true for what only the stored row tells; a hop without a time
	// came at a time that it does not tell.
	FromRow bool
}

// trail remembers the hops of the messages that had one last: what the row does
// not say. It is memory only, bounded in messages and bytes. Safe for
// concurrent use.
type trail struct {
	mu     sync.Mutex
	tracks map[string]*list.Element // of *track, by entry id
	order  list.List                // the one with the latest hop is last
	bytes  int
	// spare is the memory of the track that was evicted last: a busy mesh evicts one
	// for each that it opens.
	spare *track
}

// track is one message.
type track struct {
	id, clientMessageID string
	// whole is true when the first hop is the message's arrival.
	whole bool
	hops  []Hop
	// skipped counts hops that were dropped from the middle.
	skipped int
	bytes   int
}

func newTrail() *trail { return &trail{tracks: map[string]*list.Element{}} }

// begin opens the track of a message that a program has just asked to send.
func (t *trail) begin(id, clientMessageID string, hops ...Hop) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.open(id, clientMessageID)
	tr.whole = true
	for _, h := range hops {
		t.add(tr, h)
	}
	t.trim()
}

// drop forgets a message that was not stored.
func (t *trail) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.tracks[id]; el != nil {
		t.evict(el)
	}
}

// note adds a hop.
func (t *trail) note(id, clientMessageID string, h Hop) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(t.open(id, clientMessageID), h)
	t.trim()
}

// open returns a message's track, as the latest one. Called with mu held, as are
// those below.
func (t *trail) open(id, clientMessageID string) *track {
	if el := t.tracks[id]; el != nil {
		t.order.MoveToBack(el)
		return el.Value.(*track)
	}
	var hops []Hop
	tr := t.spare
	if tr != nil {
		t.spare, hops = nil, tr.hops[:0]
	} else {
		tr, hops = &track{}, make([]Hop, 0, usualHops)
	}
	*tr = track{id: id, clientMessageID: clientMessageID, hops: hops, bytes: trackCost + len(id) + len(clientMessageID)}
	t.bytes += tr.bytes
	t.tracks[id] = t.order.PushBack(tr)
	return tr
}

// add appends a hop, or counts one more of the same.
func (t *trail) add(tr *track, h Hop) {
	if n := len(tr.hops); n > 0 {
		last := &tr.hops[n-1]
		if last.Name == h.Name && last.Detail == h.Detail && last.BrokerMessageID == h.BrokerMessageID {
			last.Times, last.Last = max(last.Times, 1)+1, h.At
			return
		}
	}
	cost := hopCost + len(h.Detail) + len(h.BrokerMessageID)
	if len(tr.hops) == firstHops+lastHops {
		gone := &tr.hops[firstHops]
		cost -= hopCost + len(gone.Detail) + len(gone.BrokerMessageID)
		copy(tr.hops[firstHops:], tr.hops[firstHops+1:])
		tr.hops = tr.hops[:firstHops+lastHops-1]
		tr.skipped++
	}
	tr.hops = append(tr.hops, h)
	tr.bytes += cost
	t.bytes += cost
}

func (t *trail) trim() {
	for len(t.tracks) > maxTracks || t.bytes > maxTrailBytes && len(t.tracks) > 1 {
		t.evict(t.order.Front())
	}
}

func (t *trail) evict(el *list.Element) {
	tr := t.order.Remove(el).(*track)
	delete(t.tracks, tr.id)
	t.bytes -= tr.bytes
	if cap(tr.hops) == usualHops {
		clear(tr.hops)
		t.spare = tr
	}
}

// find returns a copy of the track of a message by its id, its
// client_message_id, or the broker's id of it, and whether there is one.
func (t *trail) find(id string) (track, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	el := t.tracks[id]
	for e := t.order.Back(); el == nil && e != nil; e = e.Prev() {
		if tr := e.Value.(*track); tr.clientMessageID == id || tr.has(id) {
			el = e
		}
	}
	if el == nil {
		return track{}, false
	}
	tr := *el.Value.(*track)
	tr.hops = append([]Hop(nil), tr.hops...)
	return tr, true
}

// has reports whether the broker gave the message that id.
func (t *track) has(id string) bool {
	for i := range t.hops {
		if id != "" && t.hops[i].BrokerMessageID == id {
			return true
		}
	}
	return false
}

// hopOf is the hop that a transition is.
func hopOf(c *change) Hop {
	h := Hop{At: c.at, Name: c.hop, Detail: c.Detail}
	switch h.Name {
	case HopAccepted:
		h.BrokerMessageID = c.BrokerMessageID
	case HopStored, HopDelivered, HopCancelled, HopRequeued:
		h.Detail = "" // the word says it
	case HopResent:
		h.Detail = strings.TrimPrefix(c.Detail, HopResent+": ")
	}
	return h
}

// arrival are the hops of a message before it is stored.
func arrival(received time.Time, req *Request, to *Target) []Hop {
	who := to.Spec[:min(16, len(to.Spec))]
	if to.Kind == Direct {
		who += "…"
	}
	if to.Name != "" {
		who = to.Name + " (" + who + ")"
	}
	return []Hop{
		{At: received, Name: HopReceived, Detail: fmt.Sprintf("%d bytes, priority %s", len(req.Message), req.Priority)},
		{At: time.Now(), Name: HopResolved, Detail: "to " + clip(who) + ", " + to.From},
	}
}
