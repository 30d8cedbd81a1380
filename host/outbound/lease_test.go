package outbound

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// take makes another owner the holder of the lane.
func (h *house) take(owner, incarnation string, ttl time.Duration) sdk.Lease {
	h.t.Helper()
	lease, err := h.store.Acquire(context.Background(), sdk.AcquireRequest{Lane: "team/member", Owner: owner, Incarnation: incarnation, TTL: ttl})
	if err != nil {
		h.t.Fatal(err)
	}
	return lease
}

func TestALaneThatAnotherHostHasIsLeftAlone(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		lease := h.take("other", "1", 15*time.Second)
		h.start()
		defer h.close()
		first := h.send("ann", "1")
		h.send("ann", "2")
		time.Sleep(14 * time.Second)
		h.wantIDs("", "")
		// The other host sends the first one meanwhile.
		if res, _ := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAccepted, ID: first, Lane: "team/member", Epoch: lease.Epoch}}); res[0].Code != sdk.OpApplied {
			t.Fatal(res)
		}
		time.Sleep(3 * time.Second)
		h.wantIDs("", "2")
	})
}

func TestALeaseThatWasStolenStopsTheLaneAndItsMemoryIsNotTrusted(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, n int) Outcome {
			if n == 1 {
				return Outcome{Verdict: Transient}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		h.link.setManual(true)
		wire := h.send("ann", "1")
		behind := h.send("ann", "2")
		synctest.Wait()
		_ = wire
		h.store.mu.Lock()
		h.store.lanes["team/member"].expires = time.Now()
		h.store.mu.Unlock()
		h.take("other", "1", 6*time.Second)
		// The other host sends both.
		if _, err := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAccepted, ID: wire}, {Kind: sdk.OpAccepted, ID: behind}}); err != nil {
			t.Fatal(err)
		}
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Transient}) // its settlement is fenced
		time.Sleep(time.Minute)
		h.wantIDs("", "1")
		later := h.send("ann", "3")
		h.wantState(later, sdk.StateAccepted)
		h.wantIDs("", "1 3")
	})
}

func TestAnAckForALaneThatIsLostIsAFactAllTheSame(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		id := h.send("ann", "1")
		theirs := h.send("ann", "2")
		h.send("ann", "3")
		synctest.Wait()
		h.store.mu.Lock()
		h.store.lanes["team/member"].expires = time.Now()
		h.store.mu.Unlock()
		h.take("other", "1", time.Second)
		if _, err := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAccepted, ID: theirs}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // lost, and back under another epoch
		h.wantIDs("", "1")           // it is still on the wire
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		h.wantState(id, sdk.StateAccepted)
		h.wantIDs("", "1 3")
		h.close()
	})
}

func TestAFetchOfAnEarlierLeaseIsThrownAway(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		gate := make(chan struct{})
		h.store.set(nil, func(method string, _ []sdk.Op) error {
			if method == "fetch" {
				<-gate
			}
			return nil
		})
		h.out.Online("team", true, true)
		synctest.Wait() // the answer has the row, and is on its way
		h.store.mu.Lock()
		h.store.lanes["team/member"].expires = time.Now()
		h.store.mu.Unlock()
		h.take("other", "1", time.Second)
		if _, err := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAccepted, ID: id}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // we have the lease again
		h.store.set(nil, nil)
		close(gate)
		h.wantIDs("", "")
	})
}

func TestTheHolderStopsASecondBeforeItsLeaseEnds(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "acquire" {
				return errDown
			}
			return nil
		}, nil)
		time.Sleep(leaseTTL - leaseMargin - time.Millisecond)
		h.send("ann", "1")
		h.wantIDs("", "1")
		time.Sleep(time.Millisecond)
		h.send("ann", "2")
		time.Sleep(time.Minute)
		h.wantIDs("", "1")
		h.store.set(nil, nil)
		time.Sleep(time.Second)
		h.wantIDs("", "1 2") // nobody else had it: the memory is good
	})
}

func TestTwoDaemonsOnOneIdentityStopInsteadOfFighting(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.take(h.owner, "clone", 15*time.Second) // and we steal it back
		time.Sleep(leaseRenew + time.Second)
		h.send("ann", "1")
		h.wantIDs("", "1")
		h.take(h.owner, "clone", 15*time.Second)
		time.Sleep(time.Minute)
		n := h.store.count("acquire")
		h.send("ann", "2")
		time.Sleep(time.Hour)
		h.wantIDs("", "1")
		if got := h.store.count("acquire"); got != n {
			t.Errorf("%d more attempts to get the lane", got-n)
		}
	})
	// A restart steals once, and that is all right.
	inHouse(t, func(t *testing.T, h *house) {
		for range 4 {
			h.start()
			h.send("ann", h.incarnation)
			synctest.Wait()
			h.kill()
		}
		h.wantIDs("", "1 11 111 1111")
	})
}
