package event

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// historyBytes bounds the data that the history keeps: a message event carries its body, up to 48,000 bytes.
const historyBytes = 8 << 20

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
	limit int

	mu     sync.Mutex
	seq    uint64  // of the newest event
	ring   []Event // oldest first, from head on; at most limit events and historyBytes of data
	bytes  int     // of the data in ring
	subs   map[*Subscription]struct{}
	closed bool
}

// New makes a bus that keeps the last history events (at least 1, and no more than 8 MiB of data) for [Bus.Since].
func New(history int) *Bus {
	return &Bus{limit: max(history, 1), subs: make(map[*Subscription]struct{})}
}

// Publish records an event and hands it to every subscriber with room; it never blocks. data is encoded as JSON, unless it is
// a [jsontext.Value], which is kept as it is; nil stands for an empty object.
func (b *Bus) Publish(kind, mesh string, data any) {
	raw := encode(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.seq++
	ev := Event{Seq: b.seq, At: time.Now(), Kind: kind, Mesh: mesh, Data: raw}
	b.remember(ev)
	for s := range b.subs {
		s.offer(ev)
	}
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

// remember appends to the history and lets go of the oldest events beyond its bounds. Called with mu held.
func (b *Bus) remember(ev Event) {
	b.ring = append(b.ring, ev)
	b.bytes += len(ev.Data)
	drop := 0
	for len(b.ring)-drop > b.limit || (b.bytes > historyBytes && len(b.ring)-drop > 1) {
		b.bytes -= len(b.ring[drop].Data)
		b.ring[drop] = Event{} // the data must not live on in the slack of the slice
		drop++
	}
	b.ring = b.ring[drop:]
}

// Since returns the events after seq, oldest first. complete is false when some of them are no longer in the history, or
// when seq is not of this bus (greater than any: the daemon has started anew).
func (b *Bus) Since(seq uint64) (events []Event, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since(seq)
}

func (b *Bus) since(seq uint64) ([]Event, bool) {
	if seq > b.seq {
		return append([]Event(nil), b.ring...), false
	}
	n := b.seq - seq // events wanted
	if n > uint64(len(b.ring)) {
		return append([]Event(nil), b.ring...), false
	}
	return append([]Event(nil), b.ring[uint64(len(b.ring))-n:]...), true
}

// Subscribe starts a subscription to what is published from now on, with room for buffer events (at least 1).
func (b *Bus) Subscribe(buffer int) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subscribe(buffer)
}

// SubscribeSince is [Bus.Since] and [Bus.Subscribe] in one step: no event is in both or in neither.
func (b *Bus) SubscribeSince(seq uint64, buffer int) (s *Subscription, events []Event, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, complete = b.since(seq)
	return b.subscribe(buffer), events, complete
}

func (b *Bus) subscribe(buffer int) *Subscription {
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
