package outbound

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestTheRowBehindTellsByPrevWhetherMemoryIsTheWholeQueue(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		first, _ := h.store.Apply(t.Context(), []sdk.Op{{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "1", ClientMessageID: "1", Lane: "l", Target: "t"}}})
		second, _ := h.store.Apply(t.Context(), []sdk.Op{
			{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "2", ClientMessageID: "2", Lane: "l", Target: "t"}},
			{Kind: sdk.OpAppend, Entry: &sdk.Entry{ID: "3", ClientMessageID: "3", Lane: "l", Target: "other"}},
			{Kind: sdk.OpAccepted, ID: "1"},
			{Kind: sdk.OpAccepted, ID: "2"},
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
		"another lane":    func(r *sdk.FetchResult) { r.Queues[0].Rows[0].Lane = "other/member" },
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
				id := fmt.Sprint("r", len(h.store.all())+len(ops))
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
		for h.link.pending() > 0 {
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
		if n := h.link.pending(); n != maxInflight {
			t.Errorf("%d on the wire, want %d", n, maxInflight)
		}
		for h.link.pending() > 0 {
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
