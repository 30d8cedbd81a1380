package lossyfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// enough is how many operations a store does before a fault and after it, and
// how often a fault must hit.
const enough = 50

// Faults lets each fault of a disk come over a loaded store and pass again: what
// is answered meanwhile is an error or true, the same process goes on once the
// fault is gone, and a power cut afterwards takes nothing that was acknowledged.
func Faults(t *testing.T, name string, fresh func() Store) {
	for _, c := range []struct {
		name  string
		fault *Fault
		slow  bool // not an error
	}{
		{name: "no_space", fault: NoSpace()},
		{name: "write_error", fault: WriteError()},
		{name: "sync_error", fault: SyncError()},
		{name: "slow_sync", fault: SlowSync(100 * time.Millisecond), slow: true},
		{name: "read_only", fault: ReadOnly()},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, s := New("-shm", ".lock", "-mark"), fresh()
			rng := rand.New(rand.NewPCG(1, 1))
			var acked, failed int
			err := d.mounted(func(dir string) error {
				if err := s.Start(dir, 0, rng); err != nil {
					return err
				}
				done := func(n int) func() bool { return func() bool { return s.Acked() >= n } }
				hit := func() bool { return s.Failed() >= enough }
				err := await(done(enough))
				d.Inject(c.fault)
				acked = s.Acked()
				if c.slow {
					hit = done(acked + enough)
				}
				err = errors.Join(err, await(hit))
				failed = s.Failed()
				d.Inject()
				acked = s.Acked()
				if err = errors.Join(err, await(done(acked+enough))); err != nil {
					err = fmt.Errorf("acked %d, failed %d, fired %d: %w", s.Acked(), s.Failed(), c.fault.Fired(), err)
				}
				d.PowerOff()
				return errors.Join(err, s.Kill(d.Release))
			})
			if err != nil {
				t.Fatal(err)
			}
			loss := d.Cut(Drop, rng)
			v := s.CheckFiles(d)
			if v.ok() {
				v = openOn(t, d, s)
			}
			fmt.Printf("RESULT disk_fault store=%s fault=%s fired=%d errors=%d acked=%d restarts=0 dropped_pages=%d lost=%d ghost=%d\n",
				name, c.name, c.fault.Fired(), failed, s.Acked(), loss.Pages, v.Lost, v.Ghost)
			if !v.ok() || c.fault.Fired() == 0 || failed == 0 && !c.slow {
				t.Errorf("after the fault: %+v", v)
			}
		})
	}
}
