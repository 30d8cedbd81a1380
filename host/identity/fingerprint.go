package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gowebpki/jcs"
)

// envelopeVersion is the first field of a fingerprint, in decimal (PROTOCOL 4.9).
const envelopeVersion = "1"

// ErrMeta says that meta can't be given one canonical form that a JavaScript peer would give it too.
var ErrMeta = errors.New("meta refused")

// Fingerprint is the digest of what the user typed, before names are resolved and text is sealed (PROTOCOL 4.9).
// kind is "dm" or "topic"; ref the target as typed ("@x" is kind topic, ref "x"); meta is [CanonicalMeta]'s result or "".
func Fingerprint(kind, ref, replyTo, priority, meta string, body []byte) [32]byte {
	bodySum := sha256.Sum256(body)
	h := sha256.New()
	for _, field := range [...]string{envelopeVersion, kind, ref, replyTo, priority, meta} {
		_, _ = io.WriteString(h, field) // a hash never fails
		_, _ = h.Write([]byte{0})
	}
	_, _ = h.Write(bodySum[:])
	return [32]byte(h.Sum(nil))
}

// CanonicalMeta returns the canonical JSON of a meta object, "" for none (empty or null). It refuses ([ErrMeta]) whatever a
// JavaScript peer would order or write in another way than RFC 8785 does: member names that look like array indexes,
// "__proto__", and lone surrogates; further duplicate names, invalid UTF-8, and anything but an object.
func CanonicalMeta(raw []byte) (string, error) {
	raw = bytes.Trim(raw, " \t\r\n") // JSON's own white space; bytes.TrimSpace knows more
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	if raw[0] != '{' {
		return "", fmt.Errorf("%w: it must be a JSON object", ErrMeta)
	}
	if err := checkMeta(raw); err != nil {
		return "", err
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrMeta, err)
	}
	return string(canonical), nil
}

// maxMetaDepth keeps the recursive canonicaliser's stack small.
const maxMetaDepth = 64

func checkMeta(raw []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	for {
		kind, n := dec.StackIndex(dec.StackDepth())
		isName := kind == jsontext.KindBeginObject && n%2 == 0
		tok, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %v", ErrMeta, err)
		}
		if dec.StackDepth() > maxMetaDepth {
			return fmt.Errorf("%w: nested deeper than %d", ErrMeta, maxMetaDepth)
		}
		if !isName || tok.Kind() != '"' {
			continue
		}
		if name := tok.String(); name == "__proto__" {
			return fmt.Errorf("%w: at %s: the member name __proto__ is dropped by JavaScript; rename it", ErrMeta, dec.StackPointer())
		} else if isArrayIndex(name) {
			return fmt.Errorf("%w: at %s: a member name made of digits is reordered by JavaScript; put a letter before it", ErrMeta, dec.StackPointer())
		}
	}
}

// isArrayIndex reports whether JavaScript sorts the name before all others: the decimal form of 0 to 2^32-2.
func isArrayIndex(s string) bool {
	if s == "" || len(s) > 10 || (s[0] == '0' && len(s) > 1) {
		return false
	}
	var n uint64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return n < 1<<32-1
}
