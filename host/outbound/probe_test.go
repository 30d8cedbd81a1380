package outbound

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// strangers are n more peers.
func (h *house) strangers(n int) []string {
	h.t.Helper()
	names := make([]string, n)
	for i := range names {
		k, err := identity.Generate()
		if err != nil {
			h.t.Fatal(err)
		}
		names[i] = fmt.Sprint("stranger", i)
		h.names.keys[names[i]] = k.Public().String()
	}
	return names
}

func TestProbesOfManyAbsentPeersHoldUpNobodyElse(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		names := h.strangers(300)
		absent, limited, last := true, false, time.Time{}
		h.link.setScript(func(m Message, _ int) Outcome {
			if limited && time.Since(last) < 3*time.Second {
				return Outcome{Verdict: RateLimited, PerMinute: 20}
			}
			last = time.Now()
			if absent && m.ClientMessageID[0] == 'w' {
				return Outcome{Verdict: NoPeer}
			}
			return Outcome{}
		})
		h.start()
		var ids []string
		for i, name := range names {
			ids = append(ids, h.send(name, fmt.Sprint("w", i)))
		}
		synctest.Wait()
		limited = true
		h.out.Online("team", false, false)
		time.Sleep(2 * probeEvery) // all are to be probed at once
		h.out.Online("team", true, true)
		time.Sleep(time.Minute)
		for i := range 5 {
			fresh := h.send("ann", fmt.Sprint("f", i))
			time.Sleep(10 * time.Second)
			h.wantState(fresh, sdk.StateAccepted)
		}
		// One that comes back is not behind the probes of the others.
		absent = false
		h.out.PeersSeen("team", []string{h.names.keys[names[299]]})
		time.Sleep(10 * time.Second)
		h.wantState(ids[299], sdk.StateAccepted)
		h.close()
	})
}

func TestProbesTakeASmallPartOfTheRate(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		names := h.strangers(200)
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		for i, name := range names {
			h.send(name, fmt.Sprint("w", i))
		}
		synctest.Wait()
		start := len(h.link.messages())
		time.Sleep(time.Hour)
		synctest.Wait()
		// Every ten minutes for each would be 1,200.
		if n := len(h.link.messages()) - start; n < 400 || n > 700 {
			t.Errorf("%d probes of 200 peers in an hour, want about 10 a minute", n)
		}
		h.close()
	})
}

func TestEachAbsentPeerIsProbedThoughAllAreDueAtOnce(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		for i, name := range h.strangers(150) {
			h.send(name, fmt.Sprint("w", i))
		}
		synctest.Wait()
		h.out.Online("team", false, false)
		time.Sleep(2 * sdk.MaxDelay)
		before := len(h.link.messages())
		h.out.Online("team", true, true)
		time.Sleep(sdk.MaxDelay)
		synctest.Wait()
		probed := map[string]bool{}
		for _, m := range h.link.messages()[before:] {
			probed[m.ClientMessageID] = true
		}
		if len(probed) != 150 {
			t.Errorf("%d of 150 were probed in an hour", len(probed))
		}
		h.close()
	})
}
