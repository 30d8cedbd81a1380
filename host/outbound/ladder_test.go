package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// asks is a broker's side of message_status: it notes who asked for what when.
type asks struct {
	mu  sync.Mutex
	at  []time.Time
	ids []string
	// answer says what the broker knows; nil: nothing is delivered.
	answer func(id string) (bool, error)
}

// asks makes the link's broker note what it is asked.
func (h *house) asks() *asks {
	a := &asks{}
	h.link.mu.Lock()
	defer h.link.mu.Unlock()
	h.link.delivered = func(id string) (bool, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.at, a.ids = append(a.at, time.Now()), append(a.ids, id)
		if a.answer == nil {
			return false, nil
		}
		return a.answer(id)
	}
	return a
}

func (a *asks) set(answer func(id string) (bool, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// since are the times of the asks, from a moment on.
func (a *asks) since(begin time.Time) (out []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.at {
		if !t.Before(begin) {
			out = append(out, t.Sub(begin))
		}
	}
	return out
}

func (a *asks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// most is the greatest number of asks in any one second.
func (a *asks) most() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	most := 0
	for i, j := 0, 0; i < len(a.at); i++ {
		for a.at[i].Sub(a.at[j]) >= time.Second {
			j++
		}
		most = max(most, i-j+1)
	}
	return most
}

// accepted puts rows into the store as an earlier run left them: the broker took
// row i to ann under the id "old<i>" at a time.
func (h *house) accepted(n int, at func(i int) time.Time) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for i := range n {
		h.store.seq++
		h.store.rows = append(h.store.rows, &sdk.Entry{
			ID: fmt.Sprint("row", i), ClientMessageID: fmt.Sprint("key", i), Mesh: "team", Sender: MemberSender, Lane: "team/member",
			Target: h.names.keys["ann"], Priority: "next", Body: h.key.AtRest("outbox").Seal([]byte("body")), State: sdk.StateAccepted,
			EnqueuedAt: at(i), NotAfter: at(i).Add(DefaultLifetime), AcceptedAt: at(i), BrokerMessageID: fmt.Sprint("old", i), Seq: h.store.seq,
		})
	}
}

func near(got []time.Duration, want ...time.Duration) bool {
	return slices.EqualFunc(got, want, func(g, w time.Duration) bool {
		most := time.Duration(0)
		if w > 10*time.Minute {
			most = askJitter
		}
		return g >= w && g <= w+most+10*time.Millisecond
	})
}

func TestAnAcceptedMessageIsAskedForByTheStepsAndThenHourly(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		begin := time.Now()
		id := h.send("ann", "1")
		h.wantState(id, sdk.StateAccepted)
		time.Sleep(4 * time.Hour)
		m, hour := time.Minute, time.Hour
		if got := a.since(begin); !near(got, 5*time.Second, 30*time.Second, 2*m, 10*m, 10*m+hour, 10*m+2*hour, 10*m+3*hour) {
			t.Errorf("asked after %v", got)
		}
		a.set(func(string) (bool, error) { return true, nil })
		time.Sleep(hour)
		h.wantState(id, sdk.StateDelivered)
		if e := h.store.entry(id); len(e.Body) != 0 || e.DeliveredAt.IsZero() {
			t.Errorf("the body of a delivered message must go: %+v", e)
		}
		n := a.count()
		time.Sleep(5*hour + m) // not at the moment of a sweep
		if a.count() != n || n != 8 {
			t.Errorf("asked %d times, %d of them after the delivery", a.count(), a.count()-n)
		}
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		var states []sdk.EntryState
		for _, e := range h.events {
			states = append(states, e.State)
		}
		if !slices.Equal(states, []sdk.EntryState{sdk.StatePending, sdk.StateAccepted, sdk.StateDelivered}) {
			t.Errorf("events: %v", states)
		}
		if s := h.out.Ladders()["team"]; s != (LadderStats{Asked: 8, Delivered: 1}) {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestAMessageToSeveralPeersIsNeverAskedFor(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		id := h.send("@all", "1")
		h.wantState(id, sdk.StateAccepted)
		time.Sleep(2 * time.Hour)
		h.kill()
		h.accepted(1, func(int) time.Time { return time.Now() })
		h.store.rows[len(h.store.rows)-1].Target = "@all" // with a body, though it needs none
		h.start()
		defer h.close()
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: Transient} })
		late := h.send("@all", "2")
		synctest.Wait()
		h.out.LateAck("team", late, "late")
		h.wantState(late, sdk.StateAccepted)
		time.Sleep(2 * time.Hour)
		if e := h.store.entry(late); len(e.Body) != 0 {
			t.Errorf("the body of a message to several peers must go with the ack: %+v", e)
		}
		if a.count() != 0 {
			t.Errorf("asked %d times", a.count())
		}
	})
}

func TestABrokerIsAskedFiveTimesASecondAtMostAndHearsOfEachRow(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) { return true, nil })
		h.start()
		defer h.close()
		const n = 300
		begin := time.Now()
		for i := range n {
			h.send("ann", fmt.Sprint(i))
		}
		synctest.Wait()
		ctx, cancel := waitAtMost(t, time.Minute)
		defer cancel()
		for range 20 { // who waits is within the bound, and is first
			go func() { _, _ = h.out.Wait(ctx, h.store.all()[n-1].ID, sdk.StateDelivered) }()
		}
		time.Sleep(90 * time.Second)
		got := a.since(begin)
		// Who begins to wait between an answer and its settlement asks once more.
		if len(got) < n || len(got) > n+1 || a.most() != 5 {
			t.Errorf("%d asks, at most %d in a second; want %d and 5", len(got), a.most(), n)
		}
		if got[0] > 100*time.Millisecond || got[len(got)-1] > 66*time.Second {
			t.Errorf("the first ask after %s, the last after %s", got[0], got[len(got)-1])
		}
		for _, e := range h.store.all() {
			if e.State != sdk.StateDelivered {
				t.Errorf("%s is %s", e.ClientMessageID, e.State)
			}
		}
	})
}

// A broker that answers nothing is asked with a few asks in flight, and sends go
// on all the same.
func TestAsksWithoutAnAnswerAreFewAndHoldUpNoSend(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		var mu sync.Mutex
		now, most := 0, 0
		h.link.slow = func(ctx context.Context) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			defer func() {
				mu.Lock()
				now--
				mu.Unlock()
			}()
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return errors.New("no answer")
		}
		h.start()
		defer h.close()
		for i := range 200 {
			h.send("ann", fmt.Sprint(i))
		}
		time.Sleep(20 * time.Second)
		for i := range 200 {
			begin := time.Now()
			id := h.send("bob", fmt.Sprint("late", i))
			h.wantState(id, sdk.StateAccepted)
			if d := time.Since(begin); d > 0 {
				t.Fatalf("a send took %s", d)
			}
		}
		if most != maxAsking {
			t.Errorf("%d asks in flight, want %d", most, maxAsking)
		}
	})
}

func TestWhatIsDueOfflineIsAskedForAfterTheReconnect(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		h.out.Online("team", false, false)
		h.link.setReady(false)
		time.Sleep(3 * time.Hour)
		if a.count() != 0 {
			t.Errorf("asked %d times without a connection", a.count())
		}
		h.link.setReady(true)
		a.set(func(string) (bool, error) { return true, nil })
		h.out.Online("team", true, true)
		time.Sleep(time.Second)
		h.wantState(id, sdk.StateDelivered)
	})
}

func TestAQuestionThatGoesWithItsConnectionIsAskedOnTheNextOne(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) {
			h.link.setReady(false)
			return false, errors.New("connection lost")
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		time.Sleep(6 * time.Second)
		h.out.Online("team", false, false)
		a.set(func(string) (bool, error) { return true, nil })
		h.link.setReady(true)
		h.out.Online("team", true, true)
		h.wantState(id, sdk.StateDelivered)
	})
}

// The backend knows the rows, so a restart does too: whatever step a row was at,
// it is asked for at once and then at its next step.
func TestARestartAsksForWhatTheRunBeforeHadAccepted(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		ann := h.send("ann", "1")
		h.send("bob", "2")
		h.send("@all", "3")
		time.Sleep(90 * time.Second)
		h.kill()
		begin := time.Now()
		h.start()
		defer h.close()
		time.Sleep(12 * time.Minute)
		if got := a.since(begin); len(got) != 6 || got[1] > time.Second || got[5] < 8*time.Minute || got[5] > 9*time.Minute {
			t.Errorf("asked after %v", got) // twice at once, at 2 min and at 10 min of their age
		}
		h.wantState(ann, sdk.StateAccepted)
	})
}

func TestMessagesThatFindNoRoomComeWhenThereIsSome(t *testing.T) {
	for _, n := range []int{10000 + 1500, 10000} { // the second fills memory to its last place
		t.Run(fmt.Sprint(n), func(t *testing.T) { noRoom(t, n) })
	}
}

func noRoom(t *testing.T, n int) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) { return true, nil })
		old := time.Now()
		h.accepted(n, func(int) time.Time { return old })
		time.Sleep(time.Minute)
		h.start()
		defer h.close()
		time.Sleep(time.Second)
		if s := h.out.Ladders()["team"]; s.Rows > 10000 || s.Rows < maxLadderRows-10 || s.More != (n > maxLadderRows) {
			t.Errorf("in memory: %+v", s)
		}
		const more = 20 // come while there is no room
		for i := range more {
			h.send("bob", fmt.Sprint(i))
		}
		time.Sleep(time.Duration((n+more)/5+10) * time.Second)
		if s := h.out.Ladders()["team"]; s.Delivered != int64(n+more) || s.Rows != 0 || s.More || a.most() > 5 {
			t.Errorf("in the end: %+v, at most %d asks a second", s, a.most())
		}
		seen := map[string]int{}
		for _, id := range a.ids {
			seen[id]++
		}
		if len(seen) != n+more {
			t.Errorf("%d of %d were asked for", len(seen), n+more)
		}
		first := slices.Sorted(slices.Values(a.ids[:asksPerSecond])) // they are asked for side by side
		if fmt.Sprint(first) != "[old0 old1 old2 old3 old4]" || h.store.scanned > 2*n {
			t.Errorf("the first are %s; the store gave %d rows", first, h.store.scanned)
		}
	})
}

// More absent peers than memory has room for must not keep it from asking for
// what comes later.
func TestRowsThatStayUndeliveredTakeTurns(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		const absentees, later = maxLadderRows + 200, 50
		old := time.Now()
		h.accepted(absentees+later, func(i int) time.Time { return old.Add(time.Duration(i) * time.Millisecond) })
		a := h.asks()
		late := map[string]bool{}
		for i := absentees; i < absentees+later; i++ {
			late[fmt.Sprint("old", i)] = true
		}
		a.set(func(id string) (bool, error) { return late[id], nil })
		time.Sleep(20 * time.Minute)
		h.start()
		defer h.close()
		time.Sleep(3 * time.Hour)
		if s := h.out.Ladders()["team"]; s.Delivered != later || s.Rows > maxLadderRows {
			t.Errorf("%+v", s)
		}
	})
}

func TestOnlyTheHolderOfTheLaneAsksAndATakeoverAsksForAll(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		old := time.Now()
		h.accepted(3, func(int) time.Time { return old })
		h.store.hold("other", time.Hour)
		h.start()
		defer h.close()
		time.Sleep(59 * time.Minute)
		if a.count() != 0 {
			t.Errorf("asked %d times for another host's rows", a.count())
		}
		a.set(func(string) (bool, error) { return true, nil })
		time.Sleep(2 * time.Minute)
		if a.count() != 3 || h.store.state("row2") != sdk.StateDelivered {
			t.Errorf("asked %d times after the takeover", a.count())
		}
		// A row that the other host accepted after the scan is found by the sweep.
		h.accepted(4, func(int) time.Time { return time.Now() })
		time.Sleep(sweepEvery + 20*time.Minute)
		if h.store.state("row3") != sdk.StateDelivered && a.count() < 4 {
			t.Errorf("asked %d times", a.count())
		}
	})
}

func TestALeaseThatEndsEndsTheAsking(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		h.send("ann", "1")
		synctest.Wait()
		h.store.hold("other", time.Hour)
		time.Sleep(50 * time.Minute)
		if a.count() > 1 { // the lease of before may cover the first
			t.Errorf("asked %d times for a lane of another", a.count())
		}
	})
}

func TestAMessageThatTheBrokerHasLostGoesAgain(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		synctest.Wait()
		first := h.store.entry(id)
		a.set(func(id string) (bool, error) {
			if id == first.BrokerMessageID {
				return false, ErrUnknownMessage
			}
			return true, nil
		})
		time.Sleep(6 * time.Second)
		h.wantIDs("ann", "1 2 1")
		if e := h.store.entry(id); e.State != sdk.StateAccepted || e.BrokerMessageID == first.BrokerMessageID || e.Seq <= first.Seq {
			t.Errorf("after the resend: %+v", e)
		}
		time.Sleep(6 * time.Second)
		h.wantState(id, sdk.StateDelivered)
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		if !slices.ContainsFunc(h.events, func(c *change) bool {
			return c.ID == id && c.State == sdk.StatePending && c.Detail == resentDetail
		}) {
			t.Errorf("no event of the resend")
		}
	})
}

func TestAMessageThatIsLostTooLateStaysAcceptedAndIsAskedForNoMore(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) { return false, ErrUnknownMessage })
		old := time.Now()
		h.accepted(1, func(int) time.Time { return old })
		time.Sleep(resendWithin)
		h.start()
		defer h.close()
		time.Sleep(3 * time.Hour)
		if e := h.store.entry("row0"); e.State != sdk.StateAccepted || a.count() != 1 || len(h.link.messages()) != 0 {
			t.Errorf("asked %d times, sent %d, now %+v", a.count(), len(h.link.messages()), e)
		}
		if _, err := h.out.Wait(t.Context(), "row0", sdk.StateDelivered); reason(err) != "message_unknown" {
			t.Errorf("who waits hears: %v", err)
		}
	})
}

// A broker that forgets what it delivered.
func TestAMessageGoesAgainAFewTimesOnly(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) { return false, ErrUnknownMessage })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		time.Sleep(24 * time.Hour)
		h.wantIDs("ann", "1 1 1 1")
		h.wantState(id, sdk.StateAccepted)
		if s := h.out.Ladders()["team"]; s.Resent != maxResends || s.Unknown != 1 || s.Rows != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAResendOfALaneThatIsLostIsRefused(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		time.Sleep(4 * time.Second)
		a.set(func(string) (bool, error) {
			h.store.hold("other", time.Minute) // between the ask and its answer
			return false, ErrUnknownMessage
		})
		time.Sleep(30 * time.Second)
		h.wantIDs("ann", "1")
		h.wantState(id, sdk.StateAccepted)
		if a.count() != 1 {
			t.Errorf("asked %d times", a.count())
		}
	})
}

func TestAnOutboxThatCanNotScanIsAskedLessAndLess(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		a.set(func(string) (bool, error) { return true, nil })
		old := time.Now()
		h.accepted(1, func(int) time.Time { return old })
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "scan" {
				return errDefect
			}
			return nil
		}, nil)
		logged := h.logged()
		h.start()
		defer h.close()
		id := h.send("ann", "1") // is asked for all the same
		time.Sleep(10 * time.Minute)
		h.wantState(id, sdk.StateDelivered)
		if n := h.store.count("scan"); n < 10 || n > 20 {
			t.Errorf("scanned %d times in ten minutes", n)
		}
		h.store.set(nil, nil)
		time.Sleep(time.Minute)
		h.wantState("row0", sdk.StateDelivered)
		if got := logged(); got == "" {
			t.Errorf("the log says nothing")
		}
	})
}

func TestStepsFollowFromTheAge(t *testing.T) {
	m, hour := time.Minute, time.Hour
	for _, c := range []struct{ age, missed, next time.Duration }{
		{0, 5 * time.Second, 5 * time.Second},
		{5 * time.Second, 5 * time.Second, 30 * time.Second},
		{2*m - 1, 30 * time.Second, 2 * m},
		{9 * m, 2 * m, 10 * m},
		{10 * m, 10 * m, 70 * m},
		{70*m - 1, 10 * m, 70 * m},
		{48 * hour, 10*m + 47*hour, 10*m + 48*hour},
	} {
		if got := askMissed(c.age); got != c.missed {
			t.Errorf("at %s the last step is %s, want %s", c.age, got, c.missed)
		}
		if got := askAfter(c.age); got != c.next {
			t.Errorf("at %s the next step is %s, want %s", c.age, got, c.next)
		}
	}
}

// A hold does not wait for a broker that owes an answer, and what the answer would
// have changed is not changed; after it the question is asked again.
func TestAHoldEndsTheQuestionsUnderWay(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		h.link.mu.Lock()
		h.link.slow = func(ctx context.Context) error { // the answer that a lost message brings comes at the worst moment
			<-ctx.Done()
			return ErrUnknownMessage
		}
		h.link.mu.Unlock()
		time.Sleep(6 * time.Second)
		begin := time.Now()
		if err := h.out.Hold(t.Context(), "box", nil); err != nil || time.Since(begin) > time.Second {
			t.Fatalf("%v after %s", err, time.Since(begin))
		}
		if tr := h.trace(id); tr.Next.What != NextHeld {
			t.Errorf("next %+v", tr.Next)
		}
		h.quiet(h.store, time.Hour)
		h.wantState(id, sdk.StateAccepted)
		h.link.mu.Lock()
		h.link.slow = nil
		h.link.mu.Unlock()
		a := h.asks()
		a.set(func(string) (bool, error) { return true, nil })
		if err := h.out.Resume(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		h.wantState(id, sdk.StateDelivered)
		if s := h.out.Ladders()["team"]; s.Asked != 2 || s.Delivered != 1 || s.Resent != 0 {
			t.Errorf("counted over both lanes: %+v", s)
		}
	})
}
