package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
)

// trace is `message trace -json`.
type trace struct {
	Message *outboxRow `json:"message"`
	Hops    []struct {
		At      *time.Time `json:"at"`
		Hop     string     `json:"hop"`
		FromRow bool       `json:"from_row"`
	} `json:"hops"`
	Earlier string `json:"earlier"`
	Next    struct {
		What string `json:"what"`
	} `json:"next"`
}

func (tr *trace) way() string {
	var hops []string
	for _, h := range tr.Hops {
		if h.FromRow {
			h.Hop = "[" + h.Hop + "]"
		}
		hops = append(hops, h.Hop)
	}
	return strings.Join(hops, " ")
}

func (s shell) trace(id string) (tr trace) {
	s.t.Helper()
	s.run("message", "trace", id, "-json").into("message_trace/v1", &tr)
	return tr
}

// Nobody waits, and the daemon learns all the same that a message was
// delivered, lets go of its body and tells its way; after a restart what the row
// says of it.
func TestADeliveryIsLearnedAndTraced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	sh := a.at(t)
	begin := time.Now()
	sh.run("send", b.member.PublicKey, "nobody waits", "-key", "a/key").exits(0)
	id := sh.trace("a/key").Message.ID
	await(t, 15*time.Second, "the delivery is known", func() error {
		if row := sh.outboxRow(id); row.State != "delivered" {
			return fmt.Errorf("%+v", row)
		}
		return nil
	})
	took := time.Since(begin)
	bodies := 0
	a.query("outbox-sqlite/outbox.db", "SELECT count(*) FROM body", func(s *sqlite.Stmt) { bodies = s.ColumnInt(0) })
	tr := sh.trace(id)
	if way := tr.way(); way != "received resolved stored sent accepted delivered" || tr.Earlier != "" || tr.Next.What != "nothing" {
		t.Errorf("the way is %s, next %s, %q", way, tr.Next.What, tr.Earlier)
	}
	must(t, sh.run("message", "trace", id).has("received", "12 bytes", `in outbox "sqlite"`, "the broker's id is", "delivered", "now", "next"))
	sh.run("message", "trace", "no-such-id").exits(5, "no-such-id")
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	a.up()
	old := sh.trace("a/key")
	if way := old.way(); way != "[stored] [accepted] [delivered]" || !strings.Contains(old.Earlier, "before this daemon's start") {
		t.Errorf("after a restart the way is %s, %q", way, old.Earlier)
	}
	fmt.Printf("RESULT delivery_learned seconds=%.1f bodies=%d hops=%d hops_after_restart=%d\n", took.Seconds(), bodies, len(tr.Hops), len(old.Hops))
	if bodies != 0 || took < 5*time.Second {
		t.Errorf("%d bodies are left; it took %v, though the first question is due after 5 s", bodies, took)
	}
}

// A broker that comes back without what it had acked.
func TestWhatABrokerLostGoesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2) // keeps nothing
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	sh := a.at(t)
	b.proc.kill9() // the broker keeps its place for 90 s and takes messages for it
	id := strings.TrimSpace(sh.run("send", b.member.PublicKey, "kept nowhere", "-wait", "accepted").exits(0).out)
	w.broker.kill9()
	w.startBroker()
	b.up()
	await(t, 60*time.Second, "it arrives", func() error {
		if got := b.inbox(); got[id] != "kept nowhere" {
			return fmt.Errorf("the inbox has %v; %s", got, sh.run("message", "trace", id).out)
		}
		return nil
	})
	tr := sh.trace(id)
	resent := strings.Count(tr.way(), "resent")
	fmt.Printf("RESULT lost_by_broker resent=%d received=%d\n", resent, len(b.inbox()))
	if resent != 1 {
		t.Errorf("the way is %s", tr.way())
	}
}

// The outbox knows what still lacks a report of delivery: a daemon that was
// killed asks for it when it is back.
func TestAKilledDaemonGoesOnAskingForDeliveries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2, "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	b.proc.kill9() // the broker keeps its place for 90 s and takes messages for it
	id := strings.TrimSpace(a.at(t).run("send", b.member.PublicKey, "later", "-wait", "accepted").exits(0).out)
	asked := func() (n int) {
		for _, f := range frames(t, filepath.Join(w.dir, "frames.log")) {
			if f.Dir == "in" && strings.Contains(f.text, "message_status") {
				n++
			}
		}
		return n
	}
	a.proc.kill9()
	before, begin := asked(), time.Now()
	a.up()
	await(t, 20*time.Second, "it asks", func() error {
		if asked() == before {
			return fmt.Errorf("%s", a.at(t).run("message", "trace", id).out)
		}
		return nil
	})
	fmt.Printf("RESULT delivery_asked_after_kill seconds=%.1f\n", time.Since(begin).Seconds())
	if before != 0 {
		t.Errorf("it was asked for %d times before its first step", before)
	}
}
