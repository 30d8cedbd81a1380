package outbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// acceptMany accepts messages to ann, one for each key; an empty key lets the
// host choose.
func (h *house) acceptMany(keys ...string) []Result {
	h.t.Helper()
	reqs := make([]Request, len(keys))
	for i, k := range keys {
		reqs[i] = Request{To: "ann", Message: "hello " + k, ClientMessageID: k}
	}
	return h.out.AcceptMany(context.Background(), reqs).Wait()
}

func TestManyMessagesReachTheOutboxTogetherAndLeaveInTheirOrder(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline() // what is sent is settled by calls of its own
		defer h.close()
		before := h.store.count("apply")
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprintf("k%03d", i))
		}
		for i, r := range h.acceptMany(keys...) {
			if r.Err != nil || r.Reply.Status != "queued" || r.Reply.ClientMessageID != keys[i] || !r.Reply.Durable ||
				r.Reply.Target != h.names.keys["ann"] || r.Reply.Name != "ann" || r.Reply.From != "live" {
				t.Fatalf("message %d: %+v", i, r)
			}
		}
		if n := h.store.count("apply") - before; n != 1 {
			t.Errorf("%d calls of Apply for one batch before any was sent, want 1", n)
		}
		if n := h.store.count("lookup"); n != 0 {
			t.Errorf("%d look-ups of keys that are new, want none", n)
		}
		h.out.Online("team", true, true)
		h.wantIDs("ann", strings.Join(keys, " "))
	})
}

func TestEachOfManyHasTheOutcomeThatItWouldHaveAlone(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		old := h.send("ann", "old")
		reqs := []Request{
			{To: "ann", Message: "fresh"},
			{To: "ann", Message: "hello old", ClientMessageID: "old"},
			{To: "ann", Message: "another text", ClientMessageID: "old"},
			{To: "", Message: "to nobody"},
			{To: "ann", Message: strings.Repeat("x", MaxTextBytes+1)},
			{To: "ann", Message: "twice", ClientMessageID: "twice"},
			{To: "ann", Message: "twice", ClientMessageID: "twice"},
			{Mesh: "nowhere", To: "ann", Message: "m"},
			{To: "nobody", Message: "bad key"},
			{To: "@all", Message: "everybody"},
		}
		got := h.out.AcceptMany(context.Background(), reqs).Wait()
		want := []string{"", "", "conflict", "to_required", "payload_too_large", "", "", "mesh_not_attached", "bad_key", ""}
		for i, r := range got {
			said := reason(r.Err)
			if c := (*Conflict)(nil); errors.As(r.Err, &c) {
				said = "conflict"
			}
			if said != want[i] {
				t.Errorf("message %d: %q (%v), want %q", i, said, r.Err, want[i])
			}
		}
		if got[1].Reply.ID != old || got[5].Reply.ID != got[6].Reply.ID {
			t.Errorf("replays: %+v, %+v and %+v", got[1].Reply, got[5].Reply, got[6].Reply)
		}
		if n := len(h.store.all()); n != 4 {
			t.Errorf("%d rows, want 4", n)
		}
	})
}

func TestAReplayIsAnsweredWhereItsRecipientIsNotKnownAnyMore(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "old")
		h.names.err = sdk.Errorf(sdk.CodeNotFound, "route_failed", "nobody is called ann")
		got := h.acceptMany("old", "new")
		if got[0].Err != nil || got[0].Reply.ID != id {
			t.Errorf("the replay: %+v", got[0])
		}
		if reason(got[1].Err) != "route_failed" {
			t.Errorf("the new one: %+v", got[1])
		}
	})
}

func TestOfManyInAFullOutboxReplaysAreAnswered(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		id := h.send("ann", "old")
		h.store.full = true
		before := h.store.count("lookup")
		got := h.acceptMany("old", "new", "")
		if got[0].Err != nil || got[0].Reply.ID != id || reason(got[1].Err) != "outbox_full" || reason(got[2].Err) != "outbox_full" {
			t.Errorf("%+v", got)
		}
		if n := h.store.count("lookup") - before; n != 1 {
			t.Errorf("%d look-ups for one batch, want 1", n)
		}
	})
}

func TestManyMessagesWhoseAnswerIsLostAreToldSoAndStoredOnce(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		h.store.set(nil, func(method string, _ []sdk.Op) error {
			if method == "apply" {
				return errUnknown
			}
			return nil
		})
		begin := time.Now()
		got := h.acceptMany("a", "b", "")
		for i, r := range got {
			if reason(r.Err) != "outcome_unknown" || r.Reply.ClientMessageID == "" {
				t.Errorf("message %d: %+v", i, r)
			}
		}
		if took := time.Since(begin); took != storeTimeout {
			t.Errorf("it took %v, want %v", took, storeTimeout)
		}
		h.store.set(nil, nil)
		for i, r := range h.acceptMany("a", "b", got[2].Reply.ClientMessageID)[:2] {
			if r.Err != nil {
				t.Errorf("message %d again: %+v", i, r)
			}
		}
		if n := len(h.store.all()); n != 3 {
			t.Errorf("%d rows, want 3", n)
		}
	})
}

func TestAnOutboxThatIsDownRefusesManyAtOnceAndKeepsNothing(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		h.store.set(func(string, []sdk.Op) error { return errDown }, nil)
		for i, r := range h.acceptMany("a", "b") {
			if reason(r.Err) != "outbox_unavailable" || plugin.OutcomeUnknown(r.Err) {
				t.Errorf("message %d: %v", i, r.Err)
			}
		}
		h.store.set(nil, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(h.store.all()); n != 0 {
			t.Errorf("%d rows were stored after their senders were refused", n)
		}
	})
}
