package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// attr declares an attribute of one of the host's own blocks.
type attr struct {
	name string
	// example is a value as it is written.
	example string
	// doc says what it is, for the message that it is missing.
	doc string
}

// shape declares one of the host's own blocks.
type shape struct {
	attrs  []attr
	blocks []string
	// repeat are the blocks without a label that may stand there more than once.
	repeat []string
	// secret are the attributes whose values are never shown.
	secret []string
	// options says that these are a plugin's, which changes the words.
	options bool
	// stray is the next step for an attribute that is neither known nor like a known one; empty: the known ones are listed.
	stray string
}

func (s shape) names() []string {
	var names []string
	for _, a := range s.attrs {
		names = append(names, a.name)
	}
	return append(names, s.blocks...)
}

func (s shape) schema() *hcl.BodySchema {
	var b hcl.BodySchema
	for _, a := range s.attrs {
		b.Attributes = append(b.Attributes, hcl.AttributeSchema{Name: a.name})
	}
	for _, t := range s.blocks {
		b.Blocks = append(b.Blocks, hcl.BlockHeaderSchema{Type: t})
	}
	return &b
}

func (s shape) attr(name string) attr {
	i := slices.IndexFunc(s.attrs, func(a attr) bool { return a.name == name })
	return s.attrs[i]
}

// section is one block being read: typed access to its attributes, complaints about the rest.
type section struct {
	r       *report
	title   string // mesh "team"
	shape   shape
	header  hcl.Range
	content *hcl.BodyContent
	guessed map[string]bool // attributes that a misspelt one was probably meant to be
}

// open checks the names in a block's body.
func (r *report) open(title string, body hcl.Body, header hcl.Range, sh shape) *section {
	s := &section{r: r, title: title, shape: sh, header: header, guessed: map[string]bool{}}
	content, diags := body.Content(sh.schema())
	s.content = content
	for _, d := range diags {
		s.strange(d)
	}
	s.once()
	return s
}

// strange explains what body.Content refused.
func (s *section) strange(d *hcl.Diagnostic) {
	rng := subject(d)
	name := unquote(s.r.text(rng))
	known := s.shape.names()
	where := " in " + s.title
	if s.title == "" {
		where = ""
	}
	switch d.Summary {
	case "Unsupported argument", "Extraneous JSON object property":
		what := "attribute"
		if s.title == "" && isJSON(rng.Filename) {
			what = "block or attribute"
		}
		if slices.Contains(s.shape.blocks, name) {
			s.r.add(rng, fmt.Sprintf("%s is a block, not an attribute", name), "", fmt.Sprintf("Write %s { … } without the equals sign.", headed(name)))
			return
		}
		guess := suggest(name, known)
		s.guessed[guess] = true
		if slices.Contains(s.shape.secret, guess) { // its misspelt sibling holds one
			s.r.src.hide(s.r.restOfLine(rng))
		}
		summary := fmt.Sprintf("unknown %s %q%s", what, name, where)
		if s.shape.options {
			summary = fmt.Sprintf("%s has no option %q", s.title, name)
		}
		s.r.add(rng, summary, "", meant(name, known, s.otherwise()))
	case "Unsupported block type":
		if slices.ContainsFunc(s.shape.attrs, func(a attr) bool { return a.name == name }) {
			s.guessed[name] = true
			s.r.add(rng, fmt.Sprintf("%s is an attribute, not a block", name), "", fmt.Sprintf("Write %s = %s.", name, s.shape.attr(name).example))
			return
		}
		s.guessed[suggest(name, known)] = true
		summary := fmt.Sprintf("unknown block %q%s", name, where)
		if s.shape.options {
			summary = fmt.Sprintf("%s has no block %q", s.title, name)
		}
		s.r.add(rng, summary, "", meant(name, known, s.otherwise()))
	case "Attribute redefined", "Duplicate argument":
		s.r.add(rng, fmt.Sprintf("%s is set twice%s", name, where), d.Detail, "Remove one of the two.")
	default:
		if typ, ok := strings.CutPrefix(d.Summary, "Extraneous label for "); ok {
			s.r.add(rng, typ+" takes no label", "", fmt.Sprintf("Write %s { … }.", typ))
			return
		}
		s.r.syntax(d)
	}
}

func (s *section) otherwise() string {
	if s.shape.stray != "" {
		return s.shape.stray
	}
	if len(s.shape.names()) == 0 {
		return "Remove it."
	}
	return fmt.Sprintf("What may stand here: %s.", strings.Join(s.shape.names(), ", "))
}

// once refuses a second block of a type that has no label.
func (s *section) once() {
	first := map[string]hcl.Range{}
	s.content.Blocks = slices.DeleteFunc(s.content.Blocks, func(b *hcl.Block) bool {
		if len(b.Labels) > 0 || slices.Contains(s.shape.repeat, b.Type) {
			return false
		}
		at, twice := first[b.Type]
		if twice {
			s.r.add(header(b), fmt.Sprintf("%s is there twice", b.Type), fmt.Sprintf("The first one is at %s.", place{rng: at}), "Put everything into one of them.")
		} else {
			first[b.Type] = header(b)
		}
		return twice
	})
}

// block returns the only block of a type, or nil.
func (s *section) block(typ string) *hcl.Block {
	for _, b := range s.content.Blocks {
		if b.Type == typ {
			return b
		}
	}
	return nil
}

// at is the place of an attribute's value, else of the block's header.
func (s *section) at(name string) hcl.Range {
	if a := s.content.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return s.header
}

// value evaluates an attribute; false: it is not there, null, or wrong and reported.
func (s *section) value(name string) (cty.Value, bool) {
	a := s.content.Attributes[name]
	if a == nil {
		return cty.NilVal, false
	}
	v, ok := s.r.evaluate(a.Expr)
	if !ok {
		s.guessed[name] = true // it is there, if broken
		return cty.NilVal, false
	}
	return v, !v.IsNull()
}

// evaluate gives the value of an expression, or reports why it has none.
func (r *report) evaluate(expr hcl.Expression) (cty.Value, bool) {
	v, diags := expr.Value(scope(r.src.dirs[expr.Range().Filename]))
	for _, d := range diags {
		r.eval(d)
	}
	if diags.HasErrors() {
		return cty.NilVal, false
	}
	if !usable(v) {
		r.add(expr.Range(), "this expression has no value", "", "Write a value.")
		return cty.NilVal, false
	}
	return v, true
}

// wrong reports a value of the wrong type.
func (s *section) wrong(name, must, next string, v cty.Value) {
	s.guessed[name] = true
	s.r.add(s.at(name), mustBe(name, must, v), "", next)
}

// text is a string attribute; empty when absent, and an empty one is as good as absent, since env may give that.
func (s *section) text(name string) string {
	v, ok := s.value(name)
	if !ok {
		return ""
	}
	str, ok := toString(v)
	if !ok {
		s.wrong(name, "a string", fmt.Sprintf("Write a text in double quotes, such as %s = %s.", name, s.shape.attr(name).example), v)
		return ""
	}
	if strings.ContainsFunc(str, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		s.guessed[name] = true
		s.r.add(s.at(name), name+" has a control character in it", "", "Write it in one line of plain text.")
		return ""
	}
	return str
}

// require is a string attribute that must be there.
func (s *section) require(name string) string {
	str := s.text(name)
	if str == "" && !s.guessed[name] && s.content.Attributes[name] != nil {
		s.r.add(s.at(name), fmt.Sprintf("%s of %s is empty", name, s.title), "", fmt.Sprintf("Write %s = %s: %s.", name, s.shape.attr(name).example, s.shape.attr(name).doc))
		return ""
	}
	if str == "" && !s.guessed[name] {
		s.r.add(s.header, fmt.Sprintf("%s has no %s", s.title, name), "", fmt.Sprintf("Add %s = %s to this block: %s.", name, s.shape.attr(name).example, s.shape.attr(name).doc))
	}
	return str
}

// choice is a string attribute with few values.
func (s *section) choice(name, fallback string, values ...string) string {
	str := s.text(name)
	if str == "" {
		return fallback
	}
	if !slices.Contains(values, str) {
		s.r.add(s.at(name), fmt.Sprintf("%s can't be %q", name, str), "", meant(str, values, fmt.Sprintf("It is one of: %s.", strings.Join(values, ", "))))
		return fallback
	}
	return str
}

// duration is an attribute such as "250ms".
func (s *section) duration(name string, fallback time.Duration) time.Duration {
	v, ok := s.value(name)
	if !ok {
		return fallback
	}
	d, ok := toDuration(v)
	if !ok {
		next := fmt.Sprintf("Write a number and a unit in double quotes, such as %s = %s; units are ns, us, ms, s, m and h.", name, s.shape.attr(name).example)
		if _, isString := toString(v); isString {
			s.r.add(s.at(name), name+" is not a duration", "", next)
			return fallback
		}
		s.wrong(name, "a duration", next, v)
		return fallback
	}
	return d
}

// count is a whole number, not negative.
func (s *section) count(name string, fallback int) int {
	v, ok := s.value(name)
	if !ok {
		return fallback
	}
	n, ok := toInt(v)
	if !ok || n < 0 || n > 1<<31-1 {
		next := fmt.Sprintf("Write it such as %s = %s.", name, s.shape.attr(name).example)
		if _, isNumber := toNumber(v); isNumber {
			s.r.add(s.at(name), name+" must be a whole number from 0", "", next)
			return fallback
		}
		s.wrong(name, "a number", next, v)
		return fallback
	}
	return int(n)
}

// texts is a list of strings.
func (s *section) texts(name string) []string {
	v, ok := s.value(name)
	if !ok {
		return nil
	}
	next := fmt.Sprintf("Write a list of texts, such as %s = %s.", name, s.shape.attr(name).example)
	parts, ok := elements(v)
	if !ok {
		s.wrong(name, "a list of strings", next, v)
		return nil
	}
	var out []string
	for i, p := range parts {
		str, ok := toString(p)
		if !ok {
			s.r.add(s.element(name, i), mustBe(fmt.Sprintf("%s[%d]", name, i), "a string", p), "", next)
			continue
		}
		out = append(out, str)
	}
	return out
}

// headed is how the header of a block is written.
func headed(typ string) string {
	if slices.Contains(labelled, typ) {
		return typ + ` "NAME"`
	}
	return typ
}

// element is the place of the n-th part of a list as it is written, else of the list.
func (s *section) element(name string, n int) hcl.Range {
	a := s.content.Attributes[name]
	if a == nil {
		return s.header
	}
	if exprs, diags := hcl.ExprList(a.Expr); !diags.HasErrors() && n < len(exprs) {
		return exprs[n].Range()
	}
	return a.Expr.Range()
}

// table is a map of strings.
func (s *section) table(name string) map[string]string {
	v, ok := s.value(name)
	if !ok {
		return nil
	}
	next := fmt.Sprintf("Write names and texts, such as %s = %s.", name, s.shape.attr(name).example)
	keys, values, ok := members(v)
	if !ok {
		s.wrong(name, "a map of strings", next, v)
		return nil
	}
	out := make(map[string]string, len(keys))
	for i, k := range keys {
		str, ok := toString(values[i])
		if !ok {
			s.r.add(s.at(name), mustBe(fmt.Sprintf("%s.%s", name, k), "a string", values[i]), "", next)
			continue
		}
		out[k] = str
	}
	return out
}

// header is the range of a block's type and labels.
func header(b *hcl.Block) hcl.Range {
	if isJSON(b.TypeRange.Filename) { // there DefRange is the opening brace alone
		if n := len(b.LabelRanges); n > 0 {
			return b.LabelRanges[n-1]
		}
		return b.TypeRange
	}
	return b.DefRange
}

// unquote drops the quotes of a JSON property name.
func unquote(s string) string {
	if n := len(s); n > 1 && s[0] == '"' && s[n-1] == '"' {
		return s[1 : n-1]
	}
	return s
}
