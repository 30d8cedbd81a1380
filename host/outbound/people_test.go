package outbound

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

func TestACancelledMessageNeverLeavesAndTheOthersKeepTheirOrder(t *testing.T) {
	for _, which := range []int{1, 2, 3} {
		inHouse(t, func(t *testing.T, h *house) {
			h.link.manual = true
			h.start()
			defer h.close()
			var ids []string
			for _, key := range []string{"0", "1", "2", "3"} {
				ids = append(ids, h.send("ann", key))
			}
			synctest.Wait()
			if _, err := h.out.Cancel(t.Context(), ids[0]); reason(err) != "in_flight" || !errors.Is(err, sdk.ErrConflict) {
				t.Errorf("cancel on the wire: %v", err)
			}
			e, err := h.out.Cancel(t.Context(), ids[which])
			if err != nil || e.State != sdk.StateCancelled {
				t.Fatalf("%+v %v", e, err)
			}
			h.link.setManual(false)
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			h.send("ann", "4")
			h.wantIDs("", strings.Replace("0 1 2 3 4", string(rune('0'+which))+" ", "", 1))
			if _, err := h.out.Cancel(t.Context(), ids[0]); !errors.Is(err, sdk.ErrConflict) {
				t.Errorf("cancel of what the mesh has: %v", err)
			}
		})
	}
}

func TestNothingPassesAMessageWhoseCancellationIsUnderWay(t *testing.T) {
	for _, cancelled := range []bool{true, false} {
		inHouse(t, func(t *testing.T, h *house) {
			h.startOffline()
			defer h.close()
			first := h.send("ann", "1")
			h.send("ann", "2")
			gate := make(chan struct{})
			h.store.set(func(method string, ops []sdk.Op) error {
				if method == "apply" && ops[0].Kind == sdk.OpCancel {
					<-gate
					if !cancelled {
						return errInvalid
					}
				}
				return nil
			}, nil)
			told := make(chan error, 1)
			go func() {
				_, err := h.out.Cancel(t.Context(), first)
				told <- err
			}()
			synctest.Wait()
			h.out.Online("team", true, true) // Fetch brings the row meanwhile
			h.wantIDs("", "")
			close(gate)
			if err := <-told; (err == nil) != cancelled {
				t.Errorf("got %v", err)
			}
			if cancelled {
				h.wantIDs("", "2")
			} else {
				h.wantIDs("", "1 2")
			}
		})
	}
}

func TestAHeadThatWaitsCanBeCancelledAndTheNextOneGoes(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "1" {
				return Outcome{Verdict: NoPeer}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		first := h.send("ann", "1")
		h.send("ann", "2")
		h.wantState(first, sdk.StateWaiting)
		if _, err := h.out.Cancel(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		h.wantIDs("", "1 2")
	})
}

func TestARequeuedMessageGoesAgainAsTheSameOneBehindTheOthers(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		refuse := true
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "1" && refuse {
				return Outcome{Verdict: Refused}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.wantState(id, sdk.StateDead)
		refuse = false
		h.link.setManual(true)
		h.send("ann", "2")
		h.send("ann", "3")
		synctest.Wait()
		e, err := h.out.Requeue(t.Context(), id) // while its queue is in memory
		if err != nil || e.State != sdk.StatePending || e.ClientMessageID != "1" {
			t.Fatalf("%+v %v", e, err)
		}
		synctest.Wait()
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		h.wantIDs("", "1 2 3 1")
		h.wantState(id, sdk.StateAccepted)
		if _, err := h.out.Requeue(t.Context(), id); !errors.Is(err, sdk.ErrConflict) {
			t.Errorf("requeue of what the mesh has: %v", err)
		}
	})
}

func TestARequeueDuringAFetchIsNotForgotten(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		if _, err := h.out.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		h.store.set(nil, func(method string, _ []sdk.Op) error {
			if method == "fetch" {
				<-gate // its answer has 2 alone, and says that this is all
			}
			return nil
		})
		h.out.Online("team", true, true)
		synctest.Wait()
		if _, err := h.out.Requeue(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		h.store.set(nil, nil)
		close(gate)
		h.wantIDs("", "2 1")
	})
}

func TestACancelDuringAFetchIsNotUndoneByIt(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		gate := make(chan struct{})
		h.store.set(nil, func(method string, _ []sdk.Op) error {
			if method == "fetch" {
				<-gate // its answer has both
			}
			return nil
		})
		h.out.Online("team", true, true)
		synctest.Wait()
		if _, err := h.out.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		h.store.set(nil, nil)
		close(gate)
		h.wantIDs("", "2")
	})
}

func TestAQueueThatIsMadeAnewWhileItsTurnComesIsNotForgotten(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(_ Message, n int) Outcome {
			if n == 1 {
				return Outcome{Verdict: RateLimited, PerMinute: 6}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		h.send("bob", "b")
		synctest.Wait()
		id := h.send("ann", "1")
		synctest.Wait()
		if _, err := h.out.Cancel(t.Context(), id); err != nil { // it was in the list of those whose turn comes
			t.Fatal(err)
		}
		h.send("ann", "2")
		synctest.Wait()
		h.link.setManual(true)
		time.Sleep(25 * time.Second)
		h.send("ann", "3")
		synctest.Wait()
		for h.link.pending() > 0 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			time.Sleep(time.Minute)
		}
		h.wantIDs("ann", "2 3")
	})
}

func TestPeopleFindMessagesAndHearWhatIsWrong(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		if !h.out.InFlight(id) || len(h.out.Inflight()) != 1 {
			t.Error("the message is on the wire")
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		synctest.Wait()
		if e, err := h.out.Get(t.Context(), id); err != nil || e.State != sdk.StateAccepted {
			t.Errorf("get: %+v %v", e, err)
		}
		for _, missing := range []string{"", "no", "\xff", strings.Repeat("x", 5000)} {
			if _, err := h.out.Get(t.Context(), missing); !errors.Is(err, sdk.ErrNotFound) {
				t.Errorf("get %.10q: %v", missing, err)
			}
			if _, err := h.out.Cancel(t.Context(), missing); !errors.Is(err, sdk.ErrNotFound) {
				t.Errorf("cancel %.10q: %v", missing, err)
			}
		}
		stats, err := h.out.Stats(t.Context())
		if err != nil || stats["box"].States[sdk.StateAccepted] != 1 {
			t.Errorf("stats: %+v %v", stats, err)
		}
		h.store.set(func(string, []sdk.Op) error { return errDown }, nil)
		if _, err := h.out.Get(t.Context(), id); errors.Is(err, sdk.ErrNotFound) || err == nil {
			t.Errorf("a backend that is down does not say that the message is not there: %v", err)
		}
		h.store.set(nil, nil)
		synctest.Wait()
		if len(h.events) != 2 || *h.events[0] != (change{
			ID: id, ClientMessageID: "1", Target: h.names.keys["ann"], State: sdk.StatePending, Detail: "stored",
			mesh: "team", hop: HopStored, at: h.events[0].at,
		}) || h.events[1].State != sdk.StateAccepted || h.events[1].ID != id || h.events[1].BrokerMessageID != "b" {
			t.Errorf("events: %+v", h.events)
		}
	})
}

func TestListGoesThroughAllOutboxesByName(t *testing.T) {
	a, b, c := newStore(), newStore(), newStore()
	out, err := New(Options{Outboxes: map[string]Backend{"a": {Outbox: a}, "b": {Outbox: b}, "c": {Outbox: c}}, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*store{a, c, a, c, c} {
		id := string(rune('1' + i))
		if _, err := s.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: id, ClientMessageID: id}}}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	req := sdk.ListRequest{Limit: 2}
	for range 10 {
		page, err := out.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			got = append(got, e.ID)
		}
		if req.Before = page.Next; req.Before == "" {
			break
		}
	}
	if s := strings.Join(got, ""); s != "31542" {
		t.Errorf("listed %s", s)
	}
}

func TestWaitReturnsWhenTheMeshHasTheMessageOrSaysWhyNot(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		begin := time.Now()
		time.AfterFunc(3*time.Second, func() { h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"}) })
		e, err := h.out.Wait(t.Context(), id, sdk.StateAccepted)
		if err != nil || e.State != sdk.StateAccepted || time.Since(begin) != 3*time.Second {
			t.Errorf("%+v %v after %s", e, err, time.Since(begin))
		}
		h.link.setManual(false)
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: Refused, Detail: "no"} })
		if e, err := h.out.Wait(t.Context(), h.send("ann", "2"), sdk.StateDelivered); err != nil || e.State != sdk.StateDead {
			t.Errorf("%+v %v", e, err)
		}
		if _, err := h.out.Wait(t.Context(), "nothing", sdk.StateAccepted); !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWaitForDeliveryAsksTheBroker(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		arrival := time.Now().Add(5 * time.Second)
		asked := 0
		h.link.delivered = func(id string) (bool, error) {
			asked++
			if id != "b1" {
				t.Errorf("asked for %q", id)
			}
			if asked == 2 {
				return false, errors.New("timed out")
			}
			return time.Now().After(arrival), nil
		}
		id := h.send("ann", "1")
		e, err := h.out.Wait(t.Context(), id, sdk.StateDelivered)
		if err != nil || e.State != sdk.StateDelivered || e.DeliveredAt.IsZero() || time.Since(arrival) > askMax {
			t.Errorf("%+v %v", e, err)
		}
		if asked > 15 {
			t.Errorf("the broker was asked %d times in five seconds", asked)
		}
		// What the broker has lost goes again, a few times, and then waiting is of no use.
		h.link.delivered = func(string) (bool, error) { return false, ErrUnknownMessage }
		if _, err := h.out.Wait(t.Context(), h.send("ann", "2"), sdk.StateDelivered); reason(err) != "message_unknown" {
			t.Errorf("got %v", err)
		}
		h.wantIDs("ann", "1 2 2 2 2")
		if _, err := h.out.Wait(t.Context(), h.send("@all", "3"), sdk.StateDelivered); reason(err) != "no_delivery_report" {
			t.Errorf("got %v", err)
		}
	})
}

func TestWaitEndsWithItsContextAndOutlivesARestartOfTheBackend(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		h.store.set(func(string, []sdk.Op) error { return errDown }, nil)
		time.AfterFunc(3*time.Second, func() { h.store.set(nil, nil); h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"}) })
		if e, err := h.out.Wait(t.Context(), id, sdk.StateAccepted); err != nil || e.State != sdk.StateAccepted {
			t.Errorf("%+v %v", e, err)
		}
		late := h.send("ann", "2")
		ctx, cancel := waitAtMost(t, 2*time.Second)
		defer cancel()
		e, err := h.out.Wait(ctx, late, sdk.StateAccepted)
		if reason(err) != "wait_timeout" || e == nil || e.State != sdk.StatePending {
			t.Errorf("%+v %v", e, err)
		}
		if n := len(h.out.waiters.m); n != 0 {
			t.Errorf("%d waiters are left", n)
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
	})
}

// What another host does to a row nobody here tells of: who waits looks.
func TestWaitHearsSoonOfWhatAnotherHostDid(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.store.hold("other", time.Hour)
		a := h.asks()
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		begin := time.Now()
		time.AfterFunc(300*time.Millisecond, func() {
			_, _ = h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAccepted, ID: id, BrokerMessageID: "theirs", At: time.Now()}})
		})
		e, err := h.out.Wait(t.Context(), id, sdk.StateAccepted)
		if d := time.Since(begin); err != nil || e.State != sdk.StateAccepted || d > 700*time.Millisecond {
			t.Errorf("%+v %v after %s", e, err, d)
		}
		// For the delivery it asks the broker itself.
		a.set(func(id string) (bool, error) { return id == "theirs" && time.Since(begin) > 10*time.Second, nil })
		e, err = h.out.Wait(t.Context(), id, sdk.StateDelivered)
		if d := time.Since(begin); err != nil || e.State != sdk.StateDelivered || d > 10*time.Second+askMax+time.Second {
			t.Errorf("%+v %v after %s", e, err, d)
		}
		calls := h.store.count("get")
		ctx, cancel := waitAtMost(t, time.Minute)
		defer cancel()
		if _, err := h.out.Wait(ctx, h.send("ann", "2"), sdk.StateAccepted); reason(err) != "wait_timeout" {
			t.Errorf("got %v", err)
		}
		if n := h.store.count("get") - calls; n > 45 {
			t.Errorf("looked %d times in a minute", n)
		}
	})
}
