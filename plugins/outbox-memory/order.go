package main

import "sort"

// order is rows in the order of seq. A row that goes leaves an empty place, for
// cutting it out would move all behind it; when half of the places are empty
// they are cut out together.
type order struct {
	places []place
	empty  int
}

type place struct {
	seq int64
	row *row // nil: empty
}

// at is the index of the first place that is not before seq.
func (o *order) at(seq int64) int {
	return sort.Search(len(o.places), func(i int) bool { return o.places[i].seq >= seq })
}

// has reports whether a row has that seq.
func (o *order) has(seq int64) bool {
	i := o.at(seq)
	return i < len(o.places) && o.places[i].seq == seq && o.places[i].row != nil
}

// put gives a row the place of its seq, which no other row has. Nearly always it
// is the last.
func (o *order) put(r *row) {
	n := len(o.places)
	if n == 0 || o.places[n-1].seq < r.seq {
		o.places = append(o.places, place{r.seq, r})
		return
	}
	i := o.at(r.seq)
	if o.places[i].seq == r.seq {
		o.places[i].row = r
		o.empty--
		return
	}
	o.places = append(o.places, place{})
	copy(o.places[i+1:], o.places[i:])
	o.places[i] = place{r.seq, r}
}

// drop empties the place of a row. Nobody may walk the order meanwhile, save by
// seq from one step to the next.
func (o *order) drop(r *row) {
	i := o.at(r.seq)
	if i == len(o.places) || o.places[i].row != r {
		return
	}
	o.places[i].row = nil
	o.empty++
	if o.empty > 64 && o.empty > len(o.places)/2 {
		kept := make([]place, 0, 2*(len(o.places)-o.empty))
		for _, p := range o.places {
			if p.row != nil {
				kept = append(kept, p)
			}
		}
		o.places, o.empty = kept, 0
	}
}

// len counts the rows.
func (o *order) len() int { return len(o.places) - o.empty }

// after calls f with the rows behind seq until it says stop. f may drop the row
// that it has got.
func (o *order) after(seq int64, f func(*row) bool) {
	for i := o.at(seq + 1); i < len(o.places); {
		r := o.places[i].row
		seq = o.places[i].seq
		before := len(o.places)
		if r != nil && !f(r) {
			return
		}
		if i++; len(o.places) != before { // places were cut out
			i = o.at(seq + 1)
		}
	}
}

// before calls f with the rows in front of seq, the last first, until it says
// stop.
func (o *order) before(seq int64, f func(*row) bool) {
	for i := o.at(seq) - 1; i >= 0; i-- {
		if r := o.places[i].row; r != nil && !f(r) {
			return
		}
	}
}
