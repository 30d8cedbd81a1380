package config

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/meshhost/meshhost/sdk"
)

// DecodePlugin checks the config block of a use against the plugin's schema and returns the values as they cross to the
// plugin: a JSON object with defaults filled in, optional options without a default left out, durations as they are
// written, sizes as numbers of bytes, paths absolute (a relative one starts at [Use.DataDir]), secrets in the clear. The
// result must not be logged. Without a config block the body is empty. The value is nil if the diagnostics have errors.
func (u *Use) DecodePlugin(schema sdk.Schema) (jsontext.Value, Diagnostics) {
	r := newReport(u.at.src)
	value := r.decodeUse(u, schema)
	if r.failed() {
		return nil, r.done()
	}
	out, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		r.add(u.conf.rng, "the options can't be encoded", err.Error(), "Write them as plain values.")
		return nil, r.done()
	}
	return out, r.done()
}

// MapDiagnostics leads what the plugin said of its configuration back to the source: the path's value, or the n-th nested
// block, or the header of the innermost block that is there. Secrets are taken out of the plugin's words.
func (u *Use) MapDiagnostics(schema sdk.Schema, from sdk.Diagnostics) Diagnostics {
	scratch := newReport(u.at.src)
	var root *node
	if checkSchema(schema, 0) == nil {
		scratch.decodeUse(u, schema) // for the secrets
		root = scratch.tree(u.title(), u.body, u.conf.rng, schema)
	}
	r := newReport(u.at.src)
	r.words = scratch.words
	for _, d := range from {
		rng := u.conf.rng
		if root != nil {
			rng = root.locate(d.Path)
		}
		summary := trimStop(d.Summary)
		if summary == "" {
			summary = fmt.Sprintf("%s refuses its configuration", u.title())
		}
		next := d.Detail
		if next == "" {
			next = "Correct this, then run meshhost validate again."
		}
		severity := sdk.SeverityError
		if d.Severity == sdk.SeverityWarning {
			severity = sdk.SeverityWarning
		}
		r.put(severity, rng, summary, "", next)
	}
	return r.done()
}

// title names the use as it stands in the file.
func (u *Use) title() string { return fmt.Sprintf("%s %q", u.Kind, u.Label) }

// decodeUse decodes the body of a use to a value that json can write.
func (r *report) decodeUse(u *Use, schema sdk.Schema) map[string]any {
	if err := checkSchema(schema, 0); err != nil {
		r.add(u.at.rng, fmt.Sprintf("the plugin of %s describes its options wrongly", u.title()), err.Error()+".", "Tell the author of the plugin.")
		return nil
	}
	n := r.tree(u.title(), u.body, u.conf.rng, schema)
	v, diags := hcldec.Decode(u.body, spec(schema), scope(r.src.dirs[u.conf.rng.Filename]))
	for _, d := range diags {
		if !named(d) && !r.saidAt(subject(d)) {
			r.eval(d)
		}
	}
	e := &encoder{r: r, dataDir: u.DataDir}
	return e.object(n, v)
}

// saidAt reports whether something was said of this very place.
func (r *report) saidAt(rng hcl.Range) bool {
	return slices.ContainsFunc(r.found, func(f finding) bool { return f.rng.Filename == rng.Filename && f.rng.Start == rng.Start })
}

// named reports a complaint about names, which [report.tree] has made in better words.
func named(d *hcl.Diagnostic) bool {
	switch d.Summary {
	case "Unsupported argument", "Unsupported block type", "Extraneous JSON object property":
		return true
	}
	return len(d.Summary) > 10 && d.Summary[:10] == "Duplicate "
}

// encoder turns decoded values into what crosses to the plugin. This is the only place where a secret's mark comes off.
type encoder struct {
	r       *report
	dataDir string
}

// object encodes the value of one block.
func (e *encoder) object(n *node, v cty.Value) map[string]any {
	v, _ = v.Unmark()
	out := map[string]any{}
	for _, a := range n.schema.Attributes {
		var val cty.Value
		if v.Type().IsObjectType() && !v.IsNull() && v.IsKnown() && v.Type().HasAttribute(a.Name) {
			val = v.GetAttr(a.Name)
		}
		if x, ok := e.attribute(n, a, val); ok {
			out[a.Name] = x
		}
	}
	for _, b := range n.schema.Blocks {
		kids := n.kids[b.Name]
		if len(kids) == 0 {
			if b.Required && !n.guessed[b.Name] {
				e.r.add(n.header, fmt.Sprintf("%s needs a block %s", n.title, b.Name), "", fmt.Sprintf("Add %s { … } to this block%s.", b.Name, because(b.Doc)))
			}
			continue
		}
		vals := e.blockValues(v, b)
		var all []any
		for i, kid := range kids {
			kidVal := cty.NullVal(cty.DynamicPseudoType)
			if i < len(vals) {
				kidVal = vals[i]
			}
			all = append(all, e.object(kid, kidVal))
		}
		if b.Repeat {
			out[b.Name] = all
		} else {
			out[b.Name] = all[0]
		}
	}
	return out
}

// blockValues are the decoded values of the blocks of one name.
func (e *encoder) blockValues(v cty.Value, b sdk.Block) []cty.Value {
	if v.IsNull() || !v.IsKnown() || !v.Type().IsObjectType() || !v.Type().HasAttribute(b.Name) {
		return nil
	}
	val, _ := v.GetAttr(b.Name).Unmark()
	if !b.Repeat {
		return []cty.Value{val}
	}
	vals, _ := elements(val)
	return vals
}

// attribute encodes one option, its default, or reports that it is missing; false: it has no value.
func (e *encoder) attribute(n *node, a sdk.Attribute, v cty.Value) (any, bool) {
	have := n.content.Attributes[a.Name]
	if have != nil && a.Type.Name == sdk.TypeExpr {
		return e.r.expression(have.Expr, a)
	}
	if have != nil && v != cty.NilVal {
		v, _ = v.UnmarkDeep()
		if !v.IsWhollyKnown() { // its expression failed, which is reported
			return nil, false
		}
		if !v.IsNull() {
			at := func(path []string) hcl.Range { return partAt(have.Expr, path) }
			return e.value(a.Type, v, a.Name, nil, at)
		}
	}
	if len(a.Default) > 0 {
		return e.fallback(n, a)
	}
	if a.Required && !n.guessed[a.Name] {
		e.r.add(n.header, fmt.Sprintf("%s needs the option %q", n.title, a.Name), "", fmt.Sprintf("Add %s = %s to this block%s.", a.Name, example(a.Type), because(a.Doc)))
	}
	return nil, false
}

// because appends an option's description.
func because(doc string) string {
	if doc == "" {
		return ""
	}
	return ": " + lowerFirst(trimStop(doc))
}
