package event

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Subscription receives events until it or its bus is closed.
type Subscription struct {
	// C carries the events in order of Seq; closed after Close of the subscription or of the bus.
	C <-chan Event

	c      chan Event
	buffer int
	bus    *Bus

	// Guarded by the bus's mutex.
	last uint64 // Seq of the last event put into c
	gap  bool   // events were lost since then, and their marker is in c
}

// offer hands ev over if there is room. The marker of a gap goes in at its beginning, into the slot kept free for it, so a
// reader learns of the loss even if nothing is published any more. Called with the bus's mutex held, as the only sender.
func (s *Subscription) offer(ev Event) {
	if len(s.c) < s.buffer {
		s.c <- ev
		s.last, s.gap = ev.Seq, false
		return
	}
	if s.gap {
		return
	}
	s.gap = true
	data := append([]byte(`{"after":`), strconv.FormatUint(s.last, 10)...)
	s.c <- Event{Seq: ev.Seq, At: ev.At, Kind: KindDropped, Data: jsontext.Value(append(data, '}'))}
}

// Close ends the subscription and closes C. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if _, open := s.bus.subs[s]; !open {
		return
	}
	delete(s.bus.subs, s)
	close(s.c)
}
