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
	return cl.Events(ctx, []string{c.method.CLI.Stream}, c.mesh, first, c.a.printEvent)
}

// followRows prints the rows that are there and then those that come. It reads
// events before it asks the first time, so nothing falls between. An event only
// says that asking is worth while: lost events (a "dropped" comes in their
// place) lose no row.
func (c *call) followRows(ctx context.Context, cl *control.Client) error {
	f := &follower{call: c, cl: cl, head: true}
	more := func() error { return f.more(ctx) }
	return cl.Events(ctx, []string{c.method.CLI.Follow.Event}, c.mesh, more, func(control.StreamEvent) error { return more() })
}

// follower knows how far the rows were printed.
type follower struct {
	call *call
	cl   *control.Client
	head bool           // the line of column names is still to come
	last jsontext.Value // the greatest key seen
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

// ask returns new rows, oldest first, whatever the order of the list is: keys
// rise with time.
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
	type keyed struct{ key, row jsontext.Value }
	var fresh []keyed
	for _, row := range elements(field(ms, hints.Rows)) {
		rm, err := members(row)
		if err != nil {
			return nil, err
		}
		key := field(rm, hints.Follow.Key)
		if key == nil {
			return nil, fmt.Errorf("%s %s: a row of the plugin's result has no %q to follow by", f.call.feature, f.call.method.Name, hints.Follow.Key)
		}
		if f.last == nil || compareKeys(key, f.last) > 0 {
			fresh = append(fresh, keyed{key, row})
		}
	}
	slices.SortStableFunc(fresh, func(a, b keyed) int { return compareKeys(a.key, b.key) })
	rows := make([]jsontext.Value, 0, len(fresh))
	for _, k := range fresh {
		rows = append(rows, k.row)
		f.last = k.key
	}
	return rows, nil
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
