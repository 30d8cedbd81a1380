package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// member is one member of a JSON object.
type member struct {
	name  string
	value jsontext.Value
}

// members splits a JSON object, in its order.
func members(obj jsontext.Value) ([]member, error) {
	d := jsontext.NewDecoder(bytes.NewReader(obj))
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() != jsontext.KindBeginObject {
		return nil, fmt.Errorf("not a JSON object but %v", tok.Kind())
	}
	var ms []member
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		m := member{name: name.String()}
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		m.value = v.Clone()
		ms = append(ms, m)
	}
	return ms, nil
}

// field is the value of a member, nil if there is none.
func field(ms []member, name string) jsontext.Value {
	for _, m := range ms {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// elements splits a JSON array; anything else has none.
func elements(array jsontext.Value) []jsontext.Value {
	var vs []jsontext.Value
	if json.Unmarshal(array, &vs) != nil {
		return nil
	}
	return vs
}

// appendObject appends the members as one object.
func appendObject(b []byte, ms []member) []byte {
	b = append(b, '{')
	for i, m := range ms {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = jsontext.AppendQuote(b, m.name) // names came from valid JSON or from us
		b = append(append(b, ':'), m.value...)
	}
	return append(b, '}')
}

// pick returns these fields of an object; one that is not there is null.
func pick(ms []member, fields []string) []member {
	out := make([]member, 0, len(fields))
	for _, f := range fields {
		v := field(ms, f)
		if v == nil {
			v = jsontext.Value("null")
		}
		out = append(out, member{f, v})
	}
	return out
}

// emit prints v, which marshals to an object, as one line of JSON with a
// "schema" in front. Where rows names an array of objects in it, -json=a,b
// selects fields of the rows, otherwise of the object.
func (a *app) emit(schema, rows string, v any) error {
	obj, ok := v.(jsontext.Value)
	if !ok {
		var err error
		if obj, err = json.Marshal(v); err != nil {
			return fmt.Errorf("encode the output: %w", err)
		}
	}
	ms, err := members(obj)
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	ms = slices.DeleteFunc(ms, func(m member) bool { return m.name == "schema" })
	if fields := a.json.fields; len(fields) > 0 {
		if ms, err = choose(ms, rows, fields); err != nil {
			return err
		}
	}
	name, err := json.Marshal(schema)
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	line := appendObject(nil, append([]member{{"schema", name}}, ms...))
	_, err = a.stdout.Write(append(line, '\n'))
	return err
}

func choose(ms []member, rows string, fields []string) ([]member, error) {
	if rows == "" {
		return pick(ms, fields), nil
	}
	for i := range ms {
		if ms[i].name != rows {
			continue
		}
		out := []byte{'['}
		for j, row := range elements(ms[i].value) {
			rm, err := members(row)
			if err != nil {
				return nil, fmt.Errorf("-json=%s: %s[%d]: %w", strings.Join(fields, ","), rows, j, err)
			}
			if j > 0 {
				out = append(out, ',')
			}
			out = appendObject(out, pick(rm, fields))
		}
		ms[i].value = append(out, ']')
	}
	return ms, nil
}

// table prints columns for people.
type table struct {
	w *tabwriter.Writer
}

// newTable begins a table with a line of column names; no names: no line.
func newTable(w io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(columns) > 0 {
		t.row(columns...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.Join(strings.Fields(clean(c)), " ") // a tab or a new line would break the columns
	}
	io.WriteString(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t")+"\n")
}

func (t *table) flush() error { return t.w.Flush() }

// clean takes out control characters: names and texts come from others, and a
// terminal obeys what they may hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// cell shows a JSON value for people.
func cell(v jsontext.Value) string {
	switch v.Kind() {
	case 0, jsontext.KindNull:
		return ""
	case jsontext.KindString:
		var s string
		if json.Unmarshal(v, &s) != nil {
			return string(v)
		}
		return s
	case jsontext.KindBeginArray:
		var parts []string
		for _, e := range elements(v) {
			parts = append(parts, cell(e))
		}
		return strings.Join(parts, ",")
	case jsontext.KindBeginObject:
		if ms, err := members(v); err == nil {
			if name := field(ms, "name"); name.Kind() == jsontext.KindString {
				return cell(name)
			}
		}
	}
	return string(v)
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// color reports whether w may get colours (no-color.org).
func (a *app) color(w io.Writer) bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && terminal(w)
}

// warn prints one line on stderr.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "meshhost: "+format+"\n", args...)
}

// appendValue is an object of these members.
func appendValue(ms []member) jsontext.Value { return appendObject(nil, ms) }
