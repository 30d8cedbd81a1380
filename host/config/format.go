package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2/hclwrite"
)

// maxFormat bounds how often a text is laid out anew until it stays the same.
const maxFormat = 5

// Format lays out a configuration in HCL's native syntax the usual way: indents of two, equals signs in line. Formatting
// the result again changes nothing. What doesn't parse keeps its words and comes back laid out as far as that goes: ask
// [CheckSyntax] first.
func Format(src []byte) []byte {
	out := hclwrite.Format(src)
	for range maxFormat {
		again := hclwrite.Format(out)
		if bytes.Equal(again, out) {
			break
		}
		out = again
	}
	return out
}

// CheckSyntax parses a configuration without looking at what it says. A name that ends in .json means the JSON syntax.
func CheckSyntax(filename string, src []byte) Diagnostics {
	r := newReport(newSources())
	r.parse(filename, src)
	return r.done()
}
