package outbound

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// ErrUnknownMessage is what a Link says of a message that the broker forgot.
var ErrUnknownMessage = errors.New("the broker does not know the message")

// Who waits looks again and has the broker asked at once, then ever more rarely.
const (
	askFirst = 20 * time.Millisecond
	askMax   = 2 * time.Second
	// recheckEvery is for changes that nobody here tells of, while this host
	// sends the lane. Another host's are looked for as often as the broker is
	// asked.
	recheckEvery = 5 * time.Second
)

// waiters are the callers that wait for a change of an entry.
type waiters struct {
	mu sync.Mutex
	m  map[string]map[chan error]struct{}
}

func newWaiters() *waiters { return &waiters{m: map[string]map[chan error]struct{}{}} }

// add registers a waiter; the channel gets nil once per burst of changes, or why
// waiting is of no use.
func (w *waiters) add(id string) (<-chan error, func()) {
	ch := make(chan error, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m[id] == nil {
		w.m[id] = map[chan error]struct{}{}
	}
	w.m[id][ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.m[id], ch)
		if len(w.m[id]) == 0 {
			delete(w.m, id)
		}
	}
}

// tell wakes who waits for id: to look again, or with an error to give up.
func (w *waiters) tell(id string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.m[id] {
		if err != nil {
			select { // a token that is there says less
			case <-ch:
			default:
			}
		}
		select {
		case ch <- err:
		default:
		}
	}
}

// Wait returns the entry once its state is at least want (accepted or
// delivered) or final, or when ctx ends, with the entry as it was last seen
// (nil if it never was) and an ErrTimeout. A backend that is down is waited for.
func (o *Outbound) Wait(ctx context.Context, id string, want sdk.EntryState) (*sdk.Entry, error) {
	woken, remove := o.waiters.add(id)
	defer remove()
	var last *sdk.Entry
	ask := askFirst
	again := time.NewTimer(recheckEvery)
	defer again.Stop()
	for {
		next := recheckEvery
		e, b, err := o.get(ctx, id)
		switch {
		case err == nil:
			last = e
		case errors.Is(err, sdk.ErrNotFound) || o.running() != nil:
			return nil, err
		}
		switch {
		case err != nil:
			next = askMax
		case reached(e, want):
			return e, nil
		case e.State == sdk.StateAccepted: // want is delivered
			if isMulticast(e.Target) {
				return e, sdk.Errorf(sdk.CodeInvalid, "no_delivery_report", "a message to %s has no report of delivery", e.Target).
					WithNext("Wait for accepted.")
			}
			o.ask(b, e)
			next, ask = ask, min(ask*2, askMax)
		case !o.sends(e):
			next, ask = ask, min(ask*2, askMax)
		}
		again.Reset(next)
		select {
		case err := <-woken:
			if err != nil {
				return last, err
			}
		case <-again.C:
		case <-ctx.Done():
			return last, waitTimeout(id, last, want)
		}
	}
}

func waitTimeout(id string, e *sdk.Entry, want sdk.EntryState) error {
	state := "not known, as the outbox does not answer"
	if e != nil {
		state = string(e.State)
	}
	return sdk.Errorf(sdk.CodeTimeout, "wait_timeout", "the state of the message is %s; it is not yet %s", state, want).
		WithNext("It is kept and goes on by itself: meshhost outbox show " + id)
}

// reached reports whether waiting longer changes nothing.
func reached(e *sdk.Entry, want sdk.EntryState) bool {
	switch e.State {
	case sdk.StateDelivered, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled:
		return true
	case sdk.StateAccepted:
		return want == sdk.StateAccepted
	default:
		return false
	}
}

// ask has the broker asked for the delivery of e, which is in b.
func (o *Outbound) ask(b *box, e *sdk.Entry) {
	a := o.meshes[e.Mesh]
	if a == nil {
		return
	}
	l := a.current()
	if l == nil {
		return // its outbox is held; the next lane will ask
	}
	r := rungOf(e)
	if b != a.outbox() {
		r.elsewhere = b
	}
	l.ladder.urge(r)
}

// sends reports whether this host sends the lane of e, and hears of its changes.
func (o *Outbound) sends(e *sdk.Entry) bool {
	a := o.meshes[e.Mesh]
	if a == nil {
		return false
	}
	l := a.current()
	return l != nil && l.name == e.Lane && l.ladder.holding()
}
