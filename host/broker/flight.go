package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/meshhost/meshhost/host/wire"
)

var (
	// ErrNotConnected says that nothing was written: there is no socket whose hello was acked.
	ErrNotConnected = errors.New("not connected to the broker")
	// ErrConnectionLost says that the socket ended after the request was written; whether it was carried out is unknown.
	ErrConnectionLost = errors.New("broker connection lost while waiting for the answer")
	// ErrTimeout says that the broker didn't answer in time; it answers nothing to what it doesn't understand (PROTOCOL 1.6).
	ErrTimeout = errors.New("broker didn't answer in time")
	// ErrBusy says that too many sends and requests are in flight.
	ErrBusy = errors.New("too many requests in flight")
	// ErrInFlight says that a send of the same id is in flight.
	ErrInFlight = errors.New("a send with this id is in flight")
)

// trip is one send or request in flight.
type trip struct {
	id         string
	deadline   time.Time        // monotonic
	done       func(SendResult) // of a send
	reply      chan reply       // of a request; holds one
	prev, next *trip            // in its line; guarded by flight.mu
	in         *line            // nil when it has left
}

// reply is what a request's caller waits for.
type reply struct {
	frame wire.Frame // Raw is its own
	err   error
}

// line is a queue of trips with one and the same timeout, so that its head is due first.
type line struct {
	timeout    time.Duration
	head, tail *trip
}

func (l *line) append(t *trip) {
	t.in, t.prev, t.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = t
	} else {
		l.head = t
	}
	l.tail = t
}

func (l *line) remove(t *trip) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		l.tail = t.prev
	}
	t.in, t.prev, t.next = nil, nil, nil
}

// flight is the table of everything in flight on a connection's current socket; its end is told before the next one is dialed,
// and empties the table. Whoever takes a trip out of it settles the trip: so each is settled once. One timer serves all deadlines.
type flight struct {
	mu       sync.Mutex
	trips    map[string]*trip
	sends    line
	requests line
	overdue  map[string]struct{} // ids of sends whose time was up on this socket: their acks may still come
	wake     chan struct{}       // holds one: a line that was empty no longer is
}

func (f *flight) init() {
	f.trips = make(map[string]*trip)
	f.overdue = make(map[string]struct{})
	f.sends.timeout, f.requests.timeout = SendTimeout, RequestTimeout
	f.wake = make(chan struct{}, 1)
}

func (f *flight) add(t *trip, l *line) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trips[t.id] != nil {
		return ErrInFlight
	}
	if len(f.trips) >= maxPending {
		return ErrBusy
	}
	f.trips[t.id] = t
	t.deadline = time.Now().Add(l.timeout)
	l.append(t)
	if l.head == t {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// take removes the trip that a frame of that kind and id answers; nil if there is none. Only an ack or an error answers a
// send, whose id its user may have chosen.
func (f *flight) take(id string, kind wire.Kind) *trip {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trips[id]
	if t == nil || (t.done != nil && kind != wire.KindAck && kind != wire.KindError) {
		return nil
	}
	delete(f.trips, id)
	t.in.remove(t)
	return t
}

// takeThis removes t itself; false if somebody else has taken it.
func (f *flight) takeThis(t *trip) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trips[t.id] != t {
		return false
	}
	delete(f.trips, t.id)
	t.in.remove(t)
	return true
}

// takeAll empties the table: the socket is gone.
func (f *flight) takeAll() []*trip {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.overdue)
	if len(f.trips) == 0 {
		return nil
	}
	all := make([]*trip, 0, len(f.trips))
	for _, l := range []*line{&f.requests, &f.sends} {
		for t := l.head; t != nil; t = l.head {
			l.remove(t)
			all = append(all, t)
		}
	}
	clear(f.trips)
	return all
}

// wasOverdue reports, once, whether a send of this id ran out of time on this socket.
func (f *flight) wasOverdue(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.overdue[id]
	delete(f.overdue, id)
	return ok
}

// expire removes what is due and returns it with the moment of the next deadline, zero if nothing is in flight.
func (f *flight) expire(now time.Time) (due []*trip, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range []*line{&f.requests, &f.sends} {
		for t := l.head; t != nil && !t.deadline.After(now); t = l.head {
			l.remove(t)
			delete(f.trips, t.id)
			if t.done != nil && len(f.overdue) < maxPending {
				f.overdue[t.id] = struct{}{}
			}
			due = append(due, t)
		}
		if l.head != nil && (next.IsZero() || l.head.deadline.Before(next)) {
			next = l.head.deadline
		}
	}
	return due, next
}

// watch settles what runs out of time, until ctx ends.
func (f *flight) watch(ctx context.Context, settle func(*trip)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := f.expire(time.Now())
		for _, t := range due {
			settle(t)
		}
		wait := time.Hour // nothing in flight: wake tells
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.wake:
		}
	}
}
