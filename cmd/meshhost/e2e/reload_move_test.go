package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A mesh moves to a new outbox and back, and outboxes come and go, while sixteen
// clients send: nothing that was accepted is lost, nothing comes twice, and no
// client is refused.
func TestReloadMovesAMeshUnderLoad(t *testing.T) {
	bin := binaries(t)
	w := newWorld(t, bin, 2, "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	sh := a.at(t)
	v := newDriver(t, a, b.member.PublicKey)
	v.load(16, func() { <-time.NewTimer(time.Millisecond).C })
	between := func() { <-time.NewTimer(400 * time.Millisecond).C }
	const two = "outbox \"sqlite\" {\n  name = \"two\"\n}"
	const limited = "outbox \"sqlite\" {\n  name = \"two\"\n  config { max_rows = 500000 }\n}"
	steps := []struct {
		edit []string
		want []string
	}{
		{
			[]string{bareOutbox, bareOutbox + "\n" + two, "mesh \"team\" {", "mesh \"team\" {\n  outbox = \"two\""},
			[]string{`outbox "two": added`, `mesh "team": sends from outbox "two" instead of "sqlite"`},
		},
		{[]string{two, limited}, []string{`outbox "two": new options in force`}},
		{[]string{`outbox = "two"`, `outbox = "sqlite"`}, []string{`mesh "team": sends from outbox "sqlite" instead of "two"`}},
		{[]string{limited, ""}, []string{`outbox "two": removed`}},
		{
			[]string{bareOutbox, two, `outbox = "sqlite"`, `outbox = "two"`},
			[]string{`outbox "two": added`, `mesh "team": sends from outbox "two" instead of "sqlite"`, `outbox "sqlite": removed`},
		},
	}
	moved := 0
	var longest time.Duration
	for _, s := range steps {
		between()
		a.edit(s.edit...)
		begin := time.Now()
		r := sh.run("reload").exits(0).prints(strings.Join(s.want, "\n") + "\n")
		longest = max(longest, time.Since(begin))
		if r.code == 0 {
			moved++
		}
	}
	between()
	v.stop()
	accepted := len(v.acceptedIDs())
	await(t, 60*time.Second, "all arrive", func() error {
		if n := len(b.inbox()); n < accepted {
			return fmt.Errorf("%d of %d", n, accepted)
		}
		return nil
	})
	lost, ghost, wrong, err := v.check(b.inbox())
	twice := sentTwice(t, filepath.Join(w.dir, "frames.log"))
	first, second := a.rowsOf("sqlite", ""), a.rowsOf("two", "")
	live := a.rowsOf("sqlite", "WHERE state IN (1, 2)") + a.rowsOf("two", "WHERE state IN (1, 2)")
	fmt.Printf("RESULT reload_move reloads=%d accepted=%d refused=%d unknown=%d rows_first=%d rows_second=%d left=%d lost=%d ghost=%d wrong=%d stored_twice=%d longest_ms=%d\n",
		moved, accepted, v.refused, v.unknown, first, second, live, lost, ghost, wrong, twice, longest.Milliseconds())
	switch {
	case err != nil || twice != 0 || live != 0:
		t.Errorf("stored twice: %d, left: %d; %v", twice, live, err)
	case v.refused+v.unknown > 0:
		t.Errorf("%d sends were refused, %d unanswered: %v", v.refused, v.unknown, v.lastError)
	case first < 100 || second < 100 || first+second != accepted:
		t.Errorf("%d rows in one outbox and %d in the other, %d were accepted", first, second, accepted)
	}
	a.proc.signal(15, 10*time.Second)
}
