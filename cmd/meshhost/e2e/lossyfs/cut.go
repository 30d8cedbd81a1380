package lossyfs

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
)

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
	files := slices.SortedFunc(maps.Keys(c.files), func(a, b *object) int { return int(a.ino) - int(b.ino) })
	gone := c.choose(files)
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

// page is one of a file.
type page struct {
	o *object
	n int64
}

// choose says which of the pages that are not durable go: all, or every second
// one, of scratch and of the other files apart.
func (c *cut) choose(files []*object) map[page]bool {
	var pages, scratch []page
	for _, o := range files {
		for _, n := range slices.Sorted(maps.Keys(o.before)) {
			switch {
			case bytes.Equal(o.page(n), o.before[n]):
			case c.disk.isScratch(o.name):
				scratch = append(scratch, page{o, n})
			default:
				pages = append(pages, page{o, n})
			}
		}
	}
	gone := make(map[page]bool, len(pages)+len(scratch))
	for _, list := range [][]page{pages, scratch} {
		c.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for i, p := range list {
			gone[p] = c.mode == Drop || i >= len(list)/2 || p.o.missed[p.n]
		}
	}
	return gone
}
