package devbroker

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

const (
	// maxQueued bounds the bytes of undelivered rows of a mesh. Past it a send gets what the reference gives when its
	// database fails: nothing.
	maxQueued = 512 << 20
	// maxDone bounds the small records of delivered rows that message_status answers from; the oldest are forgotten.
	maxDone = 500_000
	rowCost = 512 // bytes counted for a row beside its ciphertext
)

// row is one message in the queue. Its fields but the claim never change.
type row struct {
	seq               uint64 // order of insertion
	id, target        string
	priority          string
	nonce, ciphertext string
	sender            string // sender's session key, else member key
	clientID, print   string // "" = not given
	createdAt         time.Time
	claimedUntil      time.Time
	delivered         bool
	nextSameClient    *row // rows of one client_message_id; the broker does not de-duplicate (PROTOCOL 4.5)
	senderHasClientID bool
	senderHasPrint    bool
}

// lane holds the undelivered rows of one target.
type lane struct {
	ready   [2][]*row // unclaimed, by seq: priority now, then the others
	claimed []*row    // by time of claim, so that leases end in order; delivered rows leave lazily
}

// done is what is left of a delivered row.
type done struct {
	target string
	at     time.Time
}

// queue is a mesh's messages. A drain costs what it returns, not what the queue holds.
type queue struct {
	seq       uint64
	bytes     int
	lanes     map[string]*lane
	byID      map[string]*row // undelivered
	byClient  map[string]*row // undelivered, first of a chain
	done      map[string]done
	doneOrder []string // ring of done's keys; doneHead is the oldest once it is full
	doneHead  int
	swept     time.Time
}

func newQueue() queue {
	return queue{lanes: map[string]*lane{}, byID: map[string]*row{}, byClient: map[string]*row{}, done: map[string]done{}}
}

func readyIndex(priority string) int {
	if priority == "now" {
		return 0
	}
	return 1
}

// put appends an undelivered row; false means that the queue is full.
func (q *queue) put(r *row) bool {
	if q.bytes+len(r.ciphertext)+rowCost > maxQueued {
		return false
	}
	q.seq++
	r.seq = q.seq
	q.bytes += len(r.ciphertext) + rowCost
	q.byID[r.id] = r
	if r.clientID != "" {
		r.nextSameClient = q.byClient[r.clientID]
		q.byClient[r.clientID] = r
	}
	l := q.lanes[r.target]
	if l == nil {
		l = &lane{}
		q.lanes[r.target] = l
	}
	i := readyIndex(r.priority)
	l.ready[i] = append(l.ready[i], r)
	return true
}

// release makes rows whose claim has ended eligible again. Nothing is pushed by that (PROTOCOL 4.6).
func (l *lane) release(now time.Time) {
	n, back := 0, [2]bool{}
	for _, r := range l.claimed {
		if !r.delivered {
			if now.Before(r.claimedUntil) {
				break
			}
			i := readyIndex(r.priority)
			l.ready[i] = append(l.ready[i], r)
			back[i] = true
		}
		n++
	}
	clear(l.claimed[:n])
	l.claimed = l.claimed[n:]
	for i, changed := range back {
		if changed {
			slices.SortFunc(l.ready[i], bySeq)
		}
	}
}

func bySeq(a, b *row) int { return cmp.Compare(a.seq, b.seq) }

// take claims the ready rows of these targets, oldest first, up to about `budget` bytes of bodies; more is true if some
// are left for that reason.
func (q *queue) take(targets []string, onlyNow bool, now time.Time, budget int) (rows []*row, more bool) {
	kinds := 2
	if onlyNow {
		kinds = 1
	}
	sources := 0
	for _, target := range targets {
		l := q.lanes[target]
		if l == nil {
			continue
		}
		l.release(now)
		for i := range kinds {
			had := len(rows)
			for _, r := range l.ready[i] {
				if !r.delivered {
					rows = append(rows, r)
				}
			}
			if len(rows) > had {
				sources++
			}
			l.ready[i] = l.ready[i][:0]
			if cap(l.ready[i]) > 1024 {
				l.ready[i] = nil
			}
		}
		q.tidy(target, l)
	}
	if sources > 1 {
		slices.SortFunc(rows, bySeq)
	}
	for n, r := range rows {
		if budget <= 0 && n > 0 {
			for _, left := range rows[n:] {
				i := readyIndex(left.priority)
				l := q.laneOf(left.target)
				l.ready[i] = append(l.ready[i], left)
			}
			rows, more = rows[:n], true
			break
		}
		budget -= len(r.ciphertext) + rowCost
	}
	until := now.Add(claimLease)
	for _, r := range rows {
		r.claimedUntil = until
		l := q.laneOf(r.target)
		l.claimed = append(l.claimed, r)
	}
	return rows, more
}

func (q *queue) laneOf(target string) *lane {
	l := q.lanes[target]
	if l == nil {
		l = &lane{}
		q.lanes[target] = l
	}
	return l
}

func (q *queue) tidy(target string, l *lane) {
	if len(l.claimed)+len(l.ready[0])+len(l.ready[1]) == 0 {
		delete(q.lanes, target)
	}
}

// forget takes r out of the indexes; its lane drops it when it comes by.
func (q *queue) forget(r *row) {
	r.delivered = true
	q.bytes -= len(r.ciphertext) + rowCost
	r.ciphertext, r.nonce = "", ""
	delete(q.byID, r.id)
	if r.clientID != "" {
		switch first := q.byClient[r.clientID]; {
		case first == r && r.nextSameClient == nil:
			delete(q.byClient, r.clientID)
		case first == r:
			q.byClient[r.clientID] = r.nextSameClient
		default:
			for ; first != nil; first = first.nextSameClient {
				if first.nextSameClient == r {
					first.nextSameClient = r.nextSameClient
					break
				}
			}
		}
	}
	if l := q.lanes[r.target]; l != nil {
		n := 0
		for n < len(l.claimed) && l.claimed[n].delivered {
			l.claimed[n] = nil
			n++
		}
		if l.claimed = l.claimed[n:]; len(l.claimed) == 0 {
			l.claimed = nil
		}
		q.tidy(r.target, l)
	}
}

// deliver notes that r's recipient has it.
func (q *queue) deliver(r *row, at time.Time) {
	q.forget(r)
	q.noteDone(r.id, r.target, at)
}

func (q *queue) noteDone(id, target string, at time.Time) {
	q.done[id] = done{target: target, at: at}
	if len(q.doneOrder) < maxDone {
		q.doneOrder = append(q.doneOrder, id)
		return
	}
	delete(q.done, q.doneOrder[q.doneHead])
	q.doneOrder[q.doneHead] = id
	q.doneHead = (q.doneHead + 1) % maxDone
}

// found is a row that message_status may speak about.
type found struct {
	id, target string
	delivered  bool
	at         time.Time
}

// find looks an id or a prefix of one up; at most two hits are returned.
func (q *queue) find(prefix string) (hits []found) {
	if len(prefix) == 32 {
		if d, ok := q.done[prefix]; ok {
			return []found{{id: prefix, target: d.target, delivered: true, at: d.at}}
		}
		if r := q.byID[prefix]; r != nil {
			return []found{{id: prefix, target: r.target}}
		}
		return nil
	}
	for id, d := range q.done {
		if strings.HasPrefix(id, prefix) && len(hits) < 2 {
			hits = append(hits, found{id: id, target: d.target, delivered: true, at: d.at})
		}
	}
	for id, r := range q.byID {
		if strings.HasPrefix(id, prefix) && len(hits) < 2 {
			hits = append(hits, found{id: id, target: r.target})
		}
	}
	return hits
}

// expire drops rows that nobody took for seven days; it looks once an hour (PROTOCOL 4.6).
func (t *turn) expire() {
	q := &t.m.queue
	if t.now.Sub(q.swept) < time.Hour {
		return
	}
	q.swept = t.now
	for id, r := range q.byID {
		if t.now.Sub(r.createdAt) > queueTTL {
			q.forget(r)
			t.record(record{Op: opExpired, IDs: []string{id}})
		}
	}
}
