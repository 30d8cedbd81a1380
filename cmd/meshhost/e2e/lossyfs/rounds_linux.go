package lossyfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Store is what Rounds cuts the power of, with the driver that loads it. A value
// sees a disk from empty to its end.
type Store interface {
	// Start starts the store's processes on the disk mounted at dir and puts load
	// on them, without end. round tells apart what several rounds write.
	Start(dir string, round int, rng *rand.Rand) error
	// Acked is how many operations were acknowledged so far, Failed how often one
	// was answered with an error. The driver repeats those until they succeed.
	Acked() int
	Failed() int
	// Kill sends SIGKILL to the processes, calls release, and returns when they
	// are gone and the driver has taken note of the last acknowledgement.
	Kill(release func()) error
	// CheckFiles compares the files that a cut left, before anybody has opened
	// them, with what was acknowledged.
	CheckFiles(d *Disk) Verdict
	// CheckOpen opens the store on the disk mounted at dir by its own program,
	// compares again and closes it.
	CheckOpen(dir string) Verdict
}

// Verdict is what a store has after a cut.
type Verdict struct {
	Lost  int   // acknowledged and not there
	Ghost int   // there and never asked for
	Err   error // not readable, not sound, or in a state that nobody asked for
}

func (v Verdict) ok() bool { return v.Lost == 0 && v.Ghost == 0 && v.Err == nil }

// Tally is what many rounds came to.
type Tally struct {
	Rounds, Fired, Acked        int
	DroppedMin, Dropped, Names  int
	AtSync, AtWrite, Checkpoint int // the moments of the cuts
	Lossy, Lost, Ghost, Broken  int // Lossy are rounds with something lost or broken
	First                       error
}

func (t Tally) String() string {
	return fmt.Sprintf("rounds=%d fired=%d at_sync=%d at_write=%d in_checkpoint=%d acked=%d dropped_pages_min=%d dropped_pages=%d dropped_names=%d lossy_rounds=%d lost=%d ghost=%d broken=%d",
		t.Rounds, t.Fired, t.AtSync, t.AtWrite, t.Checkpoint, t.Acked, t.DroppedMin, t.Dropped, t.Names, t.Lossy, t.Lost, t.Ghost, t.Broken)
}

// Failure says why the rounds do not show that nothing is lost.
func (t Tally) Failure() error {
	switch {
	case t.Lossy > 0:
		return fmt.Errorf("a power cut took what was acknowledged: %v: %w", t, t.First)
	case t.Fired != t.Rounds || t.Rounds == 0:
		return fmt.Errorf("only %d of %d cuts took anything: %v", t.Fired, t.Rounds, t)
	case t.Acked < 10*t.Rounds:
		return fmt.Errorf("there was too little to lose: %v", t)
	}
	return nil
}

// life is after how many cuts a disk is replaced by an empty one: a store must
// survive on what an earlier cut left, too.
const life = 5

// patience is how long a round may take to reach its moment.
const patience = time.Minute

// Rounds cuts the power of a store n times: at moments that seed chooses, every
// second time with half of the pages kept.
func Rounds(t testing.TB, seed uint64, n int, fresh func() Store) Tally {
	t.Helper()
	var tally Tally
	var s Store
	var d *Disk
	for round := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		if round%life == 0 || s == nil {
			s, d = fresh(), New("-shm", ".lock", "-mark")
		}
		mode := Drop
		if round%2 == 1 {
			mode = Torn
		}
		verdict, loss, err := cutOnce(t, s, d, mode, round, rng, &tally)
		if err != nil {
			t.Fatalf("round %d (seed %d): %v", round, seed, err)
		}
		tally.add(loss, verdict)
		if !verdict.ok() {
			if tally.First == nil {
				tally.First = fmt.Errorf("round %d, seed %d, %s: lost %d, ghosts %d: %w", round, seed, mode, verdict.Lost, verdict.Ghost, verdict.Err)
			}
			s = nil // the next round begins anew
		}
	}
	return tally
}

func (t *Tally) add(loss Loss, v Verdict) {
	if t.Rounds == 0 || loss.Pages < t.DroppedMin {
		t.DroppedMin = loss.Pages
	}
	t.Rounds++
	if loss.Pages > 0 {
		t.Fired++
	}
	t.Dropped += loss.Pages
	t.Names += loss.Names
	t.Lost += v.Lost
	t.Ghost += v.Ghost
	if v.Err != nil {
		t.Broken++
	}
	if !v.ok() {
		t.Lossy++
	}
}

// cutOnce is one round. Its error is one of the rig, not of the store.
func cutOnce(t testing.TB, s Store, d *Disk, mode Mode, round int, rng *rand.Rand, tally *Tally) (v Verdict, loss Loss, err error) {
	err = d.mounted(func(dir string) error {
		before, extra := s.Acked(), rng.IntN(300)
		if err := s.Start(dir, round, rng); err != nil {
			return err
		}
		if err := await(func() bool { return s.Acked() >= before+20+extra }); err != nil {
			return errors.Join(fmt.Errorf("the load does not get on: %w", err), s.Kill(d.Release))
		}
		var moment Event
		d.Arm(d.moments(rng, &moment))
		select {
		case <-d.Dead():
		case <-time.After(patience):
			d.PowerOff()
			err = errors.New("the moment of the cut did not come")
		}
		err = errors.Join(err, s.Kill(d.Release))
		tally.Acked += s.Acked() - before
		switch {
		case strings.HasSuffix(moment.Name, ".db"):
			tally.Checkpoint++
		case moment.Op == OpSync:
			tally.AtSync++
		default:
			tally.AtWrite++
		}
		return err
	})
	if err != nil {
		return v, loss, err
	}
	loss = d.Cut(mode, rng)
	if v = s.CheckFiles(d); !v.ok() {
		return v, loss, nil
	}
	err = d.mounted(func(dir string) error {
		v = s.CheckOpen(dir)
		return nil
	})
	return v, loss, err
}

// overdue is after how many writes the cut comes in any case: a store that breaks
// its promise may never ask for a sync.
const overdue = 5000

// await polls until cond holds.
func await(cond func() bool) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("not within %v", patience)
		}
	}
	return nil
}

// moments chooses when the cut comes: with a commit half written, just before
// it is durable, or in the middle of a checkpoint, after some more of the same.
// At each there is at least one page to lose: a checkpoint may write what is
// there already.
func (d *Disk) moments(rng *rand.Rand, chosen *Event) func(Event) bool {
	kinds := []struct {
		op     Op
		suffix string
		more   int
	}{
		{OpSync, "-wal", 40},
		{OpWrite, "-wal", 300},
		{OpWrite, ".db", 60},
		{OpSync, ".db", 1},
	}
	k := kinds[rng.IntN(len(kinds))]
	skip, writes := rng.IntN(k.more), 0
	return func(ev Event) bool {
		if ev.Op == OpWrite {
			writes++
		}
		if ev.Op == k.op && strings.HasSuffix(ev.Name, k.suffix) {
			skip--
		}
		if skip >= 0 && writes < overdue || d.dirty(d.root) == 0 {
			return false
		}
		*chosen = ev
		return true
	}
}
