package lossyfs

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Fault makes requests fail, or slow.
type Fault struct {
	// Ops and Suffix choose the requests: of these kinds, to names that end so.
	// Empty chooses all.
	Ops    []Op
	Suffix string
	// Grows chooses only writes that make the file longer.
	Grows bool
	// Err is the answer; a sync that fails has lost its pages. 0: the request is
	// carried out.
	Err syscall.Errno
	// Delay is how long the answer takes.
	Delay time.Duration

	fired atomic.Int64
}

// The faults that every program meets one day.

// NoSpace is a full disk: nothing grows and no name comes.
func NoSpace() *Fault {
	return &Fault{Ops: []Op{OpWrite, OpCreate}, Grows: true, Err: syscall.ENOSPC}
}

// WriteError is a disk that takes nothing.
func WriteError() *Fault { return &Fault{Ops: []Op{OpWrite}, Err: syscall.EIO} }

// SyncError is a disk that takes everything and keeps nothing.
func SyncError() *Fault { return &Fault{Ops: []Op{OpSync}, Err: syscall.EIO} }

// SlowSync is a disk that takes its time.
func SlowSync(delay time.Duration) *Fault {
	return &Fault{Ops: []Op{OpSync, OpSyncDir}, Delay: delay}
}

// ReadOnly is a mount that was made read-only, as the kernel does after errors.
func ReadOnly() *Fault {
	return &Fault{Ops: []Op{OpWrite, OpTruncate, OpCreate, OpRemove, OpRename}, Err: syscall.EROFS}
}

// Fired is how many requests the fault has hit.
func (f *Fault) Fired() int64 { return f.fired.Load() }

// Inject lets faults begin; those that were there end.
func (d *Disk) Inject(faults ...*Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = slices.Clone(faults)
}

func (f *Fault) hits(ev Event, grows bool) bool {
	return (len(f.Ops) == 0 || slices.Contains(f.Ops, ev.Op)) && strings.HasSuffix(ev.Name, f.Suffix) &&
		(!f.Grows || grows || ev.Op != OpWrite)
}

// disturb applies the faults that are set for a request. grows says of a write
// that the file becomes longer. The disk is locked, at the end as well.
func (d *Disk) disturb(ev Event, grows bool) syscall.Errno {
	for _, f := range d.faults {
		if !f.hits(ev, grows) {
			continue
		}
		f.fired.Add(1)
		if f.Delay > 0 {
			if errno := d.wait(f.Delay); errno != 0 {
				return errno
			}
		}
		if f.Err != 0 {
			return f.Err
		}
	}
	return 0
}

// wait unlocks for a while; a cut in between hangs the request.
func (d *Disk) wait(delay time.Duration) syscall.Errno {
	dead := d.dead
	d.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-dead:
	}
	return d.enter()
}
