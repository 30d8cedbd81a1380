package inbound

import (
	"container/heap"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// item is one open work item of a handler.
type item struct {
	seq      int64
	key      int64
	size     int // bytes, about
	attempts int
	due      time.Time // not before; zero: at once
	push     *sdk.Push // nil: in the journal only
	suspect  bool      // it was in a call that failed as a whole: it goes alone, which finds out whether it is the cause
}

// lane is the open work of one order key, in order.
type lane struct {
	key   int64
	items []item
	due   time.Time // while it waits in lanes.delayed
	taken int       // items at its head that are in hand
	busy  bool      // in hand, ready or delayed: not to be queued once more
}

// lanes is what one handler has to do. Not safe for concurrent use.
type lanes struct {
	byKey   map[int64]*lane
	ready   []*lane // first in, first out
	delayed delayed
	count   int // items
}

func newLanes() *lanes { return &lanes{byKey: make(map[int64]*lane)} }

// add appends an item to its lane.
func (l *lanes) add(it item) {
	ln := l.byKey[it.key]
	if ln == nil {
		ln = &lane{key: it.key}
		l.byKey[it.key] = ln
	}
	ln.items = append(ln.items, it)
	l.count++
	if !ln.busy {
		l.queue(ln)
	}
}

// queue puts a lane where its head belongs; an empty one goes.
func (l *lanes) queue(ln *lane) {
	ln.taken = 0
	if len(ln.items) == 0 {
		delete(l.byKey, ln.key)
		return
	}
	ln.busy = true
	if ln.due = ln.items[0].due; ln.due.IsZero() {
		l.ready = append(l.ready, ln)
		return
	}
	heap.Push(&l.delayed, ln)
}

// take takes items in hand, from the lanes that waited longest, in order within each: at most n items and about bytes bytes,
// at least one if any is due, and a suspect alone. next is when the next lane comes due; zero: nothing waits for the clock.
func (l *lanes) take(now time.Time, n, bytes int) (taken []*lane, items []item, next time.Time) {
	for len(l.delayed) > 0 && !l.delayed[0].due.After(now) {
		l.ready = append(l.ready, heap.Pop(&l.delayed).(*lane))
	}
	if len(l.delayed) > 0 {
		next = l.delayed[0].due
	}
	if len(l.ready) == 0 {
		return nil, nil, next
	}
	// Several lanes share a batch; a lone one may fill it.
	share := max(n/len(l.ready), min(n, 8))
	used := 0
	for len(l.ready) > 0 && len(items) < n {
		ln := l.ready[0]
		for ln.taken < len(ln.items) && ln.taken < share && len(items) < n {
			it := ln.items[ln.taken]
			if len(items) > 0 && (it.suspect || items[0].suspect || used+it.size > bytes || it.due.After(now)) {
				break
			}
			used += it.size
			items = append(items, it)
			ln.taken++
		}
		if ln.taken == 0 { // no room for its head: it stays the first
			break
		}
		l.ready[0] = nil
		l.ready = l.ready[1:]
		taken = append(taken, ln)
	}
	return taken, items, next
}

// settle takes lanes out of hand: keep says for each item taken, in the order of take, whether it stays, and as what. It
// works in place: a backlog of many thousand items in one lane is settled a batch at a time.
func (l *lanes) settle(taken []*lane, keep func(i int) (item, bool)) {
	i := 0
	for _, ln := range taken {
		var left []item
		for range ln.taken {
			if it, stays := keep(i); stays {
				left = append(left, it)
			}
			i++
		}
		from := ln.taken - len(left)
		copy(ln.items[from:], left)
		clear(ln.items[:from]) // the pushes must not live on in the slack of the slice
		ln.items = ln.items[from:]
		l.count -= from
		l.queue(ln)
	}
}

// delayed is a heap of lanes by due.
type delayed []*lane

func (d delayed) Len() int           { return len(d) }
func (d delayed) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d delayed) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push is heap.Interface's.
func (d *delayed) Push(x any) { *d = append(*d, x.(*lane)) }

// Pop is heap.Interface's.
func (d *delayed) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return last
}
