package lossyfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
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

// Mode says what a power cut leaves of what was not synced.
type Mode string

// The modes of a cut.
const (
	Drop Mode = "drop" // nothing
	Torn Mode = "torn" // half of the pages, some of the sizes and names
)

// Loss is what a cut took.
type Loss struct {
	Pages int // that differ from what was written last
	Names int // changes of directories that are undone
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

// Cut forgets what was not synced and gives power again. Nothing may be mounted.
func (d *Disk) Cut(mode Mode, rng *rand.Rand) Loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	var loss Loss
	c := cut{disk: d, mode: mode, rng: rng, loss: &loss, files: map[*object]bool{}}
	before := map[*object]bool{}
	reach(d.root, before)
	c.names(d.root, map[*object]bool{})
	for o := range before {
		if !c.files[o] && !d.isScratch(o.name) {
			loss.Pages += (len(o.data) + PageSize - 1) / PageSize // its name is gone
		}
	}
	c.content()
	d.watch, d.off, d.faults = nil, false, nil
	d.dead, d.released = make(chan struct{}), make(chan struct{})
	return loss
}

// reach collects the files below a directory.
func reach(dir *object, files map[*object]bool) {
	for _, o := range dir.entries {
		if o.dir {
			reach(o, files)
		} else {
			files[o] = true
		}
	}
}

// cut is one power cut under way.
type cut struct {
	disk  *Disk
	mode  Mode
	rng   *rand.Rand
	loss  *Loss
	files map[*object]bool // that survive
}

// names undoes changes of directories: all, or the last ones, for a directory
// is a journal that lost its end.
func (c *cut) names(dir *object, seen map[*object]bool) {
	if seen[dir] {
		return
	}
	seen[dir] = true
	keep := 0
	if c.mode == Torn {
		keep = c.rng.IntN(len(dir.undo) + 1)
	}
	for len(dir.undo) > keep {
		last := &dir.undo[len(dir.undo)-1]
		for ch := last; ch != nil; ch = ch.next {
			set(dir.entries, ch.name, ch.was)
		}
		dir.undo = dir.undo[:len(dir.undo)-1]
		c.loss.Names++
	}
	dir.undo = nil
	for _, name := range slices.Sorted(maps.Keys(dir.entries)) {
		o := dir.entries[name]
		o.name = name
		if o.dir {
			c.names(o, seen)
		} else {
			c.files[o] = true
		}
	}
}

func set(entries map[string]*object, name string, o *object) {
	if o == nil {
		delete(entries, name)
		return
	}
	entries[name] = o
}

// content puts pages and sizes back.
func (c *cut) content() {
	type page struct {
		o *object
		n int64
	}
	files := slices.SortedFunc(maps.Keys(c.files), func(a, b *object) int { return int(a.ino) - int(b.ino) })
	var pages []page
	for _, o := range files {
		for _, n := range slices.Sorted(maps.Keys(o.before)) {
			if !bytes.Equal(o.page(n), o.before[n]) {
				pages = append(pages, page{o, n})
			}
		}
	}
	gone := make(map[page]bool, len(pages))
	c.rng.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
	kept := 0
	if c.mode == Torn {
		kept = len(pages) / 2
	}
	for i, p := range pages {
		gone[p] = i >= kept || p.o.missed[p.n]
	}
	for _, o := range files {
		size := o.durable
		if c.mode == Torn && c.rng.IntN(2) == 0 {
			size = int64(len(o.data))
		}
		after := make([]byte, max(size, int64(len(o.data))))
		copy(after, o.data)
		for n, was := range o.before {
			cutOff := n*PageSize >= int64(len(o.data))
			if gone[page{o, n}] || cutOff {
				clear(after[min(n*PageSize, int64(len(after))):min((n+1)*PageSize, int64(len(after)))])
				copy(after[min(n*PageSize, int64(len(after))):], was)
			}
		}
		after = after[:size]
		for n, was := range o.before {
			if now := o.page(n); !bytes.Equal(now, was) && !bytes.Equal(now, pageOf(after, n)) && !c.disk.isScratch(o.name) {
				c.loss.Pages++
			}
		}
		o.data, o.durable = after, size
		o.before, o.missed = map[int64][]byte{}, map[int64]bool{}
	}
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
