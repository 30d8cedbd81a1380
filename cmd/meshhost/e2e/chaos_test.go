package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// quiet is how long nothing may arrive before what is missing counts as lost:
// longer than a claim of the broker's (30 s), the nudge after a reconnect (36 s)
// and a lease (90 s) can hold a message back one after the other.
const quiet = 100 * time.Second

// fastRestart lets a killed plugin come back again and again.
const fastRestart = `  restart {
    initial = "50ms"
    max     = "500ms"
    crashes = 0
  }`

// rounds is how many kills each victim gets.
func rounds(t testing.TB) int {
	t.Helper()
	s := os.Getenv("MESHHOST_CHAOS_ROUNDS")
	if s == "" {
		return 2
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("MESHHOST_CHAOS_ROUNDS is %q, not a number from 1", s)
	}
	return n
}

// pair is two daemons under load, one sending to the other.
type pair struct {
	a, b *daemon
	v    *driver
}

// sending and arriving look just before a kill, and tell just after it whether
// the kill found something to lose. On the recipient's side that is a message that
// was accepted before and is not stored now; on the sender's also a send which
// waits for its answer.
func (p *pair) sending() func() bool {
	waiting, arriving := p.v.inflight.Load() > 0, p.arriving()
	return func() bool { return waiting || arriving() }
}

func (p *pair) arriving() func() bool {
	accepted := p.v.acceptedIDs() // not their number: sends without an answer are stored as well
	return func() bool {
		stored := p.b.inbox()
		return slices.ContainsFunc(accepted, func(id string) bool { _, ok := stored[id]; return !ok })
	}
}

// victim is what a round kills, and how it comes back.
type victim struct {
	name string
	work func(p *pair) func() bool
	kill func(p *pair) bool // false if there was nothing to kill
	back func(p *pair)
}

func kill9(pid int) bool { return pid > 0 && syscall.Kill(pid, syscall.SIGKILL) == nil }

// victims: both daemons, the outbox of the sender, the inbox of the recipient.
var victims = []victim{
	{"host_a", (*pair).sending, func(p *pair) bool { p.a.proc.kill9(); return true }, func(p *pair) { p.a.up() }},
	{"outbox_a", (*pair).sending, func(p *pair) bool { return kill9(p.a.pluginPID("outbox", "sqlite")) }, func(p *pair) { p.a.ready() }},
	{"host_b", (*pair).arriving, func(p *pair) bool { p.b.proc.kill9(); return true }, func(p *pair) { p.b.up() }},
	{"inbox_b", (*pair).arriving, func(p *pair) bool { return kill9(p.b.pluginPID("push_handler", "inbox")) }, func(p *pair) { p.b.ready() }},
}

// outcome is what a run of kills came to.
type outcome struct {
	kills, withWork, accepted, stored, lost, ghost, wrong int
	err                                                   error
}

func (o outcome) String() string {
	return fmt.Sprintf("kills=%d kills_with_work_in_flight=%d accepted=%d stored=%d lost=%d ghost=%d wrong=%d",
		o.kills, o.withWork, o.accepted, o.stored, o.lost, o.ghost, o.wrong)
}

// failure says why a run of n kills does not show that nothing is lost.
func (o outcome) failure(n int) error {
	switch {
	case o.err != nil || o.lost != 0 || o.ghost != 0 || o.wrong != 0:
		return fmt.Errorf("%v: %w", o, errors.Join(o.err, errors.New("the stores differ from what was accepted")))
	case o.accepted == 0 || o.kills != n || o.withWork*100 < o.kills*80:
		return fmt.Errorf("the run shows too little: %v, %d kills were due", o, n)
	}
	return nil
}

// chaos kills each victim rounds times under load and counts what is left.
func chaos(t testing.TB, bin built, seed uint64, rounds int, which []victim) outcome {
	t.Helper()
	w := newWorld(t, bin, 2, "-data", "DIR/broker.data")
	block := func(string, string) string { return fastRestart }
	p := &pair{a: w.newDaemon(0, block), b: w.newDaemon(1, block)}
	p.a.up()
	p.b.up()
	p.v = newDriver(t, p.a, p.b.member.PublicKey)
	rng := rand.New(rand.NewPCG(seed, 0))
	p.v.load(16, func() { <-time.NewTimer(time.Millisecond).C })
	var o outcome
	for range rounds {
		for _, victim := range which {
			wait := time.NewTimer(time.Duration(50+rng.IntN(250)) * time.Millisecond)
			<-wait.C
			work := victim.work(p)
			if !victim.kill(p) {
				t.Errorf("%s: nothing to kill", victim.name)
				continue
			}
			o.kills++
			if work() {
				o.withWork++
			}
			victim.back(p)
		}
	}
	p.v.stop()
	o.accepted = len(p.v.acceptedIDs())
	for moved := time.Now(); ; {
		stored := p.b.inbox()
		if len(stored) != o.stored {
			o.stored, moved = len(stored), time.Now()
		}
		o.lost, o.ghost, o.wrong, o.err = p.v.check(stored)
		if o.lost == 0 || time.Since(moved) > quiet {
			return o
		}
		<-time.NewTimer(200 * time.Millisecond).C
	}
}

func TestChaosLosesNothing(t *testing.T) {
	n := rounds(t)
	const seed = 1
	o := chaos(t, binaries(t), seed, n, victims)
	fmt.Printf("RESULT chaos seed=%d rounds=%d %v\n", seed, n, o)
	if err := o.failure(n * len(victims)); err != nil {
		t.Error(err)
	}
}
