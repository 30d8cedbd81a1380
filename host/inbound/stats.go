package inbound

import (
	"sync/atomic"

	"github.com/meshhost/meshhost/host/store"
)

// Stats counts what a receiver did since it started, and says how full the journal is.
type Stats struct {
	Received      int64 // pushes given to Accept
	Stored        int64 // new ones, durable in the journal
	Duplicates    int64
	Echoes        int64 // of what the receiving identity sent itself
	Undecryptable int64 // sealed pushes that no key of ours opens
	Acked         int64 // client_acks handed to the connection
	Refused       int64 // not acked for want of room; the broker still has them
	Dropped       int64 // lost for want of room: the protocol doesn't repeat them
	Dead          int64 // work items that became dead letters
	Queued        int   // between Accept and the journal
	Journal       store.JournalSize
	Waiting       map[string]int // open work items by handler
}

type stats struct {
	received, stored, duplicates, echoes, undecryptable, acked, refused, dropped, dead atomic.Int64

	journal atomic.Pointer[store.JournalSize]
}

func (s *stats) size(size store.JournalSize) { s.journal.Store(&size) }

// Stats returns the counts so far.
func (r *Receiver) Stats() Stats {
	s := Stats{
		Received: r.stats.received.Load(), Stored: r.stats.stored.Load(), Duplicates: r.stats.duplicates.Load(),
		Echoes: r.stats.echoes.Load(), Undecryptable: r.stats.undecryptable.Load(), Acked: r.stats.acked.Load(),
		Refused: r.stats.refused.Load(), Dropped: r.stats.dropped.Load(), Dead: r.stats.dead.Load(),
		Journal: *r.stats.journal.Load(), Waiting: make(map[string]int),
	}
	r.mu.Lock()
	s.Queued = len(r.queue)
	r.mu.Unlock()
	r.feedMu.RLock()
	defer r.feedMu.RUnlock()
	for _, f := range r.feeders {
		s.Waiting[f.name] = f.waiting()
	}
	return s
}
