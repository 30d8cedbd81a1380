package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/meshhost/meshhost/sdk"
)

// at leads a path within a value to its source.
type at func(path []string) hcl.Range

// value encodes v as type t. name is the option's as the user sees it, path what leads to this part of it.
func (e *encoder) value(t sdk.Type, v cty.Value, name string, path []string, where at) (any, bool) {
	switch t.Name {
	case sdk.TypeList:
		return e.list(t, v, name, path, where)
	case sdk.TypeMap:
		return e.mapping(t, v, name, path, where)
	case sdk.TypeObject:
		return e.fields(t, v, name, path, where)
	}
	out, ok := e.scalar(t, v)
	if ok {
		return out, true
	}
	must, next := wanted(t, name)
	if t.Name == sdk.TypePath && v.Type() == cty.String && !v.IsNull() {
		e.r.add(where(path), name+" is no file name", "", next)
		return nil, false
	}
	if sameWords(t.Name, v) { // the type is right, the text is not
		e.r.add(where(path), fmt.Sprintf("%s is not %s", name, must), "", next)
		return nil, false
	}
	e.r.add(where(path), mustBe(name, must, v), "", next)
	return nil, false
}

// sameWords reports a string where a string is read as something else.
func sameWords(t sdk.TypeName, v cty.Value) bool {
	if v.IsNull() || v.Type() != cty.String {
		return v.Type() == cty.Number && !v.IsNull() && t == sdk.TypeBytes
	}
	return t == sdk.TypeDuration || t == sdk.TypeBytes
}

// scalar encodes a value without parts.
func (e *encoder) scalar(t sdk.Type, v cty.Value) (any, bool) {
	switch t.Name {
	case sdk.TypeNumber:
		return number(v)
	case sdk.TypeBool:
		b, ok := toBool(v)
		return b, ok
	case sdk.TypeDuration:
		_, ok := toDuration(v)
		if !ok {
			return nil, false
		}
		return strings.TrimSpace(v.AsString()), true
	case sdk.TypeBytes:
		n, ok := toBytes(v)
		return n, ok
	case sdk.TypePath:
		p, ok := toString(v)
		if !ok || p == "" || strings.ContainsRune(p, 0) {
			return nil, false
		}
		if !filepath.IsAbs(p) {
			p = filepath.Join(e.dataDir, p)
		}
		return filepath.Clean(p), true
	case sdk.TypeSecret:
		s, ok := toString(v)
		if ok {
			e.r.hideWord(s)
		}
		return s, ok
	default:
		s, ok := toString(v)
		return s, ok
	}
}

// number encodes a number so that an integer reads as one.
func number(v cty.Value) (any, bool) {
	if n, ok := toInt(v); ok {
		return n, true
	}
	f, ok := toNumber(v)
	if !ok || f.IsInf() {
		return nil, false
	}
	return jsontext.Value(f.Text('g', -1)), true // 'f' would write out the zeros of 1e999999999
}

// wanted says what a type is called and how a value of it is written.
func wanted(t sdk.Type, name string) (must, next string) {
	switch t.Name {
	case sdk.TypeNumber:
		return "a number", fmt.Sprintf("Write it without quotes, such as %s = 10.", name)
	case sdk.TypeBool:
		return "a bool", fmt.Sprintf("Write %s = true or %s = false.", name, name)
	case sdk.TypeList:
		return "a list", fmt.Sprintf("Write it in brackets, such as %s = [A, B].", name)
	case sdk.TypeMap, sdk.TypeObject:
		return "an object", fmt.Sprintf("Write it in braces, such as %s = { NAME = VALUE }.", name)
	case sdk.TypeDuration:
		return "a duration", fmt.Sprintf("Write a number and a unit in double quotes, such as %s = \"30s\"; units are ns, us, ms, s, m and h.", name)
	case sdk.TypeBytes:
		return "a size", fmt.Sprintf("Write a whole number of bytes, or a number and a unit in double quotes, such as %s = \"1MiB\"; units are B, kB, KiB, MB, MiB, GB, GiB, TB and TiB.", name)
	case sdk.TypePath:
		return "a path", fmt.Sprintf("Write a file name in double quotes, such as %s = \"FILE\"; a relative one starts at the plugin's data directory.", name)
	case sdk.TypeSecret:
		return "a string", fmt.Sprintf("Write a text, best from outside: %s = env(\"NAME\") or file(\"PATH\").", name)
	default:
		return "a string", fmt.Sprintf("Write a text in double quotes, such as %s = \"…\".", name)
	}
}

func (e *encoder) list(t sdk.Type, v cty.Value, name string, path []string, where at) (any, bool) {
	parts, ok := elements(v)
	if !ok {
		must, next := wanted(t, name)
		e.r.add(where(path), mustBe(name, must, v), "", next)
		return nil, false
	}
	out := make([]any, 0, len(parts))
	good := true
	for i, p := range parts {
		step := strconv.Itoa(i)
		x, ok := e.value(*t.Elem, p, fmt.Sprintf("%s[%d]", name, i), join(path, step), where)
		good = good && ok
		out = append(out, x)
	}
	return out, good
}

func (e *encoder) mapping(t sdk.Type, v cty.Value, name string, path []string, where at) (any, bool) {
	keys, vals, ok := members(v)
	if !ok {
		must, next := wanted(t, name)
		e.r.add(where(path), mustBe(name, must, v), "", next)
		return nil, false
	}
	out := make(map[string]any, len(keys))
	good := true
	for i, k := range keys {
		x, ok := e.value(*t.Elem, vals[i], name+"."+k, join(path, k), where)
		good = good && ok
		out[k] = x
	}
	return out, good
}

func (e *encoder) fields(t sdk.Type, v cty.Value, name string, path []string, where at) (any, bool) {
	keys, vals, ok := members(v)
	if !ok {
		must, next := wanted(t, name)
		e.r.add(where(path), mustBe(name, must, v), "", next)
		return nil, false
	}
	var known []string
	for _, f := range t.Fields {
		known = append(known, f.Name)
	}
	good := true
	for _, k := range keys {
		if !slices.Contains(known, k) {
			good = false
			e.r.add(where(join(path, k)), fmt.Sprintf("%s has no field %q", name, k), "", meant(k, known, fmt.Sprintf("Its fields are: %s.", strings.Join(known, ", "))))
		}
	}
	out := map[string]any{}
	for _, f := range t.Fields {
		i := slices.Index(keys, f.Name)
		switch {
		case i >= 0 && !vals[i].IsNull():
			x, ok := e.value(f.Type, vals[i], name+"."+f.Name, join(path, f.Name), where)
			good = good && ok
			out[f.Name] = x
		case len(f.Default) > 0:
			d, err := defaultValue(f)
			if err != nil {
				e.badDefault(where(path), name+"."+f.Name, err)
				good = false
				continue
			}
			x, ok := e.value(f.Type, d, name+"."+f.Name, path, where)
			good = good && ok
			out[f.Name] = x
		case f.Required && good:
			good = false
			e.r.add(where(path), fmt.Sprintf("%s needs the field %q", name, f.Name), "", fmt.Sprintf("Add %s = %s%s.", f.Name, example(f.Type), because(f.Doc)))
		}
	}
	return out, good
}

// join is path with one more step, in an array of its own.
func join(path []string, step string) []string {
	return append(slices.Clip(path), step)
}

// fallback encodes the default of an option as if the user had written it.
func (e *encoder) fallback(n *node, a sdk.Attribute) (any, bool) {
	v, err := defaultValue(a)
	if err != nil {
		e.badDefault(n.header, a.Name, err)
		return nil, false
	}
	if a.Type.Name == sdk.TypeExpr {
		src, ok := exprSource(v)
		if !ok {
			e.badDefault(n.header, a.Name, fmt.Errorf("it is %s", describe(v)))
			return nil, false
		}
		return e.r.exprObject(src, hcl.Range{}, n.header, a)
	}
	return e.value(a.Type, v, a.Name, nil, func([]string) hcl.Range { return n.header })
}

// exprSource is the source of a default of type expr: an object as it crosses, or the source alone.
func exprSource(v cty.Value) (string, bool) {
	if names, values, ok := members(v); ok {
		i := slices.Index(names, "source")
		if i < 0 {
			return "", false
		}
		v = values[i]
	}
	return toString(v)
}

func (e *encoder) badDefault(rng hcl.Range, name string, err error) {
	e.r.add(rng, fmt.Sprintf("the plugin's own default of %s is broken", name), err.Error()+".", "Tell the author of the plugin, and set the option yourself until then.")
}

// defaultValue reads a default, which is JSON from the plugin.
func defaultValue(a sdk.Attribute) (cty.Value, error) {
	t, err := ctyjson.ImpliedType(a.Default)
	if err != nil {
		return cty.NilVal, fmt.Errorf("read the default: %w", err)
	}
	v, err := ctyjson.Unmarshal(a.Default, t)
	if err != nil {
		return cty.NilVal, fmt.Errorf("read the default: %w", err)
	}
	return v, nil
}
