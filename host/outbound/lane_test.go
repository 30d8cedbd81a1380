package outbound

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestWithinATargetMessagesLeaveInOrderOneAtATime(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		for i := range 5 {
			h.send("ann", fmt.Sprint("a", i))
		}
		h.send("bob", "b0")
		h.wantIDs("ann", "a0")
		h.wantIDs("bob", "b0") // a slow target holds up no other
		for len(h.link.held) > 0 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			synctest.Wait()
		}
		h.wantIDs("ann", "a0 a1 a2 a3 a4")
		if h.link.mostOn != 1 {
			t.Errorf("%d messages for one target were on the wire at once", h.link.mostOn)
		}
		h.close()
	})
}

func TestManySendersAtOnceKeepTheOrderOfTheStore(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		names := []string{"ann", "bob", "cy", "@g"}
		done := make(chan struct{})
		for g := range 8 {
			go func() {
				for i := range 40 {
					h.send(names[(g+i)%len(names)], fmt.Sprint(g, "-", i))
				}
				done <- struct{}{}
			}()
		}
		for range 8 {
			<-done
		}
		synctest.Wait()
		h.wantOnceInOrder(t)
		if n := len(h.link.messages()); n != 320 {
			t.Errorf("%d messages left, want 320", n)
		}
		if n := h.store.count("fetch"); n > 5 {
			t.Errorf("%d fetches: fresh rows are to be taken from memory", n)
		}
	})
}

// wantOnceInOrder checks that what was written is, per target, the rows of the
// store in seq order, none twice but those that may be.
func (h *house) wantOnceInOrder(t *testing.T) {
	t.Helper()
	for _, fault := range h.faults(nil, nil) {
		t.Error(fault)
	}
}

// faults says what is wrong with what was written. Rows of loose were requeued:
// their seq is another than when they were first written.
func (h *house) faults(mayRepeat, loose map[string]bool) []string {
	var out []string
	seqs, last, seen := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, e := range h.store.rows {
		seqs[e.ID] = e.Seq
	}
	for _, m := range h.link.messages() {
		switch first := !seen[m.ID]; {
		case !first && !mayRepeat[m.ID]:
			out = append(out, m.ClientMessageID+" was written twice")
		case first && !loose[m.ID] && seqs[m.ID] < last[m.Target]:
			out = append(out, m.ClientMessageID+" was written after a later one of its target")
		case first && !loose[m.ID]:
			last[m.Target] = seqs[m.ID]
		}
		seen[m.ID] = true
	}
	if h.link.mostOn > 1 {
		out = append(out, "two messages for one target were on the wire at once")
	}
	return out
}

func TestPriorityChoosesAmongTargetsAndNeverInsideOne(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		send := func(to, key, priority string) {
			if _, err := h.out.Accept(t.Context(), Request{To: to, Message: key, ClientMessageID: key, Priority: priority}); err != nil {
				t.Fatal(err)
			}
		}
		send("ann", "low", "low")
		send("ann", "now-behind", "now")
		send("bob", "next", "next")
		send("cy", "now", "now")
		h.out.Online("team", true, true)
		h.wantIDs("", "now next low now-behind")
	})
}

func TestTheRowBehindTellsByPrevWhetherMemoryIsTheWholeQueue(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		first, _ := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "1", ClientMessageID: "1", Lane: "l", Target: "t"}}})
		second, _ := h.store.Apply(t.Context(), []sdk.Op{
			{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "2", ClientMessageID: "2", Lane: "l", Target: "t"}},
			{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "3", ClientMessageID: "3", Lane: "l", Target: "other"}},
			{Kind: sdk.OpAccepted, ID: "1"}, {Kind: sdk.OpAccepted, ID: "2"},
			{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "4", ClientMessageID: "4", Lane: "l", Target: "t"}},
		})
		if first[0].Prev != 0 || second[0].Prev != first[0].Seq || second[1].Prev != 0 || second[4].Prev != 0 {
			t.Errorf("prev: %+v %+v", first, second)
		}
	})
	// A row behind a head that waits must not be taken for a head.
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "1" {
				return Outcome{Verdict: NoPeer}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		h.send("ann", "1")
		synctest.Wait()
		for i := range 20 {
			h.send("ann", fmt.Sprint("later", i))
		}
		h.wantIDs("ann", "1")
		if n := h.store.count("fetch"); n > 3 {
			t.Errorf("%d fetches for rows behind a head that waits", n)
		}
	})
}

func TestARowThatAnotherHostPutBetweenIsNotPassed(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		h.send("ann", "1")
		synctest.Wait()
		theirs := sdk.Entry{
			ID: "2", ClientMessageID: "2", Mesh: "team", Lane: "team/member", Target: h.names.keys["ann"],
			Body: h.out.meshes["team"].atRest.Seal([]byte("x")),
		}
		if _, err := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAppend, Entry: &theirs}}); err != nil {
			t.Fatal(err)
		}
		h.send("ann", "3")
		synctest.Wait()
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		h.wantIDs("", "1 2 3")
	})
}

func TestALearnedRateIsKeptAndForgottenAtTheNextConnection(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		limited := false
		h.link.setScript(func(m Message, n int) Outcome {
			if n == 3 {
				limited = true
				return Outcome{Verdict: RateLimited, PerMinute: 120}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		var ids []string
		for i := range 8 {
			ids = append(ids, h.send("ann", fmt.Sprint(i)))
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		h.wantIDs("", "0 1 2 2 3 4 5 6 7")
		at := h.link.times()
		if !limited || at[2].Sub(at[0]) != 0 {
			t.Errorf("the pacer must start unlimited")
		}
		for i := 3; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < 500*time.Millisecond || d > 600*time.Millisecond {
				t.Errorf("%s between writes, want the rate that the broker named", d)
			}
		}
		if e := h.store.entry(ids[2]); e.Attempts != 0 || e.State != sdk.StateAccepted {
			t.Errorf("a rate limit cost an attempt: %+v", e)
		}
		h.out.Online("team", false, false)
		h.out.Online("team", true, true)
		before := time.Now()
		for i := range 8 {
			h.send("ann", fmt.Sprint("x", i))
		}
		synctest.Wait()
		if n := len(h.link.messages()); n != 17 || time.Since(before) > 0 {
			t.Errorf("%d messages after the reconnect, want all at once", n-9)
		}
	})
}

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
		if h.relists < 3 || h.relists > 5 {
			t.Errorf("%d lists in three minutes, want one a minute while something waits", h.relists)
		}
		h.wantIDs("ann", "1")
		absent = false
		h.out.PeersSeen("team", []string{h.names.keys["bob"], h.names.keys["ann"]})
		h.wantIDs("ann", "1 1 2")
		h.wantState(second, sdk.StateAccepted)
		n := h.relists
		time.Sleep(5 * time.Minute)
		if h.relists != n {
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
		n := h.relists
		time.Sleep(5 * time.Minute)
		if h.relists != n {
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
		if h.relists == 0 {
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

func TestAnAttemptWithoutAnAnswerIsRepeatedWithTheSameIDs(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(_ Message, n int) Outcome {
			if n <= 2 {
				return Outcome{Verdict: Unknown, Detail: "timeout"}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		h.wantIDs("", "1") // it pauses, and what is behind it waits
		time.Sleep(10 * time.Second)
		h.wantIDs("", "1 1 1 2")
		for _, m := range h.link.messages()[:3] {
			if m.ID != id {
				t.Errorf("repeated as %s", m.ID)
			}
		}
		if e := h.store.entry(id); e.Attempts != 0 {
			t.Errorf("%d attempts were counted", e.Attempts)
		}
	})
}

func TestALateAckCompletesAMessage(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(_ Message, n int) Outcome {
			if n == 1 {
				return Outcome{Verdict: Unknown}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		synctest.Wait()
		h.out.LateAck("team", id, "late")
		h.wantIDs("", "1 2")
		if e := h.store.entry(id); e.State != sdk.StateAccepted || e.BrokerMessageID != "late" {
			t.Errorf("got %+v", e)
		}
	})
	// While its repetition is on the wire.
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		synctest.Wait()
		h.link.answer(Outcome{Verdict: Unknown})
		time.Sleep(2 * time.Second)
		h.wantIDs("", "1 1")
		h.out.LateAck("team", id, "late")
		h.wantState(id, sdk.StateAccepted)
		h.wantIDs("", "1 1")
		h.link.answer(Outcome{Verdict: NoPeer})
		h.wantIDs("", "1 1 2")
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b2"})
		if e := h.store.entry(id); e.State != sdk.StateAccepted || e.BrokerMessageID != "late" {
			t.Errorf("got %+v", e)
		}
	})
	// Of a message that waits by now: its waiter hears of it too.
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(_ Message, n int) Outcome {
			if n == 1 {
				return Outcome{Verdict: NoPeer}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		synctest.Wait()
		h.send("ann", "2")
		begin := time.Now()
		time.AfterFunc(time.Second, func() { h.out.LateAck("team", id, "late") })
		if e, err := h.out.Wait(t.Context(), id, sdk.StateAccepted); err != nil || time.Since(begin) != time.Second {
			t.Errorf("%+v %v after %s", e, err, time.Since(begin))
		}
		h.wantIDs("", "1 2") // and what is behind it goes on
	})
}

func TestAFrameThatClosesTheSocketTwiceIsDeadAndItsNeighboursAreNot(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		defer h.close()
		var ids []string
		for _, name := range []string{"ann", "bob", "cy", "dee", "eve"} {
			ids = append(ids, h.send(name, name))
		}
		synctest.Wait()
		if n := len(h.link.held); n != 5 {
			t.Fatalf("%d on the wire", n)
		}
		// Each connection dies on cy's frame, and all that is on it with it.
		for len(h.link.held) > 0 {
			wire := h.link.messages()
			wire = wire[len(wire)-len(h.link.held):]
			poison := slices.ContainsFunc(wire, func(m Message) bool { return m.ClientMessageID == "cy" })
			if poison {
				h.link.setReady(false)
				h.out.Online("team", false, false)
			}
			for range wire {
				if poison {
					h.link.answer(Outcome{Verdict: Unknown, Poisoned: true, Detail: "close 1009"})
				} else {
					h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
				}
			}
			synctest.Wait()
			h.link.setReady(true)
			h.out.Online("team", true, true)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		for i, id := range ids {
			want := sdk.StateAccepted
			if i == 2 {
				want = sdk.StateDead
			}
			if got := h.store.state(id); got != want {
				t.Errorf("message %d is %q, want %q", i, got, want)
			}
		}
		h.link.setManual(false)
		h.send("cy", "next")
		h.send("ann", "after")
		synctest.Wait()
		if got := h.link.ids(""); got[len(got)-1] != "after" {
			t.Errorf("the lane goes on: %q", got)
		}
	})
}

func TestWhatWasNotWrittenKeepsItsPlaceAndCostsNoAttempt(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setReady(false)
		h.start()
		defer h.close()
		h.send("ann", "1")
		id := h.send("ann", "2")
		synctest.Wait()
		h.wantIDs("", "")
		h.link.setReady(true)
		h.out.Online("team", true, true)
		time.Sleep(2 * time.Second)
		h.wantIDs("", "1 2")
		if e := h.store.entry(id); e.Attempts != 0 {
			t.Errorf("%d attempts", e.Attempts)
		}
	})
	// A link that says ready and takes nothing must not be asked in a loop.
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(_ Message, n int) Outcome {
			if n <= 10 {
				return Outcome{Verdict: NotSent}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		begin := time.Now()
		id := h.send("ann", "1")
		if _, err := h.out.Wait(t.Context(), id, sdk.StateAccepted); err != nil || time.Since(begin) < 10*notSentPause {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestARefusalThatMayPassBacksOffWithTheWholeQueueBehindIt(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, n int) Outcome {
			if m.ClientMessageID == "1" && n <= 4 {
				return Outcome{Verdict: Transient, Detail: "internal\xff"}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		synctest.Wait()
		time.Sleep(time.Minute)
		h.wantIDs("", "1 1 1 1 1 2")
		at := h.link.times()
		for i := 1; i < 5; i++ {
			want := time.Second << (i - 1)
			if d := at[i].Sub(at[i-1]); d < want/2 || d > want+time.Second {
				t.Errorf("pause %d was %s, want %s at most and half of it at least", i, d, want)
			}
		}
		if e := h.store.entry(id); e.Attempts != 4 || e.State != sdk.StateAccepted {
			t.Errorf("got %+v", e)
		}
	})
}

func TestAPermanentRefusalIsDeadAndTheNextMessageGoes(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "1" {
				return Outcome{Verdict: Refused, Detail: "blocked by recipient grants"}
			}
			return Outcome{}
		})
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		h.send("ann", "2")
		h.wantState(id, sdk.StateDead)
		h.wantIDs("", "1 2")
		if e := h.store.entry(id); e.LastError != "blocked by recipient grants" || len(e.Body) == 0 {
			t.Errorf("got %+v", e)
		}
	})
}

func TestWhatIsPastItsTimeExpiresInsteadOfLeaving(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.life = time.Hour
		h.startOffline() // what was accepted offline expires when there is a connection again
		defer h.close()
		old := h.send("ann", "old")
		time.Sleep(2 * time.Hour)
		young := h.send("ann", "young")
		h.out.Online("team", true, true)
		h.wantState(old, sdk.StateExpired)
		h.wantState(young, sdk.StateAccepted)
		h.wantIDs("", "young")
	})
}

func TestAWaitingMessageExpires(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.life = time.Hour
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		time.Sleep(time.Hour + probeEvery + time.Second)
		h.wantState(id, sdk.StateExpired)
		n := h.relists
		time.Sleep(time.Hour)
		if h.relists != n {
			t.Error("peers are still listed for a message that has expired")
		}
	})
}

func TestARowThatCanNotBeOpenedIsDeadAndTheRestGoesOn(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		bad, good := h.send("ann", "bad"), h.send("ann", "good")
		h.store.mu.Lock()
		h.store.find(bad).Body[5] ^= 1
		h.store.mu.Unlock()
		h.out.Online("team", true, true)
		h.wantState(bad, sdk.StateDead)
		h.wantState(good, sdk.StateAccepted)
	})
}

func TestOddAnswersOfFetchAreNotSentAndNotAskedForInALoop(t *testing.T) {
	cases := map[string]func(*sdk.FetchResult){
		"no rows":         func(r *sdk.FetchResult) { r.Queues = []sdk.Queue{{Target: "@x", More: true}} },
		"another target":  func(r *sdk.FetchResult) { r.Queues[0].Rows[0].Target = "@other" },
		"backwards":       func(r *sdk.FetchResult) { slices.Reverse(r.Queues[0].Rows) },
		"finished":        func(r *sdk.FetchResult) { r.Queues[0].Rows[0].State = sdk.StateAccepted },
		"more of nothing": func(r *sdk.FetchResult) { r.Queues, r.More = nil, true },
		"due now, always": func(r *sdk.FetchResult) { r.Queues, r.NextDue = nil, 0 },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.startOffline()
				defer h.close()
				h.send("@g", "1")
				h.send("@g", "2")
				end := time.Now().Add(5 * time.Second)
				h.store.fetched = func(r *sdk.FetchResult) {
					if time.Now().Before(end) && len(r.Queues) > 0 {
						spoil(r)
					}
				}
				h.out.Online("team", true, true)
				time.Sleep(4 * time.Second)
				h.wantIDs("", "")
				if n := h.store.count("fetch"); n > 1000 {
					t.Errorf("%d fetches in four seconds", n)
				}
				time.Sleep(4 * time.Second)
				h.wantIDs("", "1 2")
			})
		})
	}
}

func TestALongBacklogOfSlowTargetsLeavesRoomForOthers(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		add := func(target string, n int) {
			var ops []sdk.Op
			for range n {
				h.store.mu.Lock()
				id := fmt.Sprint("r", len(h.store.rows)+len(ops))
				h.store.mu.Unlock()
				ops = append(ops, sdk.Op{Kind: sdk.OpAppend, Entry: &sdk.Entry{
					ID: id, ClientMessageID: id, Mesh: "team", Lane: "team/member", Target: target,
					Body: h.out.meshes["team"].atRest.Seal([]byte("x")),
				}})
			}
			for i := range ops {
				if _, err := h.store.Apply(t.Context(), ops[i:i+1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range 12 {
			add(fmt.Sprint("@slow", i), 200)
		}
		h.link.manual = true
		h.out.Online("team", true, true)
		synctest.Wait()
		l := h.out.meshes["team"].lane
		if l.rows > 12*maxQueueRows {
			t.Errorf("%d rows in memory", l.rows)
		}
		for _, q := range l.queues {
			if len(q.rows) > maxQueueRows {
				t.Errorf("%d rows of one target in memory", len(q.rows))
			}
		}
		h.link.setManual(false)
		add("@quick", 1)
		h.out.OutboxReady("box")
		synctest.Wait()
		if n := len(h.link.ids("@quick")); n != 1 {
			t.Errorf("the quick target got %d messages", n)
		}
		for len(h.link.held) > 0 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		}
		synctest.Wait()
		h.wantOnceInOrder(t)
		if n := len(h.link.messages()); n != 12*200+1 {
			t.Errorf("%d messages left, want all", n)
		}
		h.close()
	})
}

func TestTheWireIsBoundedAndACrowdedMemoryTrimmed(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		for i := range 300 {
			h.send(fmt.Sprint("@t", i), fmt.Sprint(i))
		}
		synctest.Wait()
		if n := len(h.link.held); n != maxInflight {
			t.Errorf("%d on the wire, want %d", n, maxInflight)
		}
		for len(h.link.held) > 0 {
			h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
			synctest.Wait()
		}
		if n := len(h.link.messages()); n != 300 {
			t.Errorf("%d left", n)
		}
		h.close()
	})
	l := &Lane{queues: map[string]*queue{}, suspects: map[*row]*queue{}}
	for i := range 64 {
		q := l.queueOf(fmt.Sprint(i))
		for s := range 70 {
			l.push(q, &row{seq: int64(s + 1), size: 1})
		}
	}
	begin := time.Now()
	if l.room(begin) || l.room(begin.Add(crowdedFor/2)) {
		t.Error("a crowded memory must wait first")
	}
	if !l.room(begin.Add(crowdedFor)) || l.rows != 64*trimRows || !l.queues["7"].more || l.queues["7"].rows[trimRows-1].seq != trimRows {
		t.Errorf("%d rows are left", l.rows)
	}
}

func TestALaneThatIsFarBehindFindsWhatItsInboxHadNoRoomFor(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		l := h.out.meshes["team"].lane
		l.mu.Lock()
		l.freshRows = maxLaneRows // as if the lane had not read for long
		l.mu.Unlock()
		h.send("ann", "1")
		h.wantIDs("", "1")
		h.link.setManual(true)
		h.send("ann", "2")
		synctest.Wait()
		l.mu.Lock()
		l.freshRows = maxLaneRows
		l.mu.Unlock()
		h.send("ann", "3")
		synctest.Wait()
		h.link.setManual(false)
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		h.wantIDs("", "1 2 3")
	})
}

func TestAnIdleOfflineLaneSleeps(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.send("ann", "1")
		synctest.Wait()
		h.out.Online("team", false, false)
		synctest.Wait()
		l := h.out.meshes["team"].lane
		time.Sleep(time.Minute) // long past the moment of renewal
		synctest.Wait()
		if d, ok := l.nextWake(); ok {
			t.Errorf("it wakes in %s although only mail can change anything", d)
		}
	})
}

func TestCloseWaitsForWhatIsOnTheWire(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		id, behind := h.send("ann", "1"), h.send("ann", "2")
		synctest.Wait()
		closed := make(chan struct{})
		go func() { h.close(); close(closed) }()
		time.Sleep(3 * time.Second)
		select {
		case <-closed:
			t.Fatal("closed while a message was on the wire")
		default:
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
		<-closed
		if h.store.state(id) != sdk.StateAccepted || h.store.state(behind) != sdk.StatePending || len(h.link.messages()) != 1 {
			t.Errorf("the one on the wire is %q, the one behind it %q", h.store.state(id), h.store.state(behind))
		}
		if h.store.lanes["team/member"].owner != "" {
			t.Error("the lease was not given up")
		}
	})
	inHouse(t, func(t *testing.T, h *house) {
		h.link.manual = true
		h.start()
		h.send("ann", "1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.out.Close(ctx); err == nil {
			t.Error("a close that could not wait long enough must say so")
		}
		h.stop()
	})
}
