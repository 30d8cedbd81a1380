package outbound

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

var errMigrating = sdk.Errorf(sdk.CodeUnavailable, "migrating", "the outbox is on its way")

// quiet fails if the backend hears of anything but reads within a time.
func (h *house) quiet(s *store, d time.Duration) {
	h.t.Helper()
	synctest.Wait()
	count := func() (n int) {
		for _, method := range []string{"apply", "acquire", "release", "fetch", "prune"} {
			n += s.count(method)
		}
		return n
	}
	before := count()
	time.Sleep(d)
	synctest.Wait()
	if n := count() - before; n > 0 {
		h.t.Errorf("%d calls of a held outbox", n)
	}
}

func TestAHeldOutboxIsNotChangedAndGoesOnWhereItWas(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		first, second := h.send("ann", "1"), h.send("ann", "2")
		bob := h.send("bob", "3")
		synctest.Wait()
		held := make(chan error, 1)
		go func() { held <- h.out.Hold(t.Context(), "box", errMigrating) }()
		synctest.Wait()
		select {
		case err := <-held:
			t.Fatalf("held while messages are on the wire: %v", err)
		default:
		}
		if _, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x"}); !errors.Is(err, errMigrating) {
			t.Errorf("an accept is answered with %v", err)
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b1"})
		h.link.answer(Outcome{Verdict: NoPeer})
		if err := <-held; err != nil {
			t.Fatal(err)
		}
		h.wantState(first, sdk.StateAccepted)
		h.wantState(second, sdk.StatePending)
		h.wantState(bob, sdk.StateWaiting)
		if owner := h.store.lanes["team/member"].owner; owner != "" {
			t.Errorf("the lease is still %q's", owner)
		}
		for what, err := range map[string]error{
			"cancel":  second2(h.out.Cancel(t.Context(), second)),
			"requeue": second2(h.out.Requeue(t.Context(), second)),
		} {
			if !errors.Is(err, errMigrating) {
				t.Errorf("%s is answered with %v", what, err)
			}
		}
		if e, err := h.out.Get(t.Context(), first); err != nil || e.State != sdk.StateAccepted {
			t.Errorf("what is there can be read: %v %v", e, err)
		}
		h.out.Online("team", false, false)
		h.out.Online("team", true, true)
		h.out.PeersSeen("team", []string{h.names.keys["bob"]})
		h.quiet(h.store, 3*time.Hour)

		if err := h.out.Resume(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.link.setManual(false)
		for range 2 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		}
		h.wantState(second, sdk.StateAccepted)
		h.wantState(bob, sdk.StateAccepted)
		h.wantState(h.send("ann", "4"), sdk.StateAccepted)
	})
}

func second2[T any](_ T, err error) error { return err }

func TestAHoldThatCanNotBeHadChangesNothing(t *testing.T) {
	cases := map[string]func(h *house) (end func()){
		"the broker owes an answer": func(h *house) func() {
			h.link.setManual(true)
			return func() {
				h.link.setManual(false)
				h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			}
		},
		"the backend owes an answer": func(h *house) func() {
			slow := make(chan struct{})
			h.store.set(nil, func(method string, _ []sdk.Op) error {
				if method == "apply" {
					<-slow
				}
				return nil
			})
			return func() { close(slow) }
		},
	}
	for name, trouble := range cases {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.start()
				defer h.close()
				end := trouble(h)
				go h.out.Accept(t.Context(), Request{To: "ann", Message: "hello", ClientMessageID: "1"})
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := h.out.Hold(ctx, "box", errMigrating); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("held all the same: %v", err)
				}
				end()
				synctest.Wait()
				h.wantState(h.send("ann", "2"), sdk.StateAccepted)
				h.wantState(h.send("bob", "3"), sdk.StateAccepted)
				h.wantIDs("", "1 2 3")
			})
		})
	}
}

// An append whose sender has left may still reach the backend; afterwards
// nobody copies its row.
func TestAHoldWaitsForAppendsThatNobodyWaitsFor(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		slow := make(chan struct{})
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "apply" {
				<-slow
			}
			return nil
		}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		go h.out.Accept(ctx, Request{To: "ann", Message: "hello"})
		synctest.Wait()
		cancel()
		synctest.Wait()
		held := make(chan error, 1)
		go func() { held <- h.out.Hold(t.Context(), "box", errMigrating) }()
		synctest.Wait()
		select {
		case <-held:
			t.Fatal("held while an append was under way")
		default:
		}
		close(slow)
		if err := <-held; err != nil {
			t.Fatal(err)
		}
		if n := len(h.store.all()); n != 1 {
			t.Errorf("%d rows", n)
		}
		h.quiet(h.store, time.Hour)
	})
}

func TestALateAckDuringAHoldIsNotLost(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: Transient, Detail: "later"} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		if err := h.out.Hold(t.Context(), "box", errMigrating); err != nil {
			t.Fatal(err)
		}
		h.out.LateAck("team", id, "b9")
		h.quiet(h.store, time.Minute)
		if err := h.out.Resume(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		h.wantState(id, sdk.StateAccepted)
	})
}

func TestCloseEndsAHoldThatWaits(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		h.send("ann", "1")
		synctest.Wait()
		held := make(chan error, 1)
		go func() { held <- h.out.Hold(context.Background(), "box", errMigrating) }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { h.close(); close(closed) }()
		if err := <-held; err == nil {
			t.Error("held while the daemon stops")
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		<-closed
	})
}
