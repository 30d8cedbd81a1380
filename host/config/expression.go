package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/meshhost/meshhost/sdk"
)

// expression encodes an option of type expr: it is not evaluated here, the plugin gets its source and where it stands.
func (r *report) expression(expr hcl.Expression, a sdk.Attribute) (any, bool) {
	rng := expr.Range()
	if !isJSON(rng.Filename) {
		return r.exprObject(r.text(rng), rng, rng, a)
	}
	v, diags := expr.Value(nil) // the text of a JSON string as it is, without looking for templates
	if diags.HasErrors() || !usable(v) {
		r.add(rng, a.Name+" is no expression", "", "Write the expression in double quotes.")
		return nil, false
	}
	src, ok := toString(v)
	if !ok {
		r.add(rng, mustBe(a.Name, "an expression", v), "", "Write the expression in double quotes.")
		return nil, false
	}
	return r.exprObject(src, rng, rng, a)
}

// exprObject checks the variables of an expression and makes what crosses: {source, file, line, column, variables}.
// Complaints are about the range about; a default has no place of its own.
func (r *report) exprObject(src string, place, about hcl.Range, a sdk.Attribute) (any, bool) {
	if what := excessIn(src); what != "" {
		r.add(about, a.Name+": "+what, "", "Write it flatter.")
		return nil, false
	}
	start := place.Start
	if start.Line == 0 {
		start = hcl.InitialPos
	}
	parsed, diags := hclsyntax.ParseExpression([]byte(src), place.Filename, start)
	if diags.HasErrors() {
		d := diags[0]
		r.add(about, a.Name+" is no expression: "+lowerFirst(d.Summary), d.Detail, "Correct the expression, then run meshhost validate again.")
		return nil, false
	}
	var used []string
	good := true
	for _, t := range parsed.Variables() {
		root := t.RootName()
		if !slices.Contains(a.Type.Variables, root) {
			rng := t.SourceRange()
			if isJSON(about.Filename) || place.Filename == "" {
				rng = about
			}
			otherwise := "It has no variables."
			if len(a.Type.Variables) > 0 {
				otherwise = fmt.Sprintf("Its variables are: %s.", strings.Join(a.Type.Variables, ", "))
			}
			r.add(rng, fmt.Sprintf("%s has no variable %q", a.Name, root), "", meant(root, a.Type.Variables, otherwise))
			good = false
			continue
		}
		if !slices.Contains(used, root) {
			used = append(used, root)
		}
	}
	slices.Sort(used)
	if used == nil {
		used = []string{}
	}
	return map[string]any{
		"source": src, "file": place.Filename, "line": place.Start.Line, "column": place.Start.Column, "variables": used,
	}, good
}

// excessIn is the nesting check for an expression that didn't stand in a file as such.
func excessIn(src string) string {
	_, what := tooDeep("", []byte(src))
	return what
}

// trimStop drops a full stop at the end, where a sentence goes on.
func trimStop(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), ".") }
