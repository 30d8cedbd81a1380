package outbound

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// accept sends in the background and returns what the sender hears.
func (h *house) accept(key string) <-chan error {
	told := make(chan error, 1)
	go func() {
		_, err := h.out.Accept(context.Background(), Request{To: "ann", Message: "m " + key})
		told <- err
	}()
	synctest.Wait()
	return told
}

// failing makes Apply fail until it is healed.
func (s *store) failing(err error) {
	s.set(func(method string, _ []sdk.Op) error {
		if method == "apply" {
			return err
		}
		return nil
	}, nil)
}

func TestWhileTheBackendIsDownSendersHearSoSoonAndNothingIsStoredLater(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.store.failing(errDown)
		begin := time.Now()
		first := h.accept("1")
		if err := <-first; reason(err) != "outbox_unavailable" || !errors.Is(err, sdk.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d < downGrace || d > 2*downGrace {
			t.Errorf("the first sender waited %s, want about %s", d, downGrace)
		}
		begin = time.Now()
		if err := <-h.accept("2"); reason(err) != "outbox_unavailable" {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d > 50*time.Millisecond {
			t.Errorf("a later sender waited %s although the backend was known to be down", d)
		}
		h.store.set(nil, nil)
		h.out.OutboxReady("box")
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := len(h.store.all()); n != 0 {
			t.Errorf("%d messages were stored after their senders had heard that they are not", n)
		}
		if err := <-h.accept("3"); err != nil {
			t.Errorf("after the return: %v", err)
		}
	})
}

func TestARestartOfTheBackendIsNotNoticedBySenders(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.store.failing(errDown)
		told := h.accept("1")
		time.Sleep(300 * time.Millisecond)
		h.store.set(nil, nil)
		h.out.OutboxReady("box")
		synctest.Wait()
		select {
		case err := <-told:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the op was not repeated at once when the backend was back")
		}
	})
}

func TestAnAnswerThatGotLostIsAskedForAgainAndTheMessageIsStoredOnce(t *testing.T) {
	for name, before := range map[string]bool{"before it took effect": true, "after it took effect": false} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.start()
				defer h.close()
				failures := 3
				hook := func(method string, ops []sdk.Op) error {
					if method == "apply" && ops[0].Kind == sdk.OpAppend && failures > 0 {
						failures--
						return errUnknown
					}
					return nil
				}
				if before {
					h.store.set(hook, nil)
				} else {
					h.store.set(nil, hook)
				}
				id := h.send("ann", "k")
				h.wantState(id, sdk.StateAccepted)
				h.wantIDs("", "k")
			})
		})
	}
}

func TestASenderThatGivesUpHearsWhatIsKnown(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.store.set(nil, func(method string, ops []sdk.Op) error {
			if method == "apply" && ops[0].Kind == sdk.OpAppend {
				return errUnknown // stored, but nobody hears of it
			}
			return nil
		})
		if err := <-h.accept("1"); reason(err) != "outcome_unknown" || !errors.Is(err, sdk.ErrTimeout) {
			t.Errorf("got %v", err)
		}
		h.store.set(nil, nil)
		time.Sleep(time.Minute)
		// It was stored, so it must leave, although nobody waits any more.
		if n := len(h.link.messages()); n != 1 {
			t.Errorf("%d messages were written, want 1", n)
		}
	})
}

func TestAMessageBehindACallThatHangsIsTakenBackByItsSender(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		gate := make(chan struct{})
		h.store.set(func(method string, ops []sdk.Op) error {
			if method == "apply" {
				<-gate
			}
			return nil
		}, nil)
		carried, waiting := h.accept("1"), h.accept("2")
		if err := <-carried; reason(err) != "outcome_unknown" {
			t.Errorf("in the call: %v", err)
		}
		if err := <-waiting; reason(err) != "outbox_unavailable" {
			t.Errorf("behind it: %v", err)
		}
		h.store.set(nil, nil)
		close(gate)
		synctest.Wait()
		if n := len(h.store.all()); n != 1 {
			t.Errorf("%d rows; only the one whose outcome is unknown may be stored", n)
		}
	})
}

func TestAnOpThatTheBackendCanNotStandHoldsUpNobodyElse(t *testing.T) {
	for _, failure := range []error{errInvalid, errDefect} {
		t.Run(failure.Error(), func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.start()
				defer h.close()
				gate, open := make(chan struct{}), false
				h.store.set(func(method string, ops []sdk.Op) error {
					if method == "apply" && !open {
						<-gate // so that all ride together
					}
					for i := range ops {
						if ops[i].Kind == sdk.OpAppend && ops[i].Entry.ClientMessageID == "bad" {
							return failure
						}
					}
					return nil
				}, nil)
				told := map[string]chan error{}
				for _, key := range []string{"0", "1", "bad", "2"} {
					told[key] = make(chan error, 1)
					go func() {
						_, err := h.out.box("box").committer.Append(context.Background(), sdk.Entry{
							ID: key, ClientMessageID: key, Mesh: "team", Lane: "team/member", Target: "@" + key,
							Body: h.out.meshes["team"].atRest.Seal([]byte("x")),
						})
						told[key] <- err
					}()
					synctest.Wait()
				}
				open = true
				close(gate)
				for key, c := range told {
					switch err := <-c; {
					case key != "bad" && err != nil:
						t.Errorf("%s: %v", key, err)
					case key == "bad" && failure == errInvalid && reason(err) != "outbox_refused":
						t.Errorf("bad: %v", err)
					case key == "bad" && failure == errDefect && reason(err) != "outcome_unknown":
						t.Errorf("bad: %v", err)
					}
				}
				synctest.Wait()
				if n := len(h.link.messages()); n != 3 {
					t.Errorf("%d messages left, want 3", n)
				}
			})
		})
	}
}

func TestABatchIsBoundedInItemsAndBytes(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		most, bytes := 0, 0
		h.store.set(func(method string, ops []sdk.Op) error {
			if method == "apply" {
				time.Sleep(time.Millisecond)
				size := 0
				for i := range ops {
					size += len(ops[i].Entry.Body)
				}
				most, bytes = max(most, len(ops)), max(bytes, size)
			}
			return nil
		}, nil)
		c := h.out.box("box").committer
		run := func(n, size int) {
			done := make(chan error)
			for i := range n {
				go func() {
					_, err := c.Append(context.Background(), sdk.Entry{
						ID: fmt.Sprint(size, "/", i), ClientMessageID: fmt.Sprint(size, "/", i), Target: "@g", Body: make([]byte, size),
					})
					done <- err
				}()
			}
			for range n {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
		}
		run(2000, 10)
		run(60, 60_000)
		if most != maxApply || bytes > maxApplyBytes || bytes < maxApplyBytes/2 {
			t.Errorf("the largest batch had %d items, the heaviest %d bytes", most, bytes)
		}
	})
}

func TestTheWaitingOpsAreBounded(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		gate := make(chan struct{})
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "apply" {
				<-gate
			}
			return nil
		}, nil)
		c := h.out.box("box").committer
		ctx, cancel := context.WithCancel(context.Background())
		busy := make(chan error, 1)
		ended := make(chan struct{}, 2000)
		for i := range 1200 {
			go func() {
				_, err := c.Append(ctx, sdk.Entry{ID: fmt.Sprint(i), ClientMessageID: fmt.Sprint(i), Target: "@g", Body: make([]byte, 60_000)})
				if reason(err) == "outbox_busy" {
					select {
					case busy <- err:
					default:
					}
				}
				ended <- struct{}{}
			}()
		}
		if err := <-busy; !errors.Is(err, sdk.ErrUnavailable) {
			t.Error(err)
		}
		cancel()
		for range 1200 {
			<-ended
		}
		close(gate)
		synctest.Wait()
		if c.bytes != 0 || len(c.queue) != 0 {
			t.Errorf("%d bytes, %d ops are still counted", c.bytes, len(c.queue))
		}
	})
}

func TestWhatPeopleAskForIsBoundedToo(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		gate := make(chan struct{})
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "apply" {
				<-gate
			}
			return nil
		}, nil)
		var err error
		for n := 0; err == nil || reason(err) == "outcome_unknown"; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err = h.out.Requeue(ctx, id)
			cancel()
			if n > maxWaiting+maxApply {
				t.Fatal("they are not")
			}
		}
		if reason(err) != "outbox_busy" {
			t.Error(err)
		}
		close(gate)
		h.store.set(nil, nil)
		synctest.Wait()
		if _, err := h.out.Requeue(t.Context(), id); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
