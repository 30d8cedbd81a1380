package identity

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"

	"golang.org/x/crypto/nacl/secretbox"
)

// atRestInfo names the key derivation; the number at its end changes with the construction.
const atRestInfo = "meshhost/at-rest/v1/"

// AtRestOverhead is how many bytes longer a sealed text is than its plaintext: nonce and tag.
const AtRestOverhead = NonceSize + secretbox.Overhead

// AtRest seals what the host keeps on disk, under a key derived from a member's seed for one purpose. Sealed bytes of one
// purpose can't be opened under another. It prints as "[redacted]", and is safe for concurrent use.
type AtRest struct{ key func() *[32]byte } // a function for the reason that Key has one

// AtRest derives the sealer for a purpose such as "outbox": HKDF-SHA256 over the member's seed, no salt,
// info "meshhost/at-rest/v1/"+purpose.
func (k *Key) AtRest(purpose string) *AtRest {
	raw, err := hkdf.Key(sha256.New, k.s().private.Seed(), nil, atRestInfo+purpose, 32)
	if err != nil {
		panic("identity: deriving 32 bytes can't fail: " + err.Error())
	}
	return newAtRest((*[32]byte)(raw))
}

func newAtRest(key *[32]byte) *AtRest { return &AtRest{key: func() *[32]byte { return key }} }

// Seal returns a random nonce followed by the secretbox of plain: [AtRestOverhead] bytes more than plain.
func (a *AtRest) Seal(plain []byte) []byte {
	var nonce [NonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails since Go 1.24: the process dies instead
	out := make([]byte, NonceSize, len(plain)+AtRestOverhead)
	copy(out, nonce[:])
	return secretbox.Seal(out, plain, &nonce, a.key())
}

// Open reverses [AtRest.Seal]. [ErrMalformed]: too short to have been sealed; [ErrOpen]: another key or purpose, or changed.
func (a *AtRest) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < AtRestOverhead {
		return nil, fmt.Errorf("open at-rest text: %w: %d bytes, want at least %d", ErrMalformed, len(sealed), AtRestOverhead)
	}
	nonce := (*[NonceSize]byte)(sealed[:NonceSize])
	plain, ok := secretbox.Open(make([]byte, 0, len(sealed)-AtRestOverhead), sealed[NonceSize:], nonce, a.key())
	if !ok {
		return nil, fmt.Errorf("open at-rest text: %w", ErrOpen)
	}
	return plain, nil
}

// String returns "[redacted]".
func (AtRest) String() string { return redacted }

// GoString returns "[redacted]".
func (AtRest) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb.
func (AtRest) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }
