package e2e

import (
	"fmt"
	"os"
	"testing"
)

// The count itself must be able to fail.
func TestAPlantedLossAndAGhostAreSeen(t *testing.T) {
	v := &driver{bodies: map[string]string{"a": "A", "b": "B", "c": "C"}, accepted: []string{"a", "b"}}
	for _, c := range []struct {
		name               string
		stored             map[string]string
		lost, ghost, wrong int
	}{
		{"all there", map[string]string{"a": "A", "b": "B"}, 0, 0, 0},
		{"unanswered but there", map[string]string{"a": "A", "b": "B", "c": "C"}, 0, 0, 0},
		{"planted loss", map[string]string{"a": "A"}, 1, 0, 0},
		{"ghost", map[string]string{"a": "A", "b": "B", "x": "X"}, 0, 1, 0},
		{"another body", map[string]string{"a": "A", "b": "b"}, 0, 0, 1},
	} {
		lost, ghost, wrong, err := v.check(c.stored)
		if lost != c.lost || ghost != c.ghost || wrong != c.wrong || (err == nil) != (lost+ghost+wrong == 0) {
			t.Errorf("%s: lost=%d ghost=%d wrong=%d err=%v", c.name, lost, ghost, wrong, err)
		}
		o := outcome{kills: 10, withWork: 9, accepted: len(v.accepted), stored: len(c.stored), lost: lost, ghost: ghost, wrong: wrong, err: err}
		if failure := o.failure(10); (failure == nil) != (lost+ghost+wrong == 0) {
			t.Errorf("%s: the run's verdict is %v", c.name, failure)
		}
	}
}

// Nor does a run pass that killed too seldom, or where there was nothing to lose.
func TestARunThatShowsTooLittleFails(t *testing.T) {
	good := outcome{kills: 10, withWork: 8, accepted: 1, stored: 1}
	if err := good.failure(10); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]outcome{
		"a kill missing":   {kills: 9, withWork: 9, accepted: 1, stored: 1},
		"idle kills":       {kills: 10, withWork: 7, accepted: 1, stored: 1},
		"nothing accepted": {kills: 10, withWork: 10},
	} {
		if o.failure(10) == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

// Builds that break a promise must be noticed by the same run that the real
// build passes. Each form of the sabotage shows under the kill of its own end.
func TestSabotageIsCaught(t *testing.T) {
	if os.Getenv("MESHHOST_SABOTAGE") == "" {
		t.Log("RESULT sabotage not asked for: make sabotage runs it")
		return
	}
	bin := binaries(t, "ack_before_store")
	for _, c := range []struct {
		form   string
		rounds int
		victim victim
	}{
		{"accepted_before_outbox", 8, victims[0]},
		// The gap between a client_ack and the commit of the journal is a
		// millisecond or two: about one kill in eight falls into it.
		{"client_ack_before_journal", 24, victims[2]},
	} {
		t.Run(c.form, func(t *testing.T) {
			var o outcome
			runs := 0
			for seed := uint64(1); seed <= 3 && o.lost == 0; seed++ {
				o = chaos(t, bin, seed, c.rounds, []victim{c.victim})
				runs++
			}
			fmt.Printf("RESULT sabotage tag=ack_before_store form=%s caught=%v runs=%d %v\n", c.form, o.lost > 0, runs, o)
			if o.lost == 0 {
				t.Errorf("the sabotage survived: %v", o)
			}
		})
	}
}
