package outbound

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// queueOf returns the queue of a target, making it if need be.
func (l *Lane) queueOf(target string) *queue {
	q := l.queues[target]
	if q == nil {
		q = &queue{target: target}
		l.queues[target] = q
	}
	return q
}

func (l *Lane) full() bool { return l.rows >= maxLaneRows || l.bytes >= maxLaneBytes }

func (l *Lane) push(q *queue, r *row) {
	q.rows = append(q.rows, r)
	q.lastSeq = r.seq
	l.rows++
	l.bytes += r.size
	if r.probe {
		l.probes++
	}
	l.enlist(q)
}

// pop removes the head of q.
func (l *Lane) pop(q *queue) { l.remove(q, 0) }

// remove takes a row out of memory.
func (l *Lane) remove(q *queue, i int) {
	r := q.rows[i]
	if i == 0 {
		q.rows[0] = nil
		q.rows = q.rows[1:]
		q.notBefore = time.Time{}
	} else {
		q.rows = append(q.rows[:i], q.rows[i+1:]...)
	}
	l.rows--
	l.bytes -= r.size
	l.endProbe(q, r)
	delete(l.suspects, r)
}

// enlist puts q into the ready list if its head may go.
func (l *Lane) enlist(q *queue) {
	if q.ready || q.inflight || q.parked || len(q.rows) == 0 {
		return
	}
	q.ready = true
	l.ready[rank(q.rows[0])].push(q)
}

// rank orders heads among due queues: by priority (PROTOCOL 4.1), and probes
// behind all others.
func rank(r *row) int {
	switch {
	case r.probe:
		return probeRank
	case r.msg.Priority == "now":
		return 0
	case r.msg.Priority == "low":
		return 2
	default:
		return 1
	}
}

// forget drops q from memory if nothing is left of it; rows that only the
// backend has make the lane dirty.
func (l *Lane) forget(q *queue) {
	if !q.idle() || l.queues[q.target] != q {
		return // a later queue of the target may have taken its place
	}
	if q.more {
		l.dirty = true
	}
	if l.fetching {
		l.left[q.target] = struct{}{}
	}
	delete(l.queues, q.target)
}

// stale drops what is in memory after the lease was somebody else's: rows may
// have left from there. What is on the wire is settled as it comes.
func (l *Lane) stale() {
	for _, q := range l.queues {
		for len(q.rows) > 0 {
			l.pop(q)
		}
		q.more = true
		l.forget(q)
	}
	l.dirty = true
}

// onStored takes a fresh row from memory if the backend put it directly behind
// what is here; otherwise Fetch will bring it in its turn.
func (l *Lane) onStored(f *fresh) {
	e, prev := f.entry, f.res.Prev
	e.Seq = f.res.Seq
	if e.Seq <= 0 {
		prev = unknownPrev
	}
	q := l.queues[e.Target]
	switch {
	case q == nil:
		if prev > 0 { // behind a head that backs off or waits; its time is known
			if l.fetching {
				l.grew[e.Target] = struct{}{}
			}
			return
		}
		if prev != 0 || l.leased.epoch == 0 || l.full() {
			l.onGrew(e.Target)
			return
		}
		q = l.queueOf(e.Target)
	case e.Seq <= q.lastSeq:
		if !q.has(e.Seq) { // a Fetch brought it and it has left, or seqs went back
			q.more = true
			l.forget(q)
		}
		return
	case l.full() || len(q.rows) >= maxQueueRows || !q.follows(prev):
		q.more = true
		l.forget(q)
		return
	}
	r, err := l.open(e)
	if err != nil {
		l.unreadable(q, e, err)
		return
	}
	l.push(q, r)
}

// onGrew notes that the backend has rows of a target that memory lacks.
func (l *Lane) onGrew(target string) {
	if q := l.queues[target]; q != nil {
		q.more = true
		l.forget(q)
		return
	}
	l.dirty = true
	if l.fetching {
		l.grew[target] = struct{}{}
	}
}

// load takes a fetched queue and reports whether it was of use. Rows of a
// target that memory got hold of since the call are left to a later Fetch.
func (l *Lane) load(f *sdk.Queue) (bool, error) {
	if err := l.checkQueue(f); err != nil {
		return false, err
	}
	if q, known := l.queues[f.Target]; known {
		q.more = true
		return true, nil
	}
	if _, left := l.left[f.Target]; left {
		l.dirty = true
		return true, nil
	}
	_, grew := l.grew[f.Target]
	q := l.queueOf(f.Target)
	if l.probes >= maxProbes && f.Rows[0].State == sdk.StateWaiting {
		l.putOff(q, &f.Rows[0])
		return true, nil
	}
	q.more = f.More || grew
	for i := range f.Rows {
		if i == maxQueueRows {
			q.more = true
			break
		}
		r, err := l.open(&f.Rows[i])
		if err != nil {
			l.unreadable(q, &f.Rows[i], err)
			continue
		}
		l.push(q, r)
	}
	l.forget(q)
	return true, nil
}

// trim gives the tails of long queues back to the backend, to make room for
// targets that memory lacks.
func (l *Lane) trim() {
	for _, q := range l.queues {
		for n := len(q.rows); n > trimRows; n-- {
			l.remove(q, n-1)
			q.more = true
		}
	}
}

// checkQueue refuses what would break the order of a queue, or leave elsewhere.
func (l *Lane) checkQueue(f *sdk.Queue) error {
	if f.Target == "" || len(f.Rows) == 0 {
		return errors.New("a queue without a target or rows")
	}
	last := int64(0)
	for i := range f.Rows {
		e := &f.Rows[i]
		switch {
		case e.Lane != l.name:
			return fmt.Errorf("row %s of lane %q is among those of %q", e.ID, e.Lane, l.name)
		case e.Target != f.Target:
			return fmt.Errorf("row %s of target %q is in the queue of %q", e.ID, e.Target, f.Target)
		case e.Seq <= last:
			return fmt.Errorf("queue %q: seq %d comes after %d", f.Target, e.Seq, last)
		case !e.State.Live():
			return fmt.Errorf("queue %q: row %s is %q", f.Target, e.ID, e.State)
		}
		last = e.Seq
	}
	return nil
}

// open unseals an entry.
func (l *Lane) open(e *sdk.Entry) (*row, error) {
	body, err := l.atRest.Open(e.Body)
	if err != nil {
		return nil, err
	}
	return rowOf(e, hex.EncodeToString(e.Fingerprint), string(body)), nil
}

// unreadable settles a row that can't be opened: it is dead.
func (l *Lane) unreadable(q *queue, e *sdk.Entry, err error) {
	q.lastSeq = e.Seq
	r := &row{msg: Message{ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target}, seq: e.Seq}
	l.settle(q, r, sdk.Op{Kind: sdk.OpDie, Error: "the stored body can't be opened with this member's key: " + err.Error()})
}

// freeze keeps a row that is to be cancelled, and what is behind it, from
// leaving; false if it is on the wire.
func (l *Lane) freeze(id string) bool {
	if l.InFlight(id) {
		return false
	}
	l.cancelling[id] = struct{}{}
	return true
}

// onCancelled drops a row that is cancelled, or lets it go on.
func (l *Lane) onCancelled(m mailCancelled) {
	delete(l.cancelling, m.id)
	if m.gone && m.waited {
		delete(l.waiting, m.target) // who else waits finds out when tried
	}
	q := l.queues[m.target]
	if q == nil {
		l.dirty = l.dirty || m.gone // the next row may be due
		if l.fetching {
			l.left[m.target] = struct{}{}
		}
		return
	}
	for i, r := range q.rows {
		if !m.gone || r.msg.ID != m.id {
			continue
		}
		l.remove(q, i)
		if n := len(q.rows); n > 0 {
			q.lastSeq = q.rows[n-1].seq
		}
		break
	}
	if q.parked {
		q.more = true // its head is another now: look when it is unparked
	}
	l.enlist(q)
	l.forget(q)
}
