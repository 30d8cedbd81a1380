package outbound

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestAMessageForAnAbsentPeerWaitsAndGoesWhenThePeerIsSeen(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		absent := true
		h.link.setScript(func(m Message, _ int) Outcome {
			if absent && m.Target == h.names.keys["ann"] {
				return Outcome{Verdict: NoPeer, Detail: "no connected peer"}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		first, second := h.send("ann", "1"), h.send("ann", "2")
		other := h.send("bob", "b")
		h.wantState(first, sdk.StateWaiting)
		h.wantState(second, sdk.StatePending)
		h.wantState(other, sdk.StateAccepted)
		h.wantIDs("ann", "1")
		time.Sleep(3*time.Minute + time.Second)
		if h.lists() < 3 || h.lists() > 5 {
			t.Errorf("%d lists in three minutes, want one a minute while something waits", h.lists())
		}
		h.wantIDs("ann", "1")
		absent = false
		h.out.PeersSeen("team", []string{h.names.keys["bob"], h.names.keys["ann"]})
		h.wantIDs("ann", "1 1 2")
		h.wantState(second, sdk.StateAccepted)
		n := h.lists()
		time.Sleep(5 * time.Minute)
		if h.lists() != n {
			t.Error("the peers are still listed although nothing waits")
		}
	})
}

func TestAWaitingMessageIsProbedEveryTenMinutes(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		h.link.setScript(nil)
		time.Sleep(probeEvery - time.Second)
		h.wantIDs("", "1")
		time.Sleep(2 * time.Second)
		h.wantIDs("", "1 1")
		h.wantState(id, sdk.StateAccepted)
		n := h.lists()
		time.Sleep(5 * time.Minute)
		if h.lists() != n {
			t.Error("the peers are still listed although nothing waits")
		}
	})
}

func TestARestartKnowsForWhomMessagesWait(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		for i, name := range []string{"ann", "bob", "cy", "dee", "eve"} {
			h.send(name, fmt.Sprint(i))
		}
		synctest.Wait()
		h.kill()
		h.store.pages = 2
		h.link.setScript(nil)
		h.startOffline()
		defer h.close()
		// Listed before the lease is there, and so before anything can be woken.
		h.out.PeersSeen("team", []string{h.names.keys["eve"]})
		h.out.Online("team", true, true)
		synctest.Wait()
		if h.lists() == 0 {
			t.Error("the peers were not listed although messages wait")
		}
		var keys []string
		for _, k := range h.names.keys {
			keys = append(keys, k)
		}
		h.out.PeersSeen("team", keys)
		synctest.Wait()
		if n := len(h.link.messages()); n != 10 {
			t.Errorf("%d attempts, want five and five", n)
		}
	})
}

func TestACancelBehindAWaitingHeadLeavesTheHeadWatchedFor(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		head, behind := h.send("ann", "1"), h.send("ann", "2")
		h.wantState(head, sdk.StateWaiting)
		if _, err := h.out.Cancel(t.Context(), behind); err != nil {
			t.Fatal(err)
		}
		h.link.setScript(nil)
		h.out.PeersSeen("team", []string{h.names.keys["ann"]})
		h.wantState(head, sdk.StateAccepted)
		// Nothing is left to wait for.
		n := h.lists()
		time.Sleep(5 * time.Minute)
		if h.lists() != n {
			t.Error("the peers are still listed although nothing waits")
		}
	})
}

func TestACancelledHeadIsNotWaitedFor(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		head := h.send("ann", "1")
		h.wantState(head, sdk.StateWaiting)
		if _, err := h.out.Cancel(t.Context(), head); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n := h.lists()
		time.Sleep(5 * time.Minute)
		if h.lists() != n {
			t.Error("the peers are still listed although nothing waits")
		}
	})
}
