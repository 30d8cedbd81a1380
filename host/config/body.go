package config

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/sdk"
)

// node is a config block, or one nested in it, beside the part of the schema that describes it.
type node struct {
	*section
	schema sdk.Schema
	kids   map[string][]*node // by block name, in the order written
}

// tree opens a body by a schema: names are checked, values not yet looked at. Values of secret options are hidden.
func (r *report) tree(title string, body hcl.Body, head hcl.Range, schema sdk.Schema) *node {
	sh := shape{options: true}
	for _, a := range schema.Attributes {
		sh.attrs = append(sh.attrs, attr{name: a.Name, example: example(a.Type), doc: a.Doc})
		if holdsSecret(a.Type) {
			sh.secret = append(sh.secret, a.Name)
		}
	}
	for _, b := range schema.Blocks {
		sh.blocks = append(sh.blocks, b.Name)
		if b.Repeat {
			sh.repeat = append(sh.repeat, b.Name)
		}
	}
	n := &node{section: r.open(title, body, head, sh), schema: schema, kids: map[string][]*node{}}
	for _, a := range schema.Attributes {
		if have := n.content.Attributes[a.Name]; have != nil && holdsSecret(a.Type) {
			r.src.hide(have.Expr.Range())
			r.hideLiterals(have.Expr.Range())
		}
	}
	for _, s := range schema.Blocks {
		for _, b := range n.content.Blocks {
			if b.Type == s.Name {
				n.kids[s.Name] = append(n.kids[s.Name], r.tree(s.Name+" of "+title, b.Body, header(b), s.Schema))
			}
		}
	}
	return n
}

// literal finds the texts in quotes.
var literal = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)

// hideLiterals keeps texts that a secret is written with out of every sentence.
func (r *report) hideLiterals(rng hcl.Range) {
	for _, m := range literal.FindAllStringSubmatch(r.text(rng), -1) {
		r.hideWord(m[1])
	}
}

// minSecret is the length from which a text is recognised as a secret in a sentence; shorter ones would tear up words.
const minSecret = 3

// hideWord keeps a secret out of every sentence, as it is, as Go quotes it, and line by line.
func (r *report) hideWord(secret string) {
	quoted := strconv.Quote(secret)
	words := append([]string{secret, quoted[1 : len(quoted)-1]}, strings.Split(secret, "\n")...)
	for _, w := range words {
		if w = strings.TrimSpace(w); len(w) >= minSecret {
			r.words = append(r.words, w)
		}
	}
}

// example is how a value of a type is written.
func example(t sdk.Type) string {
	switch t.Name {
	case sdk.TypeNumber:
		return "10"
	case sdk.TypeBool:
		return "true"
	case sdk.TypeList:
		return "[…]"
	case sdk.TypeMap, sdk.TypeObject:
		return "{ … }"
	case sdk.TypeDuration:
		return `"30s"`
	case sdk.TypeBytes:
		return `"1MiB"`
	case sdk.TypePath:
		return `"FILE"`
	case sdk.TypeSecret:
		return `env("NAME")`
	case sdk.TypeExpr:
		return "EXPRESSION"
	default:
		return `"…"`
	}
}

// partAt follows a path into an expression as far as it is written out.
func partAt(expr hcl.Expression, path []string) hcl.Range {
	for _, step := range path {
		next := part(expr, step)
		if next == nil {
			break
		}
		expr = next
	}
	return expr.Range()
}

// part is the element or field of a list or object expression that step names, or nil.
func part(expr hcl.Expression, step string) hcl.Expression {
	if n, err := strconv.Atoi(step); err == nil {
		if list, diags := hcl.ExprList(expr); !diags.HasErrors() && n >= 0 && n < len(list) {
			return list[n]
		}
	}
	pairs, diags := hcl.ExprMap(expr)
	if diags.HasErrors() {
		return nil
	}
	for _, p := range pairs {
		key := hcl.ExprAsKeyword(p.Key)
		if key == "" {
			if v, diags := p.Key.Value(nil); !diags.HasErrors() && usable(v) {
				key, _ = toString(v)
			}
		}
		if key == step {
			return p.Value
		}
	}
	return nil
}

// locate is the source of what a path names: the value of an attribute, a part of it, the n-th nested block; else the
// header of the innermost block that is there.
func (n *node) locate(path []string) hcl.Range {
	if len(path) == 0 {
		return n.header
	}
	name, rest := path[0], path[1:]
	if a := n.content.Attributes[name]; a != nil {
		return partAt(a.Expr, rest)
	}
	kids := n.kids[name]
	if len(kids) == 0 {
		return n.header
	}
	kid := kids[0]
	if len(rest) > 0 {
		if i, err := strconv.Atoi(rest[0]); err == nil && i >= 0 {
			if i >= len(kids) {
				return n.header
			}
			kid, rest = kids[i], rest[1:]
		}
	}
	return kid.locate(rest)
}
