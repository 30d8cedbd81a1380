package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Bounds of what the parser recurses on. It has none of its own, and a stack overflow can't be recovered.
const (
	maxDepth      = 100  // of brackets, blocks and templates
	maxPrefixes   = 100  // of ! and - in a row
	maxConditions = 1000 // of ? and %{ in a file, which nest to the right
)

// tooDeep looks for nesting that would exhaust the parser's stack and says what it found, or "".
func tooDeep(name string, src []byte) (hcl.Range, string) {
	if isJSON(name) {
		return tooDeepJSON(name, src)
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // its complaints come again from the parser
	var depth, prefixes, conditions int
	for i := range tokens {
		t := &tokens[i]
		run := false
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp:
			depth++
		case hclsyntax.TokenTemplateControl:
			depth++
			conditions++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenQuestion:
			conditions++
		case hclsyntax.TokenBang, hclsyntax.TokenMinus:
			prefixes++
			run = true
		}
		if !run {
			prefixes = 0
		}
		if what := excess(depth, prefixes, conditions); what != "" {
			return t.Range, what
		}
	}
	return hcl.Range{}, ""
}

// tooDeepJSON does the same over plain bytes: a string may hold a template, so what is inside quotes counts as well.
func tooDeepJSON(name string, src []byte) (hcl.Range, string) {
	var depth, prefixes, conditions int
	pos := hcl.InitialPos
	for i, c := range src {
		run := false
		switch c {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth = max(0, depth-1)
		case '?', '%':
			conditions++
		case '!', '-':
			prefixes++
			run = true
		case ' ', '\t':
			run = true
		}
		if !run {
			prefixes = 0
		}
		pos.Byte = i
		if what := excess(depth, prefixes, conditions); what != "" {
			return hcl.Range{Filename: name, Start: pos, End: hcl.Pos{Line: pos.Line, Column: pos.Column + 1, Byte: i + 1}}, what
		}
		pos.Column++
		if c == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
	}
	return hcl.Range{}, ""
}

func excess(depth, prefixes, conditions int) string {
	switch {
	case depth > maxDepth:
		return fmt.Sprintf("more than %d levels of nesting", maxDepth)
	case prefixes > maxPrefixes:
		return fmt.Sprintf("more than %d operators in a row", maxPrefixes)
	case conditions > maxConditions:
		return fmt.Sprintf("more than %d conditions in a file", maxConditions)
	}
	return ""
}
