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
// delivered) or final, or when ctx ends, with the entry as it is and an
// ErrTimeout.
func (o *Outbound) Wait(ctx context.Context, id string, want sdk.EntryState) (*sdk.Entry, error) {
	woken, remove := o.waiters.add(id)
	defer remove()
	ask := askFirst
	for {
		e, err := o.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if reached(e, want) {
			return e, nil
		}
		var again <-chan time.Time
		if e.State == sdk.StateAccepted { // want is delivered
			if isMulticast(e.Target) {
				return e, sdk.Errorf(sdk.CodeInvalid, "no_delivery_report", "a message to %s has no report of delivery", e.Target).
					WithNext("Wait for accepted.")
			}
			done, err := o.askDelivered(ctx, e)
			if err != nil {
				return e, err
			}
			if done {
				continue
			}
			t := time.NewTimer(ask)
			defer t.Stop()
			again, ask = t.C, min(ask*2, askMax)
		}
		select {
		case <-woken:
		case <-again:
		case <-ctx.Done():
			return e, sdk.Errorf(sdk.CodeTimeout, "wait_timeout", "the message is %s, not yet %s", e.State, want).
				WithNext("It is kept and goes on by itself: meshhost outbox show " + id)
		}
	}
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

// askDelivered asks the broker once and records what it says. An answer that
// fails is no answer: the caller asks again.
func (o *Outbound) askDelivered(ctx context.Context, e *sdk.Entry) (bool, error) {
	a := o.meshes[e.Mesh]
	if a == nil || !a.Link.Ready() {
		return false, nil
	}
	delivered, at, err := a.Link.Delivered(ctx, e.BrokerMessageID)
	if errors.Is(err, ErrUnknownMessage) {
		return false, sdk.Errorf(sdk.CodeNotFound, "message_unknown", "the broker no longer knows message %s", e.BrokerMessageID).
			WithNext("Whether it was delivered can't be learned.")
	}
	if err != nil || !delivered {
		return false, nil
	}
	if at.IsZero() {
		at = time.Now()
	}
	_, err = o.change(ctx, a, e, sdk.Op{Kind: sdk.OpDelivered, ID: e.ID, At: at}, sdk.StateDelivered, "delivered")
	return err == nil, err
}
