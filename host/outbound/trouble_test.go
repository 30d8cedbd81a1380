package outbound

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

var errDiskFull = &sdk.Error{Code: sdk.CodeUnavailable, Reason: "disk_full", Message: "outbox(test): outbox.db cannot grow; free space on its disk"}

// logged starts keeping what is logged at info and above.
func (h *house) logged() func() string {
	var out bytes.Buffer
	h.log = hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info})
	return func() string {
		synctest.Wait()
		defer out.Reset()
		return out.String()
	}
}

func TestASenderAndTheLogHearWhyTheBackendFails(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		logged := h.logged()
		h.start()
		defer h.close()
		h.store.failing(errDiskFull)
		err := <-h.accept("1")
		if reason(err) != "outcome_unknown" || !errors.Is(err, sdk.ErrTimeout) || !strings.Contains(err.Error(), "free space on its disk") {
			t.Errorf("the sender hears: %v", err)
		}
		if got := logged(); strings.Count(got, "free space on its disk") != 1 || !strings.Contains(got, "[WARN]") {
			t.Errorf("want one warning that says why; got %q", got)
		}
		h.store.set(nil, nil)
		time.Sleep(time.Second)
		h.send("ann", "2")
		if got := logged(); !strings.Contains(got, "works again") {
			t.Errorf("the log does not say that it works again: %q", got)
		}
	})
}

func TestTheLogSaysThatNothingCanBeFetchedOrLeased(t *testing.T) {
	for _, method := range []string{"fetch", "acquire"} {
		t.Run(method, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				logged := h.logged()
				bad := func(m string, _ []sdk.Op) error {
					if m == method {
						return errDiskFull
					}
					return nil
				}
				h.store.set(bad, nil)
				h.start()
				defer h.close()
				time.Sleep(time.Minute)
				if got := logged(); strings.Count(got, "free space on its disk") != 1 {
					t.Errorf("want one warning that says why; got %q", got)
				}
				h.store.set(nil, nil)
				time.Sleep(time.Minute)
				if got := logged(); !strings.Contains(got, "works again") {
					t.Errorf("the log does not say that it works again: %q", got)
				}
			})
		})
	}
}

func TestARestartOfTheBackendIsNoWarning(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		logged := h.logged()
		h.start()
		defer h.close()
		ended := true
		h.store.set(func(string, []sdk.Op) error {
			if ended {
				ended = false
				return errUnknown
			}
			return errDown
		}, nil)
		told := h.accept("1")
		time.Sleep(500 * time.Millisecond)
		h.store.set(nil, nil)
		h.out.OutboxReady("box")
		if err := <-told; err != nil {
			t.Error(err)
		}
		if got := logged(); got != "" {
			t.Errorf("the supervisor tells of crashes; this is too much: %q", got)
		}
	})
}

func TestWhatCanNotBeSettledIsBounded(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		a := h.out.meshes["team"]
		body := a.atRest.Seal([]byte("ciphertext"))
		names := h.strangers(50)
		h.store.mu.Lock()
		for n := range 100 {
			for _, name := range names {
				id := name + "/" + string(rune('a'+n/10)) + string(rune('a'+n%10))
				h.store.add(&sdk.Entry{
					ID: id, ClientMessageID: id, Mesh: "team", Sender: MemberSender, Lane: laneName("team"), Target: h.names.keys[name],
					Priority: "next", Body: body, NotAfter: time.Now().Add(time.Hour), State: sdk.StatePending,
				})
			}
		}
		h.store.mu.Unlock()
		h.store.failing(errDiskFull)
		h.out.Online("team", true, true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(h.link.messages()); n < maxInflight || n > maxUnsettled+maxInflight {
			t.Errorf("%d messages were sent although nothing can be settled, want %d at most", n, maxUnsettled+maxInflight)
		}
		h.store.set(nil, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(h.link.messages()); n != 5000 {
			t.Errorf("%d messages were sent, want all and none twice", n)
		}
	})
}

func TestWhatASenderTookBackIsNotCarriedAlone(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		gate := make(chan struct{})
		held := false
		h.store.set(func(method string, ops []sdk.Op) error {
			switch {
			case method != "apply":
			case !held: // until three wait for the next call
				held = true
				<-gate
			case len(ops) > 1:
				return errInvalid
			default: // the first that is carried alone
				<-gate
			}
			return nil
		}, nil)
		h.accept("1")
		alone, second, third := h.accept("2"), h.accept("3"), h.accept("4")
		gate <- struct{}{}
		time.Sleep(storeTimeout)
		if err := <-alone; reason(err) != "outcome_unknown" {
			t.Errorf("in the call: %v", err)
		}
		for _, told := range []<-chan error{second, third} {
			if err := <-told; reason(err) != "outbox_unavailable" {
				t.Errorf("not in a call: %v", err)
			}
		}
		close(gate)
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := len(h.store.all()); n != 2 {
			t.Errorf("%d rows; of three senders two heard that nothing was stored", n)
		}
	})
}

func TestARowThatCanNotBeSettledIsNotSentInALoop(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		bad := ""
		h.store.set(func(method string, ops []sdk.Op) error {
			for i := range ops {
				if ops[i].Kind == sdk.OpAccepted && ops[i].ID == bad {
					return errDefect
				}
			}
			return nil
		}, nil)
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "bad" {
				bad = m.ID
			}
			return Outcome{}
		})
		h.send("ann", "bad")
		for i := range 1200 {
			h.send("bob", fmt.Sprint(i))
			if i%10 == 0 {
				h.out.Online("team", false, false) // each new connection fetches
				h.out.Online("team", true, true)
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		n := 0
		for _, id := range h.link.ids(h.names.keys["ann"]) {
			if id == "bad" {
				n++
			}
		}
		if n < 2 || n > 5 {
			t.Errorf("sent %d times in two minutes, want about one a minute", n)
		}
		h.store.set(nil, nil)
		time.Sleep(2 * retryMax)
		h.wantState(bad, sdk.StateAccepted)
	})
}
