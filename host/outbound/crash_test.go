package outbound

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meshhost/meshhost/sdk"
)

func waitAtMost(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// A kill -9 at each step of a message's way: the next run sends what is left,
// in order, and nothing that is known to be taken.
func TestAKillAtAnyStepLosesNothingAndKeepsTheOrder(t *testing.T) {
	steps := map[string]struct {
		script func(Message, int) Outcome
		manual bool
		cut    func(method string, ops []sdk.Op) error // the answer that never comes
		offers string                                  // what the second run writes to ann
	}{
		"stored, not yet written": {manual: true, offers: "1 2 3"},
		"acked, not yet settled": {
			cut: func(method string, ops []sdk.Op) error {
				if method == "apply" && ops[0].Kind == sdk.OpAccepted {
					return errors.New("cut")
				}
				return nil
			},
			offers: "1 2 3",
		},
		"deferred": {
			script: func(m Message, n int) Outcome {
				if n == 1 {
					return Outcome{Verdict: Transient}
				}
				return Outcome{}
			},
			offers: "1 2 3",
		},
		"waiting": {
			script: func(m Message, n int) Outcome {
				if n == 1 {
					return Outcome{Verdict: NoPeer}
				}
				return Outcome{}
			},
			offers: "1 2 3",
		},
		"unknown": {
			script: func(m Message, n int) Outcome {
				if n == 1 {
					return Outcome{Verdict: Unknown}
				}
				return Outcome{}
			},
			offers: "1 2 3",
		},
		"settled": {offers: ""},
	}
	for name, c := range steps {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.link.manual, h.link.script = c.manual, c.script
				h.startOffline()
				for _, key := range []string{"1", "2", "3"} {
					h.send("ann", key)
				}
				h.store.set(c.cut, nil)
				h.out.Online("team", true, true)
				synctest.Wait()
				h.kill()
				first := len(h.link.messages())
				h.link.reset()
				h.start()
				defer h.close()
				h.out.PeersSeen("team", []string{h.names.keys["ann"]})
				time.Sleep(2 * time.Second)
				var got []string
				for _, m := range h.link.messages()[first:] {
					got = append(got, m.ClientMessageID)
				}
				if s := fmt.Sprint(got); s != "["+c.offers+"]" {
					t.Errorf("the second run wrote %s, want [%s]", s, c.offers)
				}
				for _, e := range h.store.all() {
					if e.State != sdk.StateAccepted {
						t.Errorf("%s is %q", e.ClientMessageID, e.State)
					}
				}
			})
		})
	}
}

// Whatever happens in whatever order: each accepted message is written at least
// once, per target in the order of the store, and twice only if the outcome of
// an attempt was unknown.
func TestAnyInterleavingSendsEverythingInOrderAndNothingTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.SliceOfN(rapid.IntRange(0, 99), 40, 160).Draw(rt, "steps")
		var faults []string
		synctest.Test(t, func(t *testing.T) {
			w := &world{house: newHouse(t), may: map[string]bool{}, loose: map[string]bool{}}
			faults = w.run(seed)
		})
		if len(faults) > 0 {
			rt.Fatalf("%d faults: %q", len(faults), faults)
		}
	})
}

// world drives a house by numbers, so that a run can be repeated.
type world struct {
	*house
	seed  []int
	at    int
	may   map[string]bool // ids that may be written twice
	loose map[string]bool // ids that were requeued
	sends int
	calm  bool
}

func (w *world) draw(n int) int {
	w.at++
	return w.seed[w.at%len(w.seed)] * (1 + w.at/len(w.seed)) % n
}

func (w *world) run(seed []int) []string {
	w.seed = seed
	w.link.script = w.outcome
	w.store.set(w.trouble, w.trouble)
	w.start()
	for range seed {
		w.step()
	}
	// Everything heals: all that is left must leave.
	w.store.mu.Lock()
	w.calm = true
	w.store.mu.Unlock()
	w.link.setReady(true)
	w.out.Online("team", true, true)
	time.Sleep(probeEvery + 2*time.Minute)
	synctest.Wait()
	faults := w.faults(w.may, w.loose)
	for _, e := range w.store.all() {
		if e.State != sdk.StateAccepted && e.State != sdk.StateCancelled {
			faults = append(faults, fmt.Sprintf("%s to %.6s is %s at the end", e.ClientMessageID, e.Target, e.State))
		}
	}
	w.close()
	return faults
}

// outcome is the broker.
func (w *world) outcome(m Message, _ int) Outcome {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.calm {
		return Outcome{}
	}
	switch w.draw(12) {
	case 0:
		w.may[m.ID] = true
		return Outcome{Verdict: Unknown}
	case 1:
		w.may[m.ID] = true // refused, so that it comes again
		return Outcome{Verdict: NoPeer}
	case 2:
		w.may[m.ID] = true
		return Outcome{Verdict: Transient}
	case 3:
		w.may[m.ID] = true
		return Outcome{Verdict: RateLimited, PerMinute: 6000}
	}
	return Outcome{}
}

// trouble is what the backend's calls run into. A settlement that a crash or a
// lost answer swallows makes the outcome unknown.
func (w *world) trouble(method string, _ []sdk.Op) error {
	w.store.mu.Lock()
	calm, n := w.calm, 99
	if !calm {
		n = w.draw(20)
	}
	w.store.mu.Unlock()
	switch {
	case calm || method == "list" || method == "get" || method == "lookup":
	case n == 0:
		return errUnknown
	case n == 1:
		return errDown
	case n < 8:
		time.Sleep(time.Duration(n) * time.Millisecond) // another order of answers
	}
	return nil
}

func (w *world) step() {
	w.store.mu.Lock()
	do, who, gap := w.draw(20), w.draw(3), w.draw(8)
	w.store.mu.Unlock()
	target := []string{"ann", "bob", "@g"}[who]
	switch {
	case do < 11:
		w.sends++
		key := fmt.Sprint("m", w.sends)
		go func() {
			_, _ = w.out.Accept(context.Background(), Request{To: target, Message: key, ClientMessageID: key})
		}()
	case do == 11:
		w.link.setReady(false)
		w.out.Online("team", false, false)
	case do < 14:
		w.link.setReady(true)
		w.out.Online("team", true, true)
	case do == 14:
		w.out.PeersSeen("team", []string{w.names.keys["ann"], w.names.keys["bob"]})
	case do == 15:
		w.out.OutboxReady("box")
	case do < 18:
		w.person(do == 16)
	case do == 18:
		w.steal()
	default:
		time.Sleep(time.Second)
	}
	if gap > 4 {
		time.Sleep(time.Duration(gap) * time.Millisecond)
	}
}

// person cancels or requeues some message.
func (w *world) person(cancel bool) {
	w.store.mu.Lock()
	var id string
	if n := len(w.store.rows); n > 0 {
		id = w.store.rows[w.draw(n)].ID
	}
	if !cancel {
		w.loose[id] = true
	}
	w.store.mu.Unlock()
	go func() {
		if cancel {
			_, _ = w.out.Cancel(context.Background(), id)
		} else {
			_, _ = w.out.Requeue(context.Background(), id)
		}
	}()
}

// steal is another host that has the lane for a moment and sends nothing. What
// was on the wire then is settled as a fact, or refused and sent again.
func (w *world) steal() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if l := w.store.lanes["team/member"]; l != nil {
		l.owner, l.incarnation, l.expires = "other", "1", time.Now().Add(time.Second)
		l.epoch++
	}
}
