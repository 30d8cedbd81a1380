package outbound

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestWithinATargetMessagesLeaveInOrderOneAtATime(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		for i := range 5 {
			h.send("ann", fmt.Sprint("a", i))
		}
		h.send("bob", "b0")
		h.wantIDs("ann", "a0")
		h.wantIDs("bob", "b0") // a slow target holds up no other
		for h.link.pending() > 0 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			synctest.Wait()
		}
		h.wantIDs("ann", "a0 a1 a2 a3 a4")
		if h.link.mostOn != 1 {
			t.Errorf("%d messages for one target were on the wire at once", h.link.mostOn)
		}
		h.close()
	})
}

func TestManySendersAtOnceKeepTheOrderOfTheStore(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		names := []string{"ann", "bob", "cy", "@g"}
		done := make(chan struct{})
		for g := range 8 {
			go func() {
				for i := range 40 {
					h.send(names[(g+i)%len(names)], fmt.Sprint(g, "-", i))
				}
				done <- struct{}{}
			}()
		}
		for range 8 {
			<-done
		}
		synctest.Wait()
		h.wantOnceInOrder(t)
		if n := len(h.link.messages()); n != 320 {
			t.Errorf("%d messages left, want 320", n)
		}
		if n := h.store.count("fetch"); n > 5 {
			t.Errorf("%d fetches: fresh rows are to be taken from memory", n)
		}
	})
}

// wantOnceInOrder checks that what was written is, per target, the rows of the
// store in seq order, none twice but those that may be.
func (h *house) wantOnceInOrder(t *testing.T) {
	t.Helper()
	for _, fault := range h.faults(nil, nil) {
		t.Error(fault)
	}
}

// faults says what is wrong with what was written. Rows of loose were requeued:
// their seq is another than when they were first written.
func (h *house) faults(mayRepeat, loose map[string]bool) []string {
	var out []string
	seqs, last, seen := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, e := range h.store.all() {
		seqs[e.ID] = e.Seq
	}
	for _, m := range h.link.messages() {
		switch first := !seen[m.ID]; {
		case !first && !mayRepeat[m.ID]:
			out = append(out, m.ClientMessageID+" was written twice")
		case first && !loose[m.ID] && seqs[m.ID] < last[m.Target]:
			out = append(out, m.ClientMessageID+" was written after a later one of its target")
		case first && !loose[m.ID]:
			last[m.Target] = seqs[m.ID]
		}
		seen[m.ID] = true
	}
	if h.link.mostOn > 1 {
		out = append(out, "two messages for one target were on the wire at once")
	}
	return out
}

func TestPriorityChoosesAmongTargetsAndNeverInsideOne(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		send := func(to, key, priority string) {
			if _, err := h.out.Accept(t.Context(), Request{To: to, Message: key, ClientMessageID: key, Priority: priority}); err != nil {
				t.Fatal(err)
			}
		}
		send("ann", "low", "low")
		send("ann", "now-behind", "now")
		send("bob", "next", "next")
		send("cy", "now", "now")
		h.out.Online("team", true, true)
		h.wantIDs("", "now next low now-behind")
	})
}

func TestCloseWaitsForWhatIsOnTheWire(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		id, behind := h.send("ann", "1"), h.send("ann", "2")
		synctest.Wait()
		closed := make(chan struct{})
		go func() { h.close(); close(closed) }()
		time.Sleep(3 * time.Second)
		select {
		case <-closed:
			t.Fatal("closed while a message was on the wire")
		default:
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		<-closed
		if h.store.state(id) != sdk.StateAccepted || h.store.state(behind) != sdk.StatePending || len(h.link.messages()) != 1 {
			t.Errorf("the one on the wire is %q, the one behind it %q", h.store.state(id), h.store.state(behind))
		}
		if h.store.lanes["team/member"].owner != "" {
			t.Error("the lease was not given up")
		}
	})
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		h.send("ann", "1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.out.Close(ctx); err == nil {
			t.Error("a close that could not wait long enough must say so")
		}
		h.stop()
	})
}
