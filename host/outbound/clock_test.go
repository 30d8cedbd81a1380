package outbound

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// While a machine is suspended the monotonic clock may stand still, and another
// host takes the lane over.
func TestAfterASuspensionTheLeaseIsNotTrusted(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.send("ann", "1")
		h.wantIDs("", "1")
		h.store.hold("other", time.Hour)
		h.ahead.Store(int64(20 * time.Second))
		h.send("ann", "2")
		h.wantIDs("", "1")
	})
	// If nobody did, it goes on at once.
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.send("ann", "1")
		synctest.Wait()
		asked := h.store.count("acquire")
		h.ahead.Store(int64(time.Hour))
		h.send("ann", "2")
		h.wantIDs("", "1 2")
		if n := h.store.count("acquire") - asked; n != 1 {
			t.Errorf("the lease was asked for %d times", n)
		}
	})
}

func TestAClockThatJumpsAheadLetsNoMessageExpire(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.wantState(id, sdk.StateWaiting)
		h.ahead.Store(int64(30 * 24 * time.Hour))
		h.link.setScript(nil)
		h.out.PeersSeen("team", []string{h.names.keys["ann"]})
		h.wantState(id, sdk.StateAccepted)
	})
	// The broker has taken a hello by that clock: it is right, and the message old.
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		h.ahead.Store(int64(30 * 24 * time.Hour))
		h.out.Online("team", true, true)
		h.wantState(id, sdk.StateExpired)
	})
}
