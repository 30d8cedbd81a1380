package lossyfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// PageSize is the unit in which content is lost, in bytes.
const PageSize = 4096

// Op is a kind of request that changes the disk or makes changes durable.
type Op string

// The kinds of requests.
const (
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpCreate   Op = "create" // a file or a directory
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpSyncDir  Op = "syncdir"
)

// Event is one request.
type Event struct {
	Op   Op
	Name string // of the file or directory, without its path
}

// Disk is a tree of files. Its methods may be called concurrently.
type Disk struct {
	mu       sync.Mutex
	root     *object
	lastIno  uint64
	watch    func(Event) bool
	dead     chan struct{} // closed by the cut
	released chan struct{} // closed by Release
	off      bool          // dead is closed
	faults   []*Fault
	scratch  []string
}

// New makes an empty disk. The content of files whose names end in one of
// scratch is lost like any other but not counted: nobody relies on it.
func New(scratch ...string) *Disk {
	d := &Disk{scratch: scratch, dead: make(chan struct{}), released: make(chan struct{})}
	d.root = d.object("", true, 0o755)
	return d
}

// object is a file or a directory.
type object struct {
	ino  uint64
	name string // the last one, for events
	mode uint32 // permissions
	dir  bool

	data []byte
	// before holds the durable content of each page that is not durable as it
	// is now; nil for a page that lies behind the durable size.
	before map[int64][]byte
	// missed are pages whose sync failed: in before, and no later sync saves
	// them unless they are written again.
	missed  map[int64]bool
	durable int64 // size

	entries map[string]*object
	undo    []change // since the last sync of the directory
}

// change is one of a directory: name led to was, nil for nothing.
type change struct {
	name string
	was  *object
	next *change // done together with it, as the two names of a rename
}

func (d *Disk) object(name string, dir bool, mode uint32) *object {
	d.lastIno++
	o := &object{ino: d.lastIno, name: name, dir: dir, mode: mode, before: map[int64][]byte{}, missed: map[int64]bool{}}
	if dir {
		o.entries = map[string]*object{}
	}
	return o
}

// Arm names the moment of the cut: watch is called with each request, after it
// was carried out, or before, where it makes something durable, and the first
// true is the moment. It runs under the disk's lock and must not call it.
func (d *Disk) Arm(watch func(Event) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = watch
}

// Dead is closed at the moment of the cut.
func (d *Disk) Dead() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// PowerOff is the moment of the cut if it has not come by itself.
func (d *Disk) PowerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.powerOff()
}

func (d *Disk) powerOff() {
	if !d.off {
		d.off = true
		close(d.dead)
	}
}

// Release lets go of the requests that hang, with EIO, and of all that come.
// Whoever asked must have been killed before.
func (d *Disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.released:
	default:
		close(d.released)
	}
}

// enter locks the disk for a request, which hangs without power.
func (d *Disk) enter() syscall.Errno {
	d.mu.Lock()
	if !d.off {
		return 0
	}
	return d.hang()
}

// hang unlocks, waits for Release and locks again.
func (d *Disk) hang() syscall.Errno {
	released := d.released
	d.mu.Unlock()
	<-released
	d.mu.Lock()
	return syscall.EIO
}

// request is what processes ask of the disk.
type request struct {
	Event
	target *object // of a write, a truncate or a sync
	end    int64   // of a write, in bytes
	act    func() syscall.Errno
}

// request carries out one request: with the faults that are set for it, and
// with the cut if this is its moment.
func (d *Disk) request(r request) syscall.Errno {
	errno := d.enter()
	defer d.mu.Unlock()
	if errno != 0 {
		return errno
	}
	grows := r.target != nil && r.end > int64(len(r.target.data))
	if errno := d.disturb(r.Event, grows); errno != 0 {
		if r.Op == OpSync && !d.off {
			r.target.miss()
		}
		return errno
	}
	late := r.Op != OpSync && r.Op != OpSyncDir
	if late {
		if errno := r.act(); errno != 0 {
			return errno
		}
	}
	if d.watch != nil && d.watch(r.Event) {
		d.watch = nil
		d.powerOff()
		return d.hang()
	}
	if late {
		return 0
	}
	return r.act()
}

func (d *Disk) isScratch(name string) bool {
	return slices.ContainsFunc(d.scratch, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// page is the content of a page, short at the end of the file.
func (o *object) page(n int64) []byte { return pageOf(o.data, n) }

func pageOf(data []byte, n int64) []byte {
	size := int64(len(data))
	if n*PageSize >= size {
		return nil
	}
	return data[n*PageSize : min((n+1)*PageSize, size)]
}

// dirty remembers the durable content of the pages from..to (bytes) before they
// change.
func (o *object) dirty(from, to int64) {
	for n := from / PageSize; n*PageSize < to; n++ {
		delete(o.missed, n)
		if _, ok := o.before[n]; ok {
			continue
		}
		// Not dirty, so what is there now is durable, up to the durable size.
		was := o.page(n)
		if end := o.durable - n*PageSize; end <= 0 {
			was = nil
		} else if int64(len(was)) > end {
			was = was[:end]
		}
		o.before[n] = bytes.Clone(was)
	}
}

func (o *object) write(p []byte, off int64) {
	end := off + int64(len(p))
	size := int64(len(o.data))
	o.dirty(min(off, size), end)
	if end > size {
		o.data = append(o.data, make([]byte, end-size)...)
	}
	copy(o.data[off:], p)
}

func (o *object) truncate(size int64) {
	have := int64(len(o.data))
	switch {
	case size < have:
		o.dirty(size, have)
		clear(o.data[size:])
		o.data = o.data[:size]
	case size > have:
		o.dirty(have, size)
		o.data = append(o.data, make([]byte, size-have)...)
	}
}

// sync makes the content durable, but for the pages that an earlier sync failed
// to write.
func (o *object) sync() {
	for n := range o.before {
		if !o.missed[n] {
			delete(o.before, n)
		}
	}
	o.durable = int64(len(o.data))
}

// miss is a sync that fails: the kernel takes the pages for clean.
func (o *object) miss() {
	for n := range o.before {
		o.missed[n] = true
	}
}

func (o *object) syncDir() { o.undo = nil }

// find walks a path from the root.
func (d *Disk) find(name string) (*object, error) {
	o := d.root
	for _, part := range strings.Split(path.Clean("/" + name)[1:], "/") {
		if part == "" {
			continue
		}
		next := o.entries[part]
		if next == nil {
			return nil, fmt.Errorf("lossyfs: %s: %w", name, fs.ErrNotExist)
		}
		o = next
	}
	return o, nil
}

// ReadFile returns a file as processes see it now; after Cut, what survived.
func (d *Disk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, err := d.find(name)
	if err != nil {
		return nil, err
	}
	if o.dir {
		return nil, errors.New("lossyfs: " + name + " is a directory")
	}
	return bytes.Clone(o.data), nil
}

// dirty counts the pages below o that a cut at this moment would take.
func (d *Disk) dirty(o *object) (n int) {
	for _, e := range o.entries {
		n += d.dirty(e)
	}
	if d.isScratch(o.name) {
		return n
	}
	for page, was := range o.before {
		if !bytes.Equal(o.page(page), was) {
			n++
		}
	}
	return n
}
