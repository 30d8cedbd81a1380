package inbound

import (
	"time"

	"github.com/meshhost/meshhost/host/store"
)

const (
	// One transaction takes at most these; what comes while it runs goes into the next.
	commitRows  = 1024
	commitBytes = 8 << 20
	// markRows marks, or marks as old as markDelay, are written even when no push comes that they could ride with.
	markRows  = 1024
	markDelay = 20 * time.Millisecond
	// retryStore is the pause after a transaction that failed.
	retryStore = time.Second
	// claimTime is how long the broker leaves a push alone after it sent it, 30 s (PROTOCOL 4.6), and some: a nudge before
	// its end brings nothing.
	claimTime = 36 * time.Second
)

// runCommitter is the goroutine that owns the way into the journal.
func (r *Receiver) runCommitter() {
	defer close(r.commit)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var marksSince time.Time // when the marks that wait now began to; zero: none
	for {
		flush := !marksSince.IsZero() && time.Since(marksSince) >= markDelay
		entries, marks, waiting := r.take(flush)
		if len(entries)+len(marks) > 0 {
			marksSince = time.Time{}
			r.transact(entries, marks)
			r.nudge()
			continue
		}
		if waiting && marksSince.IsZero() {
			marksSince = time.Now()
		}
		timer.Reset(r.pause(marksSince))
		select {
		case <-r.wake:
		case <-timer.C:
			r.nudge()
		case <-r.stop:
			r.finish()
			return
		}
	}
}

// take returns what goes into the next transaction. Marks alone are left to wait, unless flush or many.
func (r *Receiver) take(flush bool) (entries []*entry, marks []store.Mark, waiting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, bytes := 0, 0
	for n < len(r.queue) && n < commitRows && (n == 0 || bytes+r.queue[n].bytes <= commitBytes) {
		bytes += r.queue[n].bytes
		n++
	}
	entries = r.queue[:n:n]
	if r.queue = r.queue[n:]; len(r.queue) == 0 {
		r.queue = nil
	}
	r.bytes -= bytes
	if n == 0 && !flush && len(r.marks) < markRows {
		return nil, nil, len(r.marks) > 0
	}
	marks, r.marks = r.marks, nil
	return entries, marks, false
}

// pause is how long there is nothing to do by the clock.
func (r *Receiver) pause(marksSince time.Time) time.Duration {
	if !marksSince.IsZero() {
		return max(markDelay-time.Since(marksSince), 0)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refuse) > 0 {
		return time.Second
	}
	return time.Hour
}

// finish empties the queue, lets the feeders end, and writes their last marks.
func (r *Receiver) finish() {
	for {
		entries, marks, _ := r.take(true)
		if len(entries)+len(marks) == 0 {
			break
		}
		r.transact(entries, marks)
	}
	r.feedMu.RLock()
	feeders := r.feeders
	r.feedMu.RUnlock()
	for _, f := range feeders {
		f.finish()
	}
	for _, f := range feeders {
		<-f.done
	}
	if _, marks, _ := r.take(true); len(marks) > 0 {
		r.transact(nil, marks)
	}
}

// transact brings entries and marks into the journal, trying until it can or the receiver is cut off, and then does what
// the result asks for. The order is the promise: disk, ack, handlers.
func (r *Receiver) transact(entries []*entry, marks []store.Mark) {
	failed := false
	for {
		err := r.try(entries, marks)
		if err == nil {
			if failed {
				r.log.Info("inbound: the journal takes writes again")
			}
			return
		}
		if !failed {
			failed = true
			r.log.Error("inbound: the journal can't be written; pushes are held back and not acked until it can", "error", err)
			r.publish("journal_error", "", map[string]any{"error": err.Error()})
		}
		pause := time.NewTimer(retryStore)
		select {
		case <-pause.C:
		case <-r.ctx.Done():
			pause.Stop()
			r.mu.Lock()
			for _, e := range entries {
				r.refused(e)
			}
			r.mu.Unlock()
			return
		}
	}
}

func (r *Receiver) try(entries []*entry, marks []store.Mark) error {
	r.flow.Lock()
	r.feedMu.RLock()
	feeders := r.feeders
	r.feedMu.RUnlock()
	rows := make([]store.JournalRow, len(entries))
	for i, e := range entries {
		e.feeders, e.row.Handlers = e.feeders[:0], e.row.Handlers[:0]
		for _, f := range feeders {
			if f.wants(e.push) {
				e.feeders = append(e.feeders, f)
				e.row.Handlers = append(e.row.Handlers, f.id)
			}
		}
		rows[i] = e.row
	}
	results, size, err := r.opts.Journal.Journal(r.ctx, rows, marks)
	if err != nil {
		r.flow.Unlock()
		return err
	}
	r.stats.size(size)
	full := false
	work := make(map[*feeder][]item, len(feeders))
	for i, e := range entries {
		if results[i].State == store.Full {
			full = true
			continue
		}
		if e.ackable && !ackBeforeStore {
			r.ack(e.from, e.clientID, e.brokerID)
		}
		if results[i].State == store.Stored {
			for _, f := range e.feeders {
				work[f] = append(work[f], item{seq: results[i].Seq, key: e.row.OrderKey, size: e.bytes, push: e.push})
			}
		}
	}
	for f, items := range work {
		f.add(items)
	}
	r.flow.Unlock()
	r.tell(entries, results)
	switch {
	case full:
		r.full(entries, results, size)
		r.isFull = true
	case roomy(size):
		r.isFull = false
	}
	return nil
}

// roomy reports whether the journal has room for more than the next push.
func roomy(size store.JournalSize) bool {
	return size.Rows < size.MaxRows/10*9 && size.Bytes < size.MaxBytes/10*9
}

// tell counts, and publishes what is new.
func (r *Receiver) tell(entries []*entry, results []store.JournalResult) {
	for i, e := range entries {
		switch results[i].State {
		case store.Duplicate:
			r.stats.duplicates.Add(1)
		case store.Stored:
			r.stats.stored.Add(1)
			r.publishPush(e.push)
			if e.push.Subtype == subtypeSystem && r.opts.Names != nil {
				r.opts.Names.Announced(e.push.Mesh, e.push.Event, e.push.EventData)
			}
		}
	}
}

// full refuses what the journal had no room for.
func (r *Receiver) full(entries []*entry, results []store.JournalResult, size store.JournalSize) {
	r.mu.Lock()
	for i, e := range entries {
		if results[i].State == store.Full {
			r.refused(e)
		}
	}
	r.mu.Unlock()
	if !r.isFull {
		r.log.Error("inbound: the journal is full; what can be asked for again is not acked, the rest is dropped; see which push handler is behind",
			"rows", size.Rows, "bytes", size.Bytes)
		r.publish("journal_full", "", map[string]any{"rows": size.Rows, "bytes": size.Bytes})
	}
}

// nudge asks once more for what was refused, as soon as there is room for it and the broker may send it.
func (r *Receiver) nudge() {
	size := r.stats.journal.Load()
	r.mu.Lock()
	var due []origin
	room := roomy(*size) && len(r.queue) < queueRows/2 && r.bytes < queueBytes/2
	if room && !r.closed {
		for from, last := range r.refuse {
			if time.Since(last) >= claimTime {
				due = append(due, from)
				delete(r.refuse, from)
			}
		}
	}
	r.mu.Unlock()
	for _, from := range due {
		if r.opts.NeedNudge != nil {
			r.opts.NeedNudge(from.mesh, from.identity)
		}
	}
}
