package lossyfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// Starts is what cuts during a store's first start came to.
type Starts struct {
	Moments, Fired int // Fired: the cut took pages or names
	Refused        int // the store did not open, or has what nobody put there
	First          error
}

func (s Starts) String() string {
	return fmt.Sprintf("moments=%d fired=%d refused=%d", s.Moments, s.Fired, s.Refused)
}

// Failure says why the cuts do not show that a start can be cut off anywhere.
func (s Starts) Failure() error {
	switch {
	case s.Refused > 0:
		return fmt.Errorf("after a power cut during its first start a store does not open: %v: %w", s, s.First)
	case s.Moments < 10 || s.Fired*2 < s.Moments:
		return fmt.Errorf("the cuts took too little: %v", s)
	}
	return nil
}

// CutStarts lets a store open an empty disk, cuts the power at each request of
// that (at every step-th, to be quick), once with nothing left of what was not
// synced and a few times with half of it, and opens what is left.
func CutStarts(t testing.TB, seed uint64, step int, fresh func() Store) (s Starts) {
	t.Helper()
	var moments []*Disk
	d := New("-shm", ".lock", "-mark")
	requests := 0
	d.Arm(func(Event) bool {
		if requests++; requests%step == 0 {
			moments = append(moments, d.clone())
		}
		return false
	})
	store := fresh()
	if v := openOn(t, d, store); !v.ok() {
		t.Fatalf("the first start failed without a cut: %+v", v)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for i, at := range moments {
		for _, mode := range []Mode{Drop, Torn, Torn, Torn} {
			disk := at.Clone()
			loss := disk.Cut(mode, rng)
			s.Moments++
			if loss != (Loss{}) {
				s.Fired++
			}
			if v := openOn(t, disk, store); !v.ok() {
				s.Refused++
				if s.First == nil {
					s.First = fmt.Errorf("moment %d, %s, seed %d: %w", i, mode, seed, v.Err)
				}
			}
		}
	}
	return s
}

// openOn mounts the disk and lets the store open and close it.
func openOn(t testing.TB, d *Disk, s Store) (v Verdict) {
	t.Helper()
	if err := d.mounted(func(dir string) error { v = s.CheckOpen(dir); return nil }); err != nil {
		t.Fatal(err)
	}
	return v
}

// mounted lends the mounted disk to use.
func (d *Disk) mounted(use func(dir string) error) error {
	dir, err := os.MkdirTemp("", "lossy")
	if err != nil {
		return err
	}
	m, err := d.Mount(dir)
	if err != nil {
		return err
	}
	return errors.Join(use(dir), m.Unmount(), os.Remove(dir))
}
