package lossyfs

import (
	"bytes"
	"maps"
	"slices"
)

// Clone copies the disk as it is at this moment, with what is not durable yet.
// The copy has power, no faults, and nobody uses it.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clone()
}

func (d *Disk) clone() *Disk {
	c := New(d.scratch...)
	c.lastIno = d.lastIno
	c.root = copyOf(d.root, map[*object]*object{})
	return c
}

// copyOf copies an object and what it leads to, each once.
func copyOf(o *object, done map[*object]*object) *object {
	if o == nil || done[o] != nil {
		return done[o]
	}
	c := &object{
		ino: o.ino, name: o.name, mode: o.mode, dir: o.dir, data: bytes.Clone(o.data),
		// Pages in before are replaced, never changed.
		before: maps.Clone(o.before), missed: maps.Clone(o.missed), durable: o.durable,
	}
	done[o] = c
	if o.dir {
		c.entries = make(map[string]*object, len(o.entries))
	}
	for name, e := range o.entries {
		c.entries[name] = copyOf(e, done)
	}
	c.undo = slices.Clone(o.undo)
	for i := range c.undo {
		copyChange(&c.undo[i], done)
	}
	return c
}

func copyChange(ch *change, done map[*object]*object) {
	ch.was = copyOf(ch.was, done)
	if ch.next != nil {
		next := *ch.next
		copyChange(&next, done)
		ch.next = &next
	}
}
