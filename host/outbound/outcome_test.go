package outbound

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/meshhost/meshhost/sdk"
)

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
		h.out.LateAck("team", id, "") // no ack, as in time
		h.wantState(id, sdk.StatePending)
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
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer} })
		gone := h.send("bob", "3")
		h.wantState(gone, sdk.StateWaiting)
		h.out.LateAck("team", gone, "late")
		h.wantState(gone, sdk.StateAccepted)
		lists := h.lists()
		time.Sleep(10 * time.Minute)
		if n := h.lists() - lists; n > 1 {
			t.Errorf("the peers were listed %d times, though nothing waits", n)
		}
		h.out.LateAck("team", "unknown", "late") // of a row that is gone
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
		if n := h.link.pending(); n != 5 {
			t.Fatalf("%d on the wire", n)
		}
		// Each connection dies on cy's frame, and all that is on it with it.
		for h.link.pending() > 0 {
			wire := h.link.messages()
			wire = wire[len(wire)-h.link.pending():]
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
		n := h.lists()
		time.Sleep(time.Hour)
		if h.lists() != n {
			t.Error("peers are still listed for a message that has expired")
		}
	})
}

func TestABrokersTextsAreCutBeforeTheyAreStored(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		long := strings.Repeat("é", 30000)
		h.link.setScript(func(m Message, _ int) Outcome {
			if m.ClientMessageID == "refused" {
				return Outcome{Verdict: Refused, Detail: long}
			}
			return Outcome{Verdict: Accepted, MessageID: long}
		})
		h.start()
		defer h.close()
		acked, refused := h.send("ann", "acked"), h.send("ann", "refused")
		h.wantState(acked, sdk.StateAccepted)
		h.wantState(refused, sdk.StateDead)
		for name, s := range map[string]string{"id": h.store.entry(acked).BrokerMessageID, "refusal": h.store.entry(refused).LastError} {
			if len(s) < 900 || len(s) > maxDetail || !utf8.ValidString(s) {
				t.Errorf("the %s has %d bytes", name, len(s))
			}
		}
	})
}
