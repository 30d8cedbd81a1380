package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/control"
)

// stream calls the method once, prints its result, and then every event of the
// declared kind, one JSON object a line.
func (c *call) stream(ctx context.Context, cl *control.Client) error {
	first := func() error {
		res, err := c.ask(ctx, cl, nil)
		if err != nil {
			return err
		}
		return c.a.emit(c.schema(), "", res)
	}
	return cl.Events(ctx, []string{c.feature + "." + c.method.CLI.Stream}, c.mesh, first, c.a.printEvent)
}

// followRows prints the rows that are there and then those that come. It reads
// events before it asks the first time, so nothing falls between. An event only
// says that asking is worth while: lost events (a "dropped" comes in their
// place) lose no row.
func (c *call) followRows(ctx context.Context, cl *control.Client) error {
	f := &follower{call: c, cl: cl, head: true}
	more := func() error { return f.more(ctx) }
	return cl.Events(ctx, []string{c.feature + "." + c.method.CLI.Follow.Event}, c.mesh, more, func(control.StreamEvent) error { return more() })
}

// follower knows how far the rows were printed.
type follower struct {
	call *call
	cl   *control.Client
	head bool           // the line of column names is still to come
	last jsontext.Value // the key of the newest row seen
	// seen are the keys of the answer before: a list that takes its cursor
	// inclusively, or not at all, must not repeat itself for ever.
	seen map[string]bool
}

// more asks for rows behind the last one until an answer brings none.
func (f *follower) more(ctx context.Context) error {
	for {
		fresh, err := f.ask(ctx)
		if err != nil || len(fresh) == 0 {
			return err
		}
		if err := f.print(fresh); err != nil {
			return err
		}
	}
}

// ask returns new rows, oldest first. An answer with a cursor is in that order
// already; the first one may be newest first, which its keys show.
func (f *follower) ask(ctx context.Context) ([]jsontext.Value, error) {
	hints := &f.call.method.CLI
	var extra map[string]jsontext.Value
	if f.last != nil {
		extra = map[string]jsontext.Value{hints.Follow.Cursor: f.last}
	}
	res, err := f.call.ask(ctx, f.cl, extra)
	if err != nil {
		return nil, err
	}
	ms, err := members(res)
	if err != nil {
		return nil, fmt.Errorf("%s %s: the plugin's result: %w", f.call.feature, f.call.method.Name, err)
	}
	rows := elements(field(ms, hints.Rows))
	keys := make([]jsontext.Value, len(rows))
	for i, row := range rows {
		rm, err := members(row)
		if err != nil {
			return nil, fmt.Errorf("%s %s: row %d of the plugin's result: %w", f.call.feature, f.call.method.Name, i, err)
		}
		if keys[i] = field(rm, hints.Follow.Key); keys[i] == nil {
			return nil, fmt.Errorf("%s %s: row %d of the plugin's result has no %q to follow by", f.call.feature, f.call.method.Name, i, hints.Follow.Key)
		}
	}
	if n := len(keys); n > 1 && f.last == nil && compareKeys(keys[0], keys[n-1]) > 0 {
		slices.Reverse(rows)
		slices.Reverse(keys)
	}
	return f.fresh(rows, keys), nil
}

// fresh leaves out what the answer before had, and moves on.
func (f *follower) fresh(rows, keys []jsontext.Value) []jsontext.Value {
	var fresh []jsontext.Value
	seen := make(map[string]bool, len(keys))
	for i, key := range keys {
		seen[string(key)] = true
		if !f.seen[string(key)] {
			fresh = append(fresh, rows[i])
			f.last = key
		}
	}
	if len(fresh) > 0 {
		f.seen = seen
	}
	return fresh
}

// print shows rows: a table, or with -json one object for each answer, a line
// each.
func (f *follower) print(rows []jsontext.Value) error {
	c := f.call
	if c.a.json.on {
		list := append([]byte{'['}, bytes.Join(asBytes(rows), []byte{','})...)
		return c.a.emit(c.schema(), c.method.CLI.Rows, appendValue([]member{{c.method.CLI.Rows, append(list, ']')}}))
	}
	err := c.table(rows, f.head)
	f.head = false
	return err
}

func asBytes(rows []jsontext.Value) [][]byte {
	out := make([][]byte, len(rows))
	for i, r := range rows {
		out[i] = r
	}
	return out
}

// compareKeys orders numbers by value and texts (times, UUIDv7) as they are.
func compareKeys(a, b jsontext.Value) int {
	if a.Kind() == jsontext.KindNumber && b.Kind() == jsontext.KindNumber {
		x, errX := strconv.ParseInt(string(a), 10, 64)
		y, errY := strconv.ParseInt(string(b), 10, 64)
		if errX == nil && errY == nil {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(cell(a), cell(b))
}
