package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/meshhost/meshhost/sdk"
)

// report collects what is wrong with one configuration.
type report struct {
	src   *sources
	found []finding
	words []string // secret texts that no sentence shows
}

// finding is a diagnostic whose source line is not quoted yet: what must not be shown may become known after it.
type finding struct {
	d   Diagnostic
	rng hcl.Range
}

func (f finding) isError() bool { return f.d.Severity == sdk.SeverityError }

func newReport(src *sources) *report { return &report{src: src} }

// failed reports whether there was an error.
func (r *report) failed() bool {
	return slices.ContainsFunc(r.found, finding.isError)
}

// add records an error at a range; next is what to do about it.
func (r *report) add(rng hcl.Range, summary, detail, next string) {
	r.put(sdk.SeverityError, rng, summary, detail, next)
}

// warn records a warning.
func (r *report) warn(rng hcl.Range, summary, detail, next string) {
	r.put(sdk.SeverityWarning, rng, summary, detail, next)
}

// file records an error of a file as a whole.
func (r *report) file(name, summary, next string) {
	r.add(hcl.Range{Filename: name}, summary, "", next)
}

func (r *report) put(sev sdk.Severity, rng hcl.Range, summary, detail, next string) {
	d := Diagnostic{
		Severity: sev, Summary: summary, Detail: detail, Next: next,
		File: rng.Filename, Line: rng.Start.Line, Column: rng.Start.Column, EndLine: rng.End.Line, EndColumn: rng.End.Column,
	}
	r.found = append(r.found, finding{d, rng})
}

// maxShown bounds how many diagnostics are given: a file in another encoding has one at every character, and a plugin
// may say what it likes.
const maxShown = 100

// done gives the diagnostics in order, with their source lines; of very many the first, and how many there are more.
func (r *report) done() Diagnostics {
	found := r.sorted()
	left := found[min(len(found), maxShown):]
	found = found[:len(found)-len(left)]
	if len(left) > 0 {
		found = append(found, summed(left))
	}
	secrets := r.src.hidden()
	ds := make(Diagnostics, 0, len(found))
	for _, f := range found {
		d := f.d
		d.Summary, d.Detail, d.Next = r.clean(d.Summary), r.clean(d.Detail), r.clean(d.Next)
		d.Source, d.Caret = snippet(r.src.bytes[d.File], f.rng, secrets)
		ds = append(ds, d)
	}
	return ds
}

// summed stands for findings that are not shown, where the first of them is.
func summed(left []finding) finding {
	sum := left[0]
	sum.d.Severity, sum.d.Detail = sdk.SeverityWarning, ""
	sum.d.Summary, sum.d.Next = fmt.Sprintf("%d more from here on are not shown", len(left)), "Correct those before, then run meshhost validate again."
	if slices.ContainsFunc(left, finding.isError) {
		sum.d.Severity = sdk.SeverityError
	}
	return sum
}

// sorted are the findings in the order of files and positions, without repetitions.
func (r *report) sorted() []finding {
	found := slices.Clone(r.found)
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(r.src.order(a.d.File), r.src.order(b.d.File)), cmp.Compare(a.d.order(), b.d.order()), cmp.Compare(a.d.Column, b.d.Column))
	})
	return slices.CompactFunc(found, func(a, b finding) bool { return a.d == b.d })
}

// maxSentence bounds a sentence in bytes: a plugin's words, or a name that somebody wrote, may have any length.
const maxSentence = 2000

// clean makes one line of a sentence that may have come from elsewhere, without control characters and known secrets.
func (r *report) clean(s string) string {
	for _, w := range r.words {
		s = strings.ReplaceAll(s, w, redacted)
	}
	if !checksum.MatchString(s) {
		s = keyLike.ReplaceAllStringFunc(s, func(digits string) string {
			if isKeyLength(len(digits)) { // perhaps a key in the wrong place
				return redacted
			}
			return digits
		})
	}
	if len(s) > maxSentence {
		s = strings.ToValidUTF8(s[:maxSentence], "") + "…"
	}
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, s))
}

// syntax records what the parser says.
func (r *report) syntax(d *hcl.Diagnostic) {
	rng := subject(d)
	r.add(rng, "syntax: "+lowerFirst(d.Summary), d.Detail, syntaxNext(d, r.text(rng)))
}

// syntaxNext is the next step for the usual slips, else a general one.
func syntaxNext(d *hcl.Diagnostic, text string) string {
	switch {
	case strings.Contains(d.Detail, "use the equals sign") && hclsyntax.ValidIdentifier(text):
		return fmt.Sprintf("Write it as %s = VALUE.", text)
	case strings.Contains(d.Detail, "single-line block"):
		return "Give each argument a line of its own, the closing brace too."
	case unclosedString(d):
		return "Close the string with a double quote on the line where it begins."
	case strings.HasSuffix(d.Summary, "redefined"):
		return "Remove one of the two."
	case strings.HasPrefix(d.Summary, "Unclosed"):
		return "Add the missing closing brace."
	default:
		return "Correct this place, then run meshhost validate again."
	}
}

// unclosedString reports the slip after which all that follows looks wrong.
func unclosedString(d *hcl.Diagnostic) bool {
	return d.Summary == "Invalid multi-line string" || d.Summary == "Unterminated template string"
}

// eval records what evaluating an expression said.
func (r *report) eval(d *hcl.Diagnostic) {
	rng := subject(d)
	if x, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d); ok && x.FunctionCallError() != nil {
		if fe := asFuncError(x.FunctionCallError()); fe != nil {
			r.add(rng, fe.summary, "", fe.next)
			return
		}
	}
	if d.Severity == hcl.DiagWarning {
		r.warn(rng, lowerFirst(d.Summary), d.Detail, "Correct this expression, then run meshhost validate again.")
		return
	}
	switch d.Summary {
	case "Variables not allowed", "Unknown variable":
		r.add(rng, fmt.Sprintf("there is no variable %q here", r.text(rng)), "", "Put a text in double quotes; for a value from outside use env(\"NAME\"), file(\"PATH\") or hostname().")
	case "Call to unknown function":
		name, _, _ := strings.Cut(r.text(rng), "(")
		name = strings.TrimSpace(name)
		r.add(rng, fmt.Sprintf("there is no function %q", name), "", meant(name, functionNames, "The functions are: env, file, hostname."))
	default:
		r.add(rng, lowerFirst(d.Summary), d.Detail, "Correct this expression, then run meshhost validate again.")
	}
}

// text is the source of a range.
func (r *report) text(rng hcl.Range) string {
	src := r.src.bytes[rng.Filename]
	if !rng.CanSliceBytes(src) {
		return ""
	}
	return string(rng.SliceBytes(src))
}

// restOfLine is what stands behind a range on its last line.
func (r *report) restOfLine(rng hcl.Range) hcl.Range {
	src := r.src.bytes[rng.Filename]
	rest := hcl.Range{Filename: rng.Filename, Start: rng.End, End: rng.End}
	if rng.End.Byte > len(src) {
		return rest
	}
	rest.End.Byte = len(src)
	if i := bytes.IndexByte(src[rng.End.Byte:], '\n'); i >= 0 {
		rest.End.Byte = rng.End.Byte + i
	}
	return rest
}

// subject is the range of a parser's diagnostic; it has none when a file as a whole is meant.
func subject(d *hcl.Diagnostic) hcl.Range {
	if d.Subject != nil {
		return *d.Subject
	}
	return hcl.Range{}
}

func lowerFirst(s string) string {
	c, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	if second, _ := utf8.DecodeRuneInString(s[n:]); unicode.IsUpper(second) {
		return s // an abbreviation, such as JSON
	}
	return string(unicode.ToLower(c)) + s[n:]
}
