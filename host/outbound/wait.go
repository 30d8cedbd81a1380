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

// Delivery is asked for at once while somebody waits, then ever more rarely.
const (
	askFirst = 20 * time.Millisecond
	askMax   = 2 * time.Second
	// recheckEvery is for changes that nobody here tells of: another host's.
	recheckEvery = 5 * time.Second
)

// waiters are the callers that wait for a change of an entry.
type waiters struct {
	mu sync.Mutex
	m  map[string]map[chan struct{}]struct{}
}

func newWaiters() *waiters { return &waiters{m: map[string]map[chan struct{}]struct{}{}} }

// add registers a waiter; the channel gets one token per burst of changes.
func (w *waiters) add(id string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m[id] == nil {
		w.m[id] = map[chan struct{}]struct{}{}
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

func (w *waiters) notify(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.m[id] {
		select {
		case ch <- struct{}{}:
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
			if done, err := o.askDelivered(ctx, b, e); err != nil {
				return e, err
			} else if done != nil {
				return done, nil
			}
			next, ask = ask, min(ask*2, askMax)
		}
		again.Reset(next)
		select {
		case <-woken:
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

// askDelivered asks the broker once, records what it says and returns the
// entry as delivered, or nil. An answer that fails is no answer: the caller
// asks again.
func (o *Outbound) askDelivered(ctx context.Context, b *box, e *sdk.Entry) (*sdk.Entry, error) {
	a := o.meshes[e.Mesh]
	if a == nil || !a.Link.Ready() {
		return nil, nil
	}
	delivered, at, err := a.Link.Delivered(ctx, e.BrokerMessageID)
	if errors.Is(err, ErrUnknownMessage) {
		return nil, sdk.Errorf(sdk.CodeNotFound, "message_unknown", "the broker no longer knows message %s", e.BrokerMessageID).
			WithNext("Whether it was delivered can't be learned.")
	}
	if err != nil || !delivered {
		return nil, nil
	}
	if at.IsZero() {
		at = time.Now()
	}
	at = at.Truncate(time.Millisecond)
	if b.enter(ctx) != nil {
		return nil, nil // its rows are on their way elsewhere
	}
	defer b.gate.leave()
	out, err := o.change(ctx, b, e, sdk.Op{Kind: sdk.OpDelivered, ID: e.ID, At: at}, sdk.StateDelivered, "delivered", func(sdk.OpResult) {})
	if err != nil {
		return nil, nil // the fact is not lost: whoever waits asks again
	}
	out.DeliveredAt = at
	return out, nil
}
