package event

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// KindDropped marks the place where a slow subscriber lost events; its data is {"after": seq of the last event it got}.
// The number of events lost is the gap in Seq between that event and the next one.
const KindDropped = "dropped"

// The kinds that the host publishes itself (PROTOCOL 10.5 for the first five); plugins' own are NAME.kind.
const (
	KindMessage      = "message"
	KindPeerJoin     = "peer_join"
	KindPeerLeave    = "peer_leave"
	KindSystem       = "system"
	KindBrokerStatus = "broker_status"
)

// Event is one thing that happened. Data is a JSON object and must not be changed by whoever reads it.
type Event struct {
	Seq  uint64
	At   time.Time
	Kind string
	Mesh string // empty: no mesh in particular
	Data jsontext.Value
}

// Bus hands events from publishers to subscribers. It is safe for concurrent use.
type Bus struct {
	mu     sync.Mutex
	seq    uint64 // of the newest event
	subs   map[*Subscription]struct{}
	closed bool
}

// New makes a bus without subscribers.
func New() *Bus { return &Bus{subs: make(map[*Subscription]struct{})} }

// Publish hands an event to every subscriber with room; it never blocks. data is encoded as JSON, unless it is
// a [jsontext.Value], which is kept as it is; nil stands for an empty object.
func (b *Bus) Publish(kind, mesh string, data any) {
	if !b.heard() {
		return
	}
	raw := encode(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.seq++
	ev := Event{Seq: b.seq, At: time.Now(), Kind: kind, Mesh: mesh, Data: raw}
	for s := range b.subs {
		s.offer(ev)
	}
}

// heard reports whether somebody listens. It counts the event if nobody does:
// encoding costs more than all the rest of it.
func (b *Bus) heard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subs) == 0 {
		b.seq++
	}
	return len(b.subs) > 0
}

func encode(data any) jsontext.Value {
	switch v := data.(type) {
	case nil:
		return jsontext.Value("{}")
	case jsontext.Value:
		if len(v) == 0 {
			return jsontext.Value("{}")
		}
		return v
	}
	raw, err := json.Marshal(data, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		// The event still tells that something happened; a publisher has nobody to return an error to.
		raw, _ = json.Marshal(map[string]string{"error": fmt.Sprintf("event data of type %T can't be encoded", data)})
	}
	return raw
}

// Subscribe starts a subscription to what is published from now on, with room for buffer events (at least 1).
func (b *Bus) Subscribe(buffer int) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	buffer = max(buffer, 1)
	c := make(chan Event, buffer+1) // one more for the marker
	s := &Subscription{C: c, c: c, buffer: buffer, bus: b, last: b.seq}
	if b.closed {
		close(c)
		return s
	}
	b.subs[s] = struct{}{}
	return s
}

// Close ends every subscription by closing its channel. What is in a channel can still be read.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		close(s.c)
	}
	clear(b.subs)
}
