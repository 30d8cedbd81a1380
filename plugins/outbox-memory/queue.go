package main

import (
	"container/heap"
	"sort"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// lane is who may send and what is queued. A queue is in one of two heaps: due
// has those whose head was due at the last Fetch, later all others. Whatever
// changes a head puts its queue into later; Fetch moves what has become due, so
// that neither heap is walked past what it returns.
type lane struct {
	outboxstate.Lane
	top         int64 // the highest seq that was ever given in it
	queues      map[string]*queue
	due, later  dueHeap
	unconfirmed order // accepted rows that have their body
}

// unconfirmed reports whether a report of delivery may follow.
func unconfirmed(r *outboxstate.Row) bool { return r.State == sdk.StateAccepted && r.Size > 0 }

// join puts a row where its state belongs, and returns the seq of the row before
// it in its queue; 0 if it is the head, or not live.
func (l *lane) join(r *row) (prev int64) {
	if r.State.Live() {
		return l.enter(r)
	}
	if unconfirmed(&r.Row) {
		l.unconfirmed.put(r)
	}
	return 0
}

// part takes a row out of where its state was.
func (l *lane) part(r *row, was *outboxstate.Row) {
	switch {
	case was.State.Live():
		l.leave(r, was.State)
	case unconfirmed(was):
		l.unconfirmed.drop(r)
	}
}

// queue is the live rows of one target in seq order: rows[first:]. Rows that
// left from the front are cut off when they are half of the slice, rows that
// left from the middle at once.
type queue struct {
	target  string
	rows    []*row
	first   int
	waiting int
	in      *dueHeap
	index   int // in that heap
}

func (q *queue) live() []*row { return q.rows[q.first:] }
func (q *queue) head() *row   { return q.rows[q.first] }

// enter puts a live row at its place in its queue, nearly always the end, and
// returns the seq of the row before it, 0 if there is none.
func (l *lane) enter(r *row) (prev int64) {
	q := l.queues[r.entry.Target]
	if q == nil {
		q = &queue{target: r.entry.Target, rows: []*row{r}}
		l.queues[q.target] = q
		l.put(q, &l.later)
	} else if last := q.rows[len(q.rows)-1]; last.seq < r.seq {
		prev = last.seq
		q.rows = append(q.rows, r)
	} else {
		prev = l.squeeze(q, r)
	}
	if r.State == sdk.StateWaiting {
		q.waiting++
	}
	return prev
}

// squeeze puts a row that an import brings back in front of others.
func (l *lane) squeeze(q *queue, r *row) (prev int64) {
	at := q.place(r.seq)
	head := at == q.first
	if head { // the heap compares heads: the queue leaves it before its head changes
		heap.Remove(q.in, q.index)
	} else {
		prev = q.rows[at-1].seq
	}
	q.rows = append(q.rows, nil)
	copy(q.rows[at+1:], q.rows[at:])
	q.rows[at] = r
	if head {
		l.put(q, &l.later)
	}
	return prev
}

// place is the index of the first row that is not before seq.
func (q *queue) place(seq int64) int {
	live := q.live()
	return q.first + sort.Search(len(live), func(i int) bool { return live[i].seq >= seq })
}

func (l *lane) put(q *queue, h *dueHeap) {
	q.in = h
	heap.Push(h, q)
}

// moved follows a change of a queue's head.
func (l *lane) moved(q *queue) {
	heap.Remove(q.in, q.index)
	l.put(q, &l.later)
}

// reorder follows a change of many heads.
func (l *lane) reorder() {
	heap.Init(&l.due)
	heap.Init(&l.later)
}

// ripen moves queues whose head is due by now from later to due.
func (l *lane) ripen(now int64) {
	for len(l.later) > 0 && l.later[0].head().DueAt <= now {
		l.put(heap.Pop(&l.later).(*queue), &l.due)
	}
}

// leave takes a row out of its queue; was is its state before.
func (l *lane) leave(r *row, was sdk.EntryState) {
	q := l.queues[r.entry.Target]
	if was == sdk.StateWaiting {
		q.waiting--
	}
	if q.head() != r {
		at := q.place(r.seq)
		q.rows = append(q.rows[:at], q.rows[at+1:]...)
		return
	}
	// The heap compares heads: the queue leaves it before its head changes.
	heap.Remove(q.in, q.index)
	q.rows[q.first] = nil
	q.first++
	if q.first == len(q.rows) {
		delete(l.queues, q.target)
		return
	}
	if q.first > 64 && q.first > len(q.rows)/2 {
		q.rows = append([]*row(nil), q.live()...)
		q.first = 0
	}
	l.put(q, &l.later)
}

// fix follows a change of a live row's state or due time.
func (l *lane) fix(r *row, was sdk.EntryState) {
	q := l.queues[r.entry.Target]
	if was == sdk.StateWaiting {
		q.waiting--
	}
	if r.State == sdk.StateWaiting {
		q.waiting++
	}
	if q.head() == r {
		l.moved(q)
	}
}

// dueHeap orders queues by the due time of their heads, then by seq.
type dueHeap []*queue

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	x, y := h[i].head(), h[j].head()
	if x.DueAt != y.DueAt {
		return x.DueAt < y.DueAt
	}
	return x.seq < y.seq
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	q := x.(*queue)
	q.index = len(*h)
	*h = append(*h, q)
}

func (h *dueHeap) Pop() any {
	old := *h
	q := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return q
}

// inOrder walks queues from the longest due until f says stop. It explores the
// heap from its root and so costs what it visits.
func (h dueHeap) inOrder(f func(q *queue) bool) {
	front := frontier{heap: h}
	if len(h) > 0 {
		front.at = append(front.at, 0)
	}
	for len(front.at) > 0 {
		i := heap.Pop(&front).(int)
		if !f(h[i]) {
			return
		}
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(h) {
				heap.Push(&front, child)
			}
		}
	}
}

// frontier is the places of a heap that may come next.
type frontier struct {
	heap dueHeap
	at   []int
}

func (f frontier) Len() int           { return len(f.at) }
func (f frontier) Less(i, j int) bool { return f.heap.Less(f.at[i], f.at[j]) }
func (f frontier) Swap(i, j int)      { f.at[i], f.at[j] = f.at[j], f.at[i] }
func (f *frontier) Push(x any)        { f.at = append(f.at, x.(int)) }
func (f *frontier) Pop() any {
	last := f.at[len(f.at)-1]
	f.at = f.at[:len(f.at)-1]
	return last
}
