package outbound

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// unknownPrev marks a stored row whose place in its queue is not known.
const unknownPrev = -1

// row is one message that a lane has in memory.
type row struct {
	msg      Message
	seq      int64
	notAfter time.Time
	final    bool // multicast: no report of delivery follows
	size     int
	// poisoned counts sockets that died on this row (ARCHITECTURE 5: twice is
	// dead).
	poisoned int
	// attempts counts refusals of earlier attempts.
	attempts int
	// unknown counts attempts without an answer, for the pause between them.
	unknown int
	// probe is true for a row that waits for its peer and goes to find out.
	probe bool
	// sentAt is when the last attempt was written.
	sentAt time.Time
}

// queue is what a lane has in memory of one target: a run of live rows in seq
// order without a gap, from the head on, or nothing yet.
type queue struct {
	target string
	rows   []*row
	// inflight is true while rows[0] is on the wire.
	inflight bool
	// unsettled counts rows that left memory but whose op is not applied yet.
	unsettled int
	// parked is true from a defer or wait until it is applied; then the queue
	// leaves memory and comes back by Fetch.
	parked bool
	// more is true when the backend has further rows behind the last one.
	more bool
	// lastSeq is the seq of the last row that was added.
	lastSeq int64
	// notBefore holds the head back after an attempt without an answer.
	notBefore time.Time
	// keptTo is until when the queue stays although nothing is left of it; zero:
	// it does not. Guards against a row that the backend does not settle.
	keptTo time.Time
	// ready is true while the queue is in the lane's ready list.
	ready bool
}

// idle reports whether the lane may forget the queue.
func (q *queue) idle() bool {
	return len(q.rows) == 0 && q.unsettled == 0 && !q.inflight && q.keptTo.IsZero()
}

// follows reports whether a row that the backend put behind prev belongs
// directly behind what is in memory.
func (q *queue) follows(prev int64) bool {
	if prev == unknownPrev || q.parked || q.more {
		return false
	}
	if prev == 0 {
		return len(q.rows) == 0
	}
	return prev == q.lastSeq
}

// has reports whether a row of that seq is in memory.
func (q *queue) has(seq int64) bool {
	_, ok := slices.BinarySearchFunc(q.rows, seq, func(r *row, s int64) int { return cmp.Compare(r.seq, s) })
	return ok
}

// rowOf turns an entry into what the wire needs; body is the ciphertext.
func rowOf(e *sdk.Entry, fingerprint, body string) *row {
	return &row{
		msg: Message{
			ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target, Priority: e.Priority,
			Nonce: e.Nonce, Ciphertext: body, Fingerprint: fingerprint,
		},
		seq:      e.Seq,
		notAfter: e.NotAfter,
		final:    isMulticast(e.Target),
		attempts: e.Attempts,
		probe:    e.State == sdk.StateWaiting,
		size:     len(body) + len(e.Target) + 512,
	}
}

// isMulticast reports whether a targetSpec is not one key (PROTOCOL 4.3).
func isMulticast(spec string) bool {
	return spec != "" && (spec[0] == '*' || spec[0] == '@' || spec[0] == '#')
}

// fifo is a list of queues that wait for their turn.
type fifo struct {
	items []*queue
	first int
}

func (f *fifo) len() int { return len(f.items) - f.first }

func (f *fifo) push(q *queue) {
	if f.first > 64 && f.first > len(f.items)/2 {
		n := copy(f.items, f.items[f.first:])
		clear(f.items[n:])
		f.items, f.first = f.items[:n], 0
	}
	f.items = append(f.items, q)
}

func (f *fifo) pop() *queue {
	q := f.items[f.first]
	f.items[f.first] = nil
	f.first++
	return q
}

// drop takes a queue out, wherever it is.
func (f *fifo) drop(q *queue) {
	if i := slices.Index(f.items[f.first:], q); i >= 0 {
		f.items = slices.Delete(f.items, f.first+i, f.first+i+1)
	}
}

// unpop puts back what pop just took.
func (f *fifo) unpop(q *queue) {
	f.first--
	f.items[f.first] = q
}
