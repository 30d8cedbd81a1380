package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/host/wire"
)

func TestNudgeFollowsEachAckByThirtySixSeconds(t *testing.T) {
	var hooks chan string
	b := &fakeBroker{hook: func(body string) { hooks <- body }}
	inMesh(t, b, func(*Options) { hooks = make(chan string, 4) }, func(t *testing.T, m *Mesh) {
		begin := time.Now()
		if got, want := <-hooks, `{"cwd":"/srv","pid":4242,"status":"idle","session_id":"s1"}`; got != want {
			t.Errorf("body %s, want %s", got, want)
		}
		if after := time.Since(begin); after < 34*time.Second || after > 36*time.Second {
			t.Errorf("nudged %v after the ack", after)
		}
		m.Member().SetNudgeStatus(wire.StatusDND)
		b.cut(0, "")
		if got := <-hooks; !strings.Contains(got, `"dnd"`) {
			t.Errorf("second body %s", got)
		}
		m.Member().Nudge()
		m.Member().Nudge()
		<-hooks
		select {
		case extra := <-hooks:
			t.Errorf("an extra nudge %s", extra)
		case <-time.After(time.Minute):
		}
	})
}

func TestANudgeThatFailsIsRepeatedUntilOneGetsThrough(t *testing.T) {
	var hooks chan string
	b := &fakeBroker{hook: func(body string) { hooks <- body }}
	b.deaf.Store(3)
	inMesh(t, b, func(*Options) { hooks = make(chan string, 8) }, func(t *testing.T, m *Mesh) {
		defer b.beat()()
		last := time.Now()
		for try, want := range []time.Duration{36 * time.Second, 36 * time.Second, 72 * time.Second, 144 * time.Second} {
			<-hooks
			now := time.Now()
			if after := now.Sub(last); after < want/2-time.Second || after > want+time.Second {
				t.Errorf("try %d came after %v, want %v at most and half of it at least", try+1, after, want)
			}
			last = now
		}
		select {
		case extra := <-hooks:
			t.Errorf("nudged again after a success: %s", extra)
		case <-time.After(time.Hour):
		}
	})
}

func TestTheEndOfDNDAsksForWhatItHeld(t *testing.T) {
	var hooks chan string
	b := &fakeBroker{hook: func(body string) { hooks <- body }}
	inMesh(t, b, func(*Options) { hooks = make(chan string, 8) }, func(t *testing.T, m *Mesh) {
		defer b.beat()()
		<-hooks // the one after the ack
		m.Member().SetNudgeStatus(wire.StatusDND)
		select {
		case extra := <-hooks:
			t.Errorf("the begin of dnd nudged: %s", extra)
		case <-time.After(time.Minute):
		}
		begin := time.Now()
		m.Member().SetNudgeStatus(wire.StatusIdle)
		if got := <-hooks; !strings.Contains(got, `"idle"`) || time.Since(begin) < time.Second {
			t.Errorf("nudged after %v with %s", time.Since(begin), got)
		}
	})
}

func TestAFailedWishDoesNotHastenTheNudgeAfterAnAck(t *testing.T) {
	var hooks chan string
	b := &fakeBroker{hook: func(body string) { hooks <- body }}
	b.deaf.Store(1)
	inMesh(t, b, func(*Options) { hooks = make(chan string, 8) }, func(t *testing.T, m *Mesh) {
		begin := time.Now()
		m.Member().Nudge()
		<-hooks // refused
		<-hooks
		if after := time.Since(begin); after < 34*time.Second {
			t.Errorf("nudged %v after the ack, while claims hold for 30 s", after)
		}
	})
}

// What was dropped is claimed, and the broker's claims are no timer: somebody has to ask.
func TestDroppedPushesAreAskedForWhenTheirClaimsHaveEnded(t *testing.T) {
	var gate chan struct{}
	var hooks chan time.Time
	b := &fakeBroker{hook: func(string) { hooks <- time.Now() }}
	inMesh(t, b, func(o *Options) {
		gate, hooks = make(chan struct{}), make(chan time.Time, 8)
		o.Handlers.OnPush = func(*Conn, []*Push) { <-gate }
	}, func(t *testing.T, m *Mesh) {
		defer b.beat()()
		<-hooks // the one after the ack
		time.Sleep(time.Minute)
		begin := time.Now()
		for i := range maxQueuedFrame + 100 {
			b.push(fmt.Sprintf(`{"type":"push","messageId":"m%d"}`, i))
		}
		close(gate)
		select {
		case at := <-hooks:
			if after := at.Sub(begin); after < 30*time.Second || after > 38*time.Second {
				t.Errorf("nudged %v after the drops, want 36 s", after)
			}
		case <-time.After(10 * time.Minute):
			t.Error("nobody asks for what was dropped")
		}
	})
}
