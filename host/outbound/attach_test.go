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

// inTwo runs a test on a house with two outboxes.
func inTwo(t *testing.T, f func(t *testing.T, h *house)) {
	t.Helper()
	inHouse(t, func(t *testing.T, h *house) {
		h.other = newStore()
		f(t, h)
	})
}

// attach moves the mesh.
func (h *house) attach(to string, leave ...string) error {
	return h.out.Attach(context.Background(), map[string]string{"team": to}, leave...)
}

// wantIn fails unless a row is in a store in that state.
func (h *house) wantIn(s *store, id string, want sdk.EntryState) {
	h.t.Helper()
	synctest.Wait()
	if got := s.state(id); got != want {
		h.t.Errorf("the row is %q there, want %q", got, want)
	}
}

func TestAMeshMovesUnderLoadAndNothingIsLostOrSentTwice(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome {
			time.Sleep(3 * time.Millisecond) // a broker that takes its time
			return Outcome{}
		})
		h.start()
		defer h.close()
		accepted, refused := make(chan string, 4000), make(chan error, 4000)
		stop := make(chan struct{})
		var senders [4]chan struct{}
		for n := range senders {
			senders[n] = make(chan struct{})
			go func() {
				defer close(senders[n])
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(2 * time.Millisecond):
					}
					rep, err := h.out.Accept(context.Background(), Request{To: "ann", Message: "m", ClientMessageID: fmt.Sprintf("%d-%d", n, i)})
					if err != nil {
						refused <- err
						continue
					}
					accepted <- rep.ID
				}
			}()
		}
		for i, to := range []string{"other", "box", "other"} {
			time.Sleep(100 * time.Millisecond)
			if err := h.attach(to); err != nil {
				t.Fatalf("move %d: %v", i, err)
			}
		}
		if err := h.out.RemoveOutbox(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		close(stop)
		for _, s := range senders {
			<-s
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		close(accepted)
		for len(refused) > 0 {
			t.Errorf("a sender was refused: %v", <-refused)
		}
		sent := map[string]int{}
		for _, m := range h.link.messages() {
			sent[m.ID]++
		}
		n := 0
		for id := range accepted {
			n++
			if sent[id] != 1 {
				t.Errorf("%s was sent %d times", id, sent[id])
			}
		}
		if here, there := len(h.store.all()), len(h.other.all()); here < 10 || there < 10 || here+there != n || len(sent) != n {
			t.Errorf("%d accepted, %d sent, %d rows in one outbox, %d in the other", n, len(sent), here, there)
		}
	})
}

func TestARepeatedKeyIsKnownAfterItsMeshHasMoved(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		if err := h.attach("other"); err != nil {
			t.Fatal(err)
		}
		rep, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "hello 1", ClientMessageID: "1"})
		if err != nil || rep.ID != id || !rep.Duplicate {
			t.Errorf("the repetition is answered with %+v %v", rep, err)
		}
		var conflict *Conflict
		if _, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "else", ClientMessageID: "1"}); !errors.As(err, &conflict) {
			t.Errorf("another text: %v", err)
		}
		h.wantIDs("", "1")
		page, err := h.out.List(t.Context(), sdk.ListRequest{Mesh: "team", Limit: 10})
		if err != nil || len(page.Entries) != 1 {
			t.Errorf("its record is listed: %+v %v", page, err)
		}
		// What was recorded there can be completed, not begun again.
		h.link.mu.Lock()
		h.link.delivered = func(string) (bool, error) { return true, nil }
		h.link.mu.Unlock()
		if e, err := h.out.Wait(t.Context(), id, sdk.StateDelivered); err != nil || e.State != sdk.StateDelivered {
			t.Errorf("delivery: %+v %v", e, err)
		}
		h.wantIn(h.store, id, sdk.StateDelivered)
		if err := h.out.RemoveOutbox(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.out.Get(t.Context(), id); !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("a removed outbox is not read: %v", err)
		}
	})
}

func TestADeadMessageIsNotRequeuedWhereNobodySendsIt(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: Refused, Detail: "no"} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.wantState(id, sdk.StateDead)
		if err := h.attach("other"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.out.Requeue(t.Context(), id); reason(err) != "other_outbox" {
			t.Errorf("requeue: %v", err)
		}
		if e, err := h.out.Cancel(t.Context(), id); err != nil || e.State != sdk.StateCancelled {
			t.Errorf("cancel: %+v %v", e, err)
		}
		h.wantIn(h.store, id, sdk.StateCancelled)
	})
}

func TestAMeshStaysWhileMessagesWouldBeLeftBehind(t *testing.T) {
	cases := map[string]struct {
		prepare func(h *house)
		wait    time.Duration // how long it may take
		left    Left
	}{
		"waiting for a peer": {
			prepare: func(h *house) {
				h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
			},
			left: Left{"box", "team", 0, 1},
		},
		"offline": {
			prepare: func(h *house) { h.out.Online("team", false, false); h.link.setReady(false) },
			left:    Left{"box", "team", 1, 0},
		},
		"the broker owes an answer": {
			prepare: func(h *house) { h.link.setManual(true) },
			wait:    emptyFor, left: Left{"box", "team", 1, 0},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inTwo(t, func(t *testing.T, h *house) {
				h.start()
				defer h.close()
				c.prepare(h)
				id := h.send("ann", "1")
				synctest.Wait()
				begin := time.Now()
				err := h.attach("other")
				var left *LeftError
				if !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0] != c.left || time.Since(begin) > c.wait {
					t.Errorf("after %v: %#v", time.Since(begin), err)
				}
				if h.out.OutboxOf("team") != "box" || len(h.other.all()) > 0 || h.other.count("acquire") > 0 {
					t.Error("the mesh has moved all the same")
				}
				h.link.setScript(nil)
				h.link.setManual(false)
				h.link.setReady(true)
				for h.link.pending() > 0 {
					h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
				}
				h.out.Online("team", true, true)
				h.out.PeersSeen("team", []string{h.names.keys["ann"]})
				time.Sleep(11 * time.Minute)
				h.wantState(id, sdk.StateAccepted)
				if err := h.attach("other"); err != nil {
					t.Errorf("once nothing is left: %v", err)
				}
				h.wantIn(h.other, h.send("ann", "2"), sdk.StateAccepted)
			})
		})
	}
}

func TestAMeshWaitsForAppendsThatNobodyWaitsFor(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
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
		moved := make(chan error, 1)
		go func() { moved <- h.attach("other") }()
		time.Sleep(time.Second)
		close(slow)
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		rows := h.store.all()
		if len(rows) != 1 || rows[0].State != sdk.StateAccepted {
			t.Errorf("the message that was stored late stayed behind: %+v", rows)
		}
	})
}

func TestSendersWaitWhileTheLastMessageIsAnswered(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		first := h.send("ann", "1")
		synctest.Wait()
		moved := make(chan error, 1)
		go func() { moved <- h.attach("other") }()
		synctest.Wait()
		told := make(chan string, 1)
		go func() { told <- h.send("ann", "2") }()
		time.Sleep(time.Second)
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		h.wantIn(h.store, first, sdk.StateAccepted)
		h.wantIn(h.other, <-told, sdk.StateAccepted)
		h.wantIDs("ann", "1 2")
		if owner := h.store.lanes["team/member"].owner; owner != "" {
			t.Errorf("the old lease is still %q's", owner)
		}
	})
}

func TestAnOutboxIsAddedAndRemovedWhileOthersWork(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		first := h.send("ann", "1")
		synctest.Wait()
		h.other = newStore()
		ctx := t.Context()
		if err := h.out.AddOutbox(ctx, "other", backend(h.other)); err != nil {
			t.Fatal(err)
		}
		if h.out.AddOutbox(ctx, "other", backend(h.other)) == nil {
			t.Error("a second outbox of that name was added")
		}
		if err := h.out.RemoveOutbox(ctx, "box"); reason(err) != "outbox_used" {
			t.Errorf("an outbox in use was removed: %v", err)
		}
		waited := make(chan error, 1)
		if err := h.attach("other", "box"); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := h.out.Wait(ctx, first, sdk.StateDelivered)
			waited <- err
		}()
		synctest.Wait()
		if err := h.out.RemoveOutbox(ctx, "box"); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("who waits for a message in it hears %v", err)
		}
		h.wantIn(h.other, h.send("ann", "2"), sdk.StateAccepted)
		if st, err := h.out.Stats(ctx); err != nil || len(st) != 1 || st["other"].States[sdk.StateAccepted] != 1 {
			t.Errorf("stats: %+v %v", st, err)
		}
		h.quiet(h.store, 3*time.Hour)
		if h.other.count("prune") < 3 {
			t.Error("the new outbox is not pruned")
		}
	})
}

func TestWhoLooksIntoAnOutboxThatIsRemovedFinishes(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		if err := h.attach("other"); err != nil {
			t.Fatal(err)
		}
		slow := make(chan struct{})
		h.other.set(func(method string, _ []sdk.Op) error {
			if method == "lookup" {
				<-slow
			}
			return nil
		}, nil)
		sent, removed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "hello", ClientMessageID: "1"})
			sent <- err
		}()
		synctest.Wait()
		go func() { removed <- h.out.RemoveOutbox(t.Context(), "box") }()
		synctest.Wait()
		close(slow)
		if err := errors.Join(<-sent, <-removed); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOutboxIsNotLeftWithMessagesOfAnybody(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.store.mu.Lock()
		h.store.add(&sdk.Entry{ID: "x", ClientMessageID: "x", Mesh: "gone", Sender: MemberSender, Lane: "gone/member", Target: "t"})
		h.store.mu.Unlock()
		var left *LeftError
		if err := h.attach("other", "box"); !errors.As(err, &left) || left.Left[0] != (Left{"box", "", 1, 0}) {
			t.Errorf("left with %v", err)
		}
		if err := h.attach("other"); err != nil {
			t.Errorf("the mesh itself leaves nothing behind: %v", err)
		}
		if err := h.out.Attach(t.Context(), nil, "box"); !errors.As(err, &left) {
			t.Errorf("left with %v", err)
		}
		h.store.mu.Lock()
		h.store.sealed = "they are in other"
		h.store.mu.Unlock()
		if err := h.out.Attach(t.Context(), nil, "box"); err != nil {
			t.Errorf("a sealed outbox has nothing left: %v", err)
		}
	})
}

// What a migration does: hold, copy, seal, and move the mesh to the copy.
func TestAMeshMovesFromAHeldOutbox(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		if err := h.out.Hold(t.Context(), "box", errMigrating); err != nil {
			t.Fatal(err)
		}
		var left *LeftError
		if err := h.attach("other"); !errors.As(err, &left) {
			t.Errorf("moved before the copy: %v", err)
		}
		h.other.mu.Lock()
		for _, e := range h.store.all() {
			h.other.seq++
			h.other.rows = append(h.other.rows, e)
		}
		h.other.mu.Unlock()
		h.store.mu.Lock()
		h.store.sealed = "they are in other"
		h.store.mu.Unlock()
		if err := h.attach("other", "box"); err != nil {
			t.Fatal(err)
		}
		h.link.setScript(nil)
		synctest.Wait()
		h.out.PeersSeen("team", []string{h.names.keys["ann"]})
		h.wantIn(h.other, id, sdk.StateAccepted)
		h.wantIn(h.other, h.send("ann", "2"), sdk.StateAccepted)
		h.quiet(h.store, time.Hour)
	})
}

func TestAMoveToNowhereIsRefused(t *testing.T) {
	inTwo(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		if err := h.attach("nothing"); reason(err) != "no_outbox" {
			t.Error(err)
		}
		if err := h.out.Attach(t.Context(), map[string]string{"x": "other"}); reason(err) != "mesh_not_attached" {
			t.Error(err)
		}
		if err := h.out.Attach(t.Context(), nil, "box"); reason(err) != "outbox_used" {
			t.Error(err)
		}
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "stats" {
				return errDown
			}
			return nil
		}, nil)
		if err := h.attach("other"); reason(err) != "outbox_unavailable" {
			t.Error(err)
		}
	})
}
