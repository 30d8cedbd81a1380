package devbroker

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestALeaseIsSilentForNinetySecondsAndThenPeerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		a.take()
		b.hang()
		time.Sleep(graceLease - time.Millisecond)
		wantFrames(t, "just before the end", a.take(), "")
		time.Sleep(time.Millisecond)
		wantFrames(t, "at the end", a.take(), "push:peer_left")
		wantFrames(t, "send to nobody", a.ask(dm(w.keys["b"], "1")), "ack:"+noPeer)
	})
}

func TestAReattachInsideTheLeaseTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		first := a.take()
		b.hang()
		time.Sleep(80 * time.Second)
		again := connect(t, w.b)
		got := again.ask(w.hello("b"))
		if len(got) != 1 || got[0]["restored"] != nil {
			t.Errorf("re-attach answered %v", got)
		}
		time.Sleep(time.Minute)
		if got := a.take(); len(first) != 1 || len(got) != 0 {
			t.Errorf("a heard %q then %q", summary(first), summary(got))
		}
		wantFrames(t, "the old lease is over", a.ask(dm(w.keys["b"], "1")), "ack")
		wantFrames(t, "delivered", again.take(), "push:1")
	})
}

func TestAClaimHoldsForThirtySecondsAndEndsWithoutAPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		a.send(dm(w.keys["b"], "1"))
		wantFrames(t, "first push", b.take(), "push:1")
		time.Sleep(29 * time.Second)
		a.send(dm(w.keys["b"], "2"))
		wantFrames(t, "inside the claim of 1", b.take(), "push:2")
		time.Sleep(10 * time.Second)
		wantFrames(t, "a claim's end is no trigger", b.take(), "")
		b.send(obj{"type": "client_ack", "clientMessageId": "2"})
		a.send(dm(w.keys["b"], "3"))
		wantFrames(t, "after the claim of 1", b.take(), "push:1 push:3")
		b.send(obj{"type": "client_ack", "clientMessageId": "1"})
		b.send(obj{"type": "client_ack", "clientMessageId": "3"})
		time.Sleep(time.Minute)
		a.send(dm(w.keys["b"], "4"))
		wantFrames(t, "what was acked does not come again", b.take(), "push:4")
	})
}

func TestALeasedPresenceClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		b.hang()
		a.send(dm(w.keys["b"], "1"))
		time.Sleep(time.Second)
		again := connect(t, w.b)
		wantFrames(t, "re-attach inside the claim", again.ask(w.hello("b")), "hello_ack")
		time.Sleep(36 * time.Second)
		if got := w.hook(t, `{"cwd":"/b","pid":1,"status":"idle"}`); got["ok"] != true || got["presence_id"] == nil {
			t.Errorf("hook answered %v", got)
		}
		wantFrames(t, "the nudge drains", again.take(), "push:1")
	})
}

func TestTheTakeoverDefectAndItsCure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, s := w.join("a"), newTestKey()
		first := connect(t, w.b)
		wantFrames(t, "first", first.ask(w.sessionHello("b", s)), "hello_ack")
		a.take()
		second := connect(t, w.b)
		got := second.ask(w.sessionHello("b", s))
		if len(got) != 1 || got[0]["memberProfile"] != nil {
			t.Fatalf("takeover answered %v", got)
		}
		if code, reason := first.closed(); code != 1000 || reason != "session_replaced" {
			t.Errorf("old socket closed with %d %q", code, reason)
		}
		time.Sleep(35 * time.Second)
		if n := second.pingCount(); n != 0 {
			t.Errorf("a taken-over session got %d pings; the reference sends none", n)
		}
		wantFrames(t, "heal on the same socket", second.ask(w.sessionHello("b", s)), "hello_ack")
		time.Sleep(100 * time.Second)
		if second.pingCount() == 0 {
			t.Error("no ping after the second session_hello")
		}
		wantFrames(t, "others heard nothing", a.take(), "")

		third := connect(t, w.b)
		third.ask(w.sessionHello("b", s))
		time.Sleep(graceLease)
		wantFrames(t, "unhealed for 90 s", a.take(), "push:peer_left")
		wantFrames(t, "and deaf", third.ask(obj{"type": "list_peers"}), "")
		if code, _ := third.closed(); code != 0 {
			t.Errorf("the deaf socket was closed with %d; it stays open", code)
		}
	})
}

func TestSavedStateComesBackToANewPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		b := w.join("b")
		b.send(obj{"type": "set_summary", "summary": "busy"})
		b.send(obj{"type": "join_group", "name": "x"})
		b.send(obj{"type": "set_visible", "visible": false})
		b.send(obj{"type": "set_stats", "stats": obj{"messagesIn": 3}})
		b.take()
		b.hang()
		time.Sleep(2 * time.Minute)
		again := connect(t, w.b)
		got := again.ask(w.hello("b"))
		if len(got) != 1 || got[0]["restored"] != true || got[0]["lastSummary"] != "busy" {
			t.Fatalf("got %v", got)
		}
		if stats := got[0]["restoredStats"].(obj); stats["messagesIn"] != 3.0 {
			t.Errorf("restoredStats %v", stats)
		}
		a := w.join("a")
		if peers := a.ask(obj{"type": "list_peers"})[0]["peers"].([]any); len(peers) != 1 {
			t.Errorf("a hidden peer came back visible: %v", peers)
		}
	})
}

func TestAConnectionThatAnswersPingsIsKeptAndPingedEveryThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		b := w.join("b")
		time.Sleep(10 * time.Minute)
		if code, _ := b.closed(); code != 0 || b.pingCount() != 20 {
			t.Errorf("a live connection: code %d, %d pings", code, b.pingCount())
		}
	})
}

func TestAnUndeliveredRowIsDroppedAfterSevenDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b := w.join("a"), w.join("b")
		a.take()
		b.hang()
		id := a.ask(dm(w.keys["b"], "1"))[0]["messageId"]
		for _, step := range []struct {
			after time.Duration
			want  string
		}{{queueTTL - 2*time.Hour, "message_status_result"}, {4 * time.Hour, "error:not_found"}} {
			time.Sleep(step.after)
			got := a.ask(obj{"type": "message_status", "messageId": id})
			wantFrames(t, step.after.String(), got[len(got)-1:], step.want)
		}
	})
}
