package config

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// redacted stands for a secret.
const redacted = "***"

// maxSnippet bounds a printed source line in characters.
const maxSnippet = 240

// secretName finds names of attributes whose quoted value is never shown, even where no schema says so yet: a syntax error
// is printed before any plugin was asked. A name that ends like a path is one.
var secretName = regexp.MustCompile(`(?i)([\w-]*(?:secret|token|passw|passphrase|api_?key|private_?key|credential|dsn)[\w-]*)"?\s*[=:]`)

// keyLike finds what may be a secret key, whatever it is written behind; checksums look the same, and are none.
var (
	keyLike  = regexp.MustCompile(`[0-9A-Fa-f]{64,}`)
	checksum = regexp.MustCompile(`(?i)\b(sha256|checksum)\b`)
)

// isKeyLength reports how many hex digits a secret key has: the seed alone, or with the public key.
func isKeyLength(n int) bool { return n == 64 || n == 128 }

var pathName = regexp.MustCompile(`(?i)_(file|path|dir)$`)

// snippet is the first line of rng as it is printed, and the cells to mark. What lies in one of the secret ranges is
// replaced, whichever part of the line the caret is at.
func snippet(src []byte, rng hcl.Range, secrets []hcl.Range) (string, Caret) {
	if rng.Start.Line == 0 || rng.Start.Byte < 0 || rng.Start.Byte > len(src) {
		return "", Caret{}
	}
	from := bytes.LastIndexByte(src[:rng.Start.Byte], '\n') + 1
	to := len(src)
	if i := bytes.IndexByte(src[rng.Start.Byte:], '\n'); i >= 0 {
		to = rng.Start.Byte + i
	}
	line := bytes.TrimSuffix(src[from:to], []byte("\r"))
	hidden := hiddenBytes(line, from, rng.Filename, secrets)

	var cells []rune
	start, end := -1, -1
	masked := false
	for i := 0; i < len(line); {
		c, n := utf8.DecodeRune(line[i:])
		at := from + i
		if start < 0 && at+n > rng.Start.Byte {
			start = len(cells)
			if masked && hidden(at) {
				start -= len(redacted)
			}
		}
		switch {
		case hidden(at):
			if !masked {
				cells = append(cells, []rune(redacted)...)
			}
			masked = true
		case c == '\t':
			cells, masked = append(cells, '\t'), false
		case unicode.IsControl(c) || !unicode.IsPrint(c) && c != ' ':
			cells, masked = append(cells, utf8.RuneError), false
		default:
			cells, masked = append(cells, c), false
		}
		i += n
		if from+i <= rng.End.Byte {
			end = len(cells)
		}
	}
	if start < 0 {
		start = len(cells) // the line's end, or an empty line
	}
	return window(cells, start, max(end, start+1))
}

// window cuts a long line down to what surrounds the caret.
func window(cells []rune, start, end int) (string, Caret) {
	if len(cells) <= maxSnippet {
		line := strings.TrimRight(string(cells), " \t")
		if n := utf8.RuneCountInString(line); start > n { // in the blanks at the line's end, which are not printed
			start, end = n, n+1
		}
		return line, Caret{Start: start, Length: end - start}
	}
	lo := max(0, min(start-maxSnippet/4, len(cells)-maxSnippet))
	hi := min(len(cells), lo+maxSnippet)
	end = max(start+1, min(end, hi))
	head, tail := "", ""
	if lo > 0 {
		head = "…"
	}
	if hi < len(cells) {
		tail = "…"
	}
	return head + string(cells[lo:hi]) + tail, Caret{Start: start - lo + len([]rune(head)), Length: end - start}
}

// hiddenBytes tells which bytes of the file to replace on this line: those of secret ranges, those in quotes behind a name
// that sounds like a secret, and those that look like a secret key.
func hiddenBytes(line []byte, from int, file string, secrets []hcl.Range) func(at int) bool {
	quoted := -1 // from here to the line's end, since the closing quote may be what is missing
	for _, m := range secretName.FindAllSubmatchIndex(line, -1) {
		if pathName.Match(line[m[2]:m[3]]) {
			continue
		}
		if i := bytes.IndexByte(line[m[1]:], '"'); i >= 0 {
			quoted = from + m[1] + i
			break
		}
	}
	var keys [][]int
	if !checksum.Match(line) {
		keys = keyLike.FindAllIndex(line, -1)
	}
	return func(at int) bool {
		for _, k := range keys {
			if at >= from+k[0] && at < from+k[1] && isKeyLength(k[1]-k[0]) {
				return true
			}
		}
		if quoted >= 0 && at >= quoted {
			return true
		}
		for _, s := range secrets {
			if s.Filename == file && at >= s.Start.Byte && at < s.End.Byte {
				return true
			}
		}
		return false
	}
}
