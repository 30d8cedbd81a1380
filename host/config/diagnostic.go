package config

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/meshhost/meshhost/sdk"
)

// Diagnostic is one mistake, or a warning, ready to print.
type Diagnostic struct {
	Severity sdk.Severity `json:"severity"`
	// Summary is one sentence without a full stop.
	Summary string `json:"summary"`
	// Detail adds what the summary has no room for; may be empty.
	Detail string `json:"detail,omitempty"`
	// Next says what to do; never empty.
	Next string `json:"next"`
	// File is the path as it was given to Load; empty when the mistake has no file.
	File string `json:"file,omitempty"`
	// Line and Column start at 1 and are 0 where there is no position; a column counts characters.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// EndLine and EndColumn are just behind the last character.
	EndLine   int `json:"end_line,omitempty"`
	EndColumn int `json:"end_column,omitempty"`
	// Source is the source line, secrets and control characters replaced; Caret are the cells of it to mark.
	Source string `json:"source,omitempty"`
	Caret  Caret  `json:"caret,omitzero"`
}

// Caret marks characters of a printed source line, its cells: Start, from 0, and Length.
type Caret struct {
	Start  int `json:"start"`
	Length int `json:"length"`
}

// Diagnostics are in the order of their files and lines.
type Diagnostics []Diagnostic

// HasErrors reports whether any is an error.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == sdk.SeverityError })
}

// Err is nil without errors, else an error with all of them as text, one a paragraph.
func (ds Diagnostics) Err() error {
	if !ds.HasErrors() {
		return nil
	}
	var b strings.Builder
	_ = ds.WriteText(&b, false) // a Builder does not fail
	return errors.New(strings.TrimSuffix(b.String(), "\n"))
}

// WriteText prints them for people, a blank line between two; color adds terminal sequences. Lines are never wrapped, so
// that what is printed can be searched and compared.
func (ds Diagnostics) WriteText(w io.Writer, color bool) error {
	var b strings.Builder
	for i := range ds {
		if i > 0 {
			b.WriteByte('\n')
		}
		ds[i].text(&b, color)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print diagnostics: %w", err)
	}
	return nil
}

// The terminal sequences of severities.
const (
	ansiBold   = "\x1b[1m"
	ansiRed    = "\x1b[1;31m"
	ansiYellow = "\x1b[1;33m"
	ansiReset  = "\x1b[0m"
)

// Where is what a line about the mistake begins with: "mesh.hcl:13:5: ", or nothing where it has no file.
func (d *Diagnostic) Where() string {
	switch {
	case d.File == "":
		return ""
	case d.Line == 0:
		return d.File + ": "
	}
	return fmt.Sprintf("%s:%d:%d: ", d.File, d.Line, d.Column)
}

func (d *Diagnostic) text(b *strings.Builder, color bool) {
	paint := func(seq, s string) string {
		if !color {
			return s
		}
		return seq + s + ansiReset
	}
	hue := ansiRed
	if d.Severity == sdk.SeverityWarning {
		hue = ansiYellow
	}
	fmt.Fprintf(b, "%s%s %s\n", d.Where(), paint(hue, string(d.Severity)+":"), paint(ansiBold, d.Summary))
	if d.Line > 0 {
		gutter := fmt.Sprintf("  %d | ", d.Line)
		fmt.Fprintf(b, "%s%s\n", gutter, d.Source)
		fmt.Fprintf(b, "%s| %s%s\n", strings.Repeat(" ", len(gutter)-2), indentLike(d.Source, d.Caret.Start),
			paint(hue, strings.Repeat("^", d.markWidth())))
	}
	for _, s := range []string{d.Detail, d.Next} {
		if s != "" {
			fmt.Fprintf(b, "  %s\n", s)
		}
	}
}

// indentLike is n cells of blank under the start of line: tabs stay tabs, so that the caret stands under its token
// whatever a tab's width is.
func indentLike(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n == 0 {
			break
		}
		n--
		if r == '\t' {
			b.WriteByte('\t')
			continue
		}
		b.WriteString(strings.Repeat(" ", columns(r)))
	}
	return b.String() + strings.Repeat(" ", n)
}

// markWidth is how many columns of a terminal the marked cells take, at least one.
func (d *Diagnostic) markWidth() int {
	n := d.Caret.Length
	for i, r := range []rune(d.Source) {
		if i >= d.Caret.Start && i < d.Caret.Start+d.Caret.Length {
			n += columns(r) - 1
		}
	}
	return max(1, n)
}

// columns is how many columns of a terminal a character takes.
func columns(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) { // stands on the one before
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// order is the line to sort by: what concerns a file as a whole comes after what has a line.
func (d *Diagnostic) order() int {
	if d.Line == 0 {
		return math.MaxInt
	}
	return d.Line
}
