package outbound

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// way are the hops of a trace, those that only the row tells in brackets.
func way(tr *Trace) string {
	var out []string
	for _, h := range tr.Hops {
		name := h.Name
		if h.FromRow {
			name = "[" + name + "]"
		}
		if h.Times > 1 {
			name += fmt.Sprint("×", h.Times)
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func (h *house) trace(id string) *Trace {
	h.t.Helper()
	synctest.Wait()
	tr, err := h.out.Trace(h.t.Context(), id)
	if err != nil {
		h.t.Fatalf("trace %s: %v", id, err)
	}
	return tr
}

func (h *house) wantTrace(id, hops, next string) *Trace {
	h.t.Helper()
	tr := h.trace(id)
	if way(tr) != hops || tr.Next.What != next {
		h.t.Errorf("%s, next %s (%s); want %s, next %s", way(tr), tr.Next.What, tr.Next.Detail, hops, next)
	}
	return tr
}

func TestATraceTellsTheWholeWayOfAMessageByAnyOfItsIDs(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		a := h.asks()
		h.start()
		defer h.close()
		id := h.send("ann", "key")
		begin := time.Now()
		tr := h.wantTrace(id, "received resolved stored sent accepted", NextAsk)
		if d := tr.Next.At.Sub(begin); d != 5*time.Second || tr.Earlier != "" || tr.Outbox != "box" {
			t.Errorf("asked in %s; %+v", d, tr)
		}
		if got := tr.Hops[1].Detail; !strings.HasPrefix(got, "to ann (") || !strings.HasSuffix(got, "), live") {
			t.Errorf("resolved: %s", got)
		}
		time.Sleep(40 * time.Second)
		h.wantTrace("key", "received resolved stored sent accepted asked×2", NextAsk)
		a.set(func(string) (bool, error) { return true, nil })
		time.Sleep(2 * time.Minute)
		tr = h.wantTrace("b1", "received resolved stored sent accepted asked×2 delivered", NextNothing)
		if !slices.IsSortedFunc(tr.Hops, func(a, b Hop) int { return a.At.Compare(b.At) }) {
			t.Errorf("not in order: %+v", tr.Hops)
		}
		if _, err := h.out.Trace(t.Context(), "nothing"); !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestATraceSaysWhyAMessageDoesNotLeave(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "1")
		h.wantTrace(id, "received resolved stored", NextOffline)
		second := h.send("ann", "2")
		h.link.setScript(func(m Message, n int) Outcome {
			if n < 4 {
				return Outcome{Verdict: RateLimited, PerMinute: 60}
			}
			return Outcome{Verdict: Transient, Detail: "busy"}
		})
		h.out.Online("team", true, true)
		h.wantTrace(id, "received resolved stored sent", NextRateLimit)
		time.Sleep(3 * time.Second)
		tr := h.wantTrace(id, "received resolved stored sent×3 sent deferred", NextBackoff)
		if tr.Next.At.Before(time.Now()) || !strings.Contains(tr.Next.Detail, "busy") {
			t.Errorf("%+v", tr.Next)
		}
		if tr = h.wantTrace(second, "received resolved stored", NextBehind); !strings.Contains(tr.Next.Detail, id) {
			t.Errorf("%+v", tr.Next)
		}
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: NoPeer, Detail: "nobody"} })
		time.Sleep(2 * time.Second)
		h.wantTrace(id, "received resolved stored sent×3 sent deferred sent waiting", NextNoPeer)
		h.link.setScript(func(Message, int) Outcome { return Outcome{Verdict: Refused, Detail: "no"} })
		h.out.PeersSeen("team", []string{h.names.keys["ann"]})
		h.wantTrace(id, "received resolved stored sent×3 sent deferred sent waiting woken sent dead", NextRequeue)
		h.link.setScript(nil)
		if _, err := h.out.Requeue(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		h.wantTrace(id, "received resolved stored sent×3 sent deferred sent waiting woken sent dead requeued sent accepted", NextAsk)
		h.out.Online("team", false, false)
		h.out.Online("team", true, true) // forgets the rate
		other := h.send("bob", "3")
		h.wantTrace(other, "received resolved stored sent accepted", NextAsk)
		h.link.setManual(true)
		flying := h.send("bob", "4")
		if tr := h.wantTrace(flying, "received resolved stored", NextInFlight); !tr.InFlight {
			t.Errorf("%+v", tr)
		}
		h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
	})
}

func TestATraceAfterARestartTellsWhatTheRowSaysAndThatThereWasMore(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.link.setScript(func(m Message, n int) Outcome {
			if m.ClientMessageID == "2" {
				return Outcome{Verdict: Transient, Detail: "busy"}
			}
			return Outcome{}
		})
		h.start()
		id, slow := h.send("ann", "1"), h.send("bob", "2")
		gone := h.send("cy", "3")
		time.Sleep(time.Second)
		h.kill()
		time.Sleep(time.Second)
		h.link.setScript(nil)
		h.startOffline()
		defer h.close()
		tr := h.wantTrace(id, "[stored] [accepted]", NextOffline)
		if !strings.Contains(tr.Earlier, "before this daemon's start") {
			t.Errorf("earlier: %s", tr.Earlier)
		}
		h.out.Online("team", true, true)
		time.Sleep(100 * time.Second)
		h.wantTrace("1", "[stored] [accepted] asked×2", NextAsk)
		h.wantTrace(slow, "[stored] [deferred] sent accepted asked×2", NextAsk)
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "get" {
				return errDown
			}
			return nil
		}, nil)
		h.wantTrace(gone, "asked×2", NextUnknown)
		h.store.set(nil, nil)
	})
}

// The time of a delivery is the broker's, whose clock may be behind.
func TestTheHopsOfARowAreInTheirOrderWhateverTheClocksSay(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	e := &sdk.Entry{State: sdk.StateDelivered, EnqueuedAt: at(10), AcceptedAt: at(20), DeliveredAt: at(15), LastError: "busy", Attempts: 1}
	tr := &Trace{Hops: withRow([]Hop{{At: at(30), Name: HopAsked}}, e)}
	if got := way(tr); got != "[stored] [deferred] [accepted] [delivered] asked" {
		t.Errorf("got %s", got)
	}
}

func TestATraceOfALaneThatAnotherHostHasNamesIt(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.store.hold("other", time.Hour)
		h.start()
		defer h.close()
		id := h.send("ann", "1")
		if tr := h.wantTrace(id, "received resolved stored", NextOtherHost); !strings.Contains(tr.Next.Detail, "other") {
			t.Errorf("%+v", tr.Next)
		}
	})
}

// Each change of a row is an event, and a hop.
func TestEveryTransitionIsAnEvent(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.life = 10 * time.Minute
		a := h.asks()
		answer := Outcome{}
		h.link.setScript(func(Message, int) Outcome { return answer })
		h.start()
		defer h.close()
		answers := func(out Outcome) {
			h.link.mu.Lock()
			defer h.link.mu.Unlock()
			answer = out
		}
		answers(Outcome{Verdict: NoPeer})
		id := h.send("ann", "1")
		synctest.Wait()
		answers(Outcome{Verdict: Transient, Detail: "busy"})
		h.out.PeersSeen("team", []string{h.names.keys["ann"]})
		synctest.Wait()
		answers(Outcome{Verdict: Refused})
		time.Sleep(2 * time.Second)
		answers(Outcome{})
		a.set(func(id string) (bool, error) { return false, ErrUnknownMessage })
		requeue := func() {
			if _, err := h.out.Requeue(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		requeue()
		time.Sleep(6 * time.Second)
		a.set(func(id string) (bool, error) { return true, nil })
		time.Sleep(6 * time.Second)
		h.wantState(id, sdk.StateDelivered)
		answers(Outcome{Verdict: NoPeer})
		late := h.send("bob", "2")
		synctest.Wait()
		if _, err := h.out.Cancel(t.Context(), late); err != nil {
			t.Fatal(err)
		}
		dead := h.send("cy", "3")
		synctest.Wait()
		h.out.LateAck("team", dead, "late")
		old := h.send("dee", "4")
		time.Sleep(21 * time.Minute)
		synctest.Wait()
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		got := map[string][]string{}
		for _, e := range h.events {
			if e.ID == "" || e.ClientMessageID == "" || e.Target == "" {
				t.Errorf("an event without ids: %+v", e)
			}
			got[e.ID] = append(got[e.ID], e.hop)
		}
		for id, want := range map[string]string{
			id:   "[stored waiting woken deferred dead requeued accepted resent accepted delivered]",
			late: "[stored waiting cancelled]",
			dead: "[stored waiting accepted delivered]",
			old:  "[stored waiting waiting expired]",
		} {
			if s := fmt.Sprint(got[id]); s != want {
				t.Errorf("events %s, want %s", s, want)
			}
		}
	})
}

func TestTheTrailIsBounded(t *testing.T) {
	tr := newTrail()
	for i := range 2 * maxTracks {
		id := fmt.Sprint(i)
		tr.begin(id, id, Hop{Name: HopReceived})
		tr.note("kept", "kept", Hop{Name: HopSent, Detail: id}) // the one with the latest hop stays
	}
	if n := len(tr.tracks); n != maxTracks || tr.order.Len() != n {
		t.Errorf("%d tracks", n)
	}
	kept, ok := tr.find("kept")
	if !ok || len(kept.hops) != firstHops+lastHops || kept.skipped != 2*maxTracks-firstHops-lastHops ||
		kept.hops[0].Detail != "0" || kept.hops[firstHops+lastHops-1].Detail != fmt.Sprint(2*maxTracks-1) {
		t.Errorf("%d hops, %d skipped", len(kept.hops), kept.skipped)
	}
	for i := range maxTracks {
		for j := range lastHops {
			tr.note(fmt.Sprint(i), "", Hop{Name: HopSent, Detail: strings.Repeat("x", maxDetail-1) + string(rune('a'+j))})
		}
	}
	sum := 0
	for el := tr.order.Front(); el != nil; el = el.Next() {
		sum += el.Value.(*track).bytes
	}
	if tr.bytes > maxTrailBytes || sum != tr.bytes {
		t.Errorf("%d bytes counted, %d there", tr.bytes, sum)
	}
}

func TestAMessageThatWasNotStoredLeavesNoTrail(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		h.send("ann", "1")
		h.store.full = true
		if _, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x", ClientMessageID: "2"}); reason(err) != "outbox_full" {
			t.Fatal(err)
		}
		if _, err := h.out.Trace(t.Context(), "2"); !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if n := len(h.out.meshes["team"].trail.tracks); n != 1 {
			t.Errorf("%d tracks", n)
		}
	})
}
