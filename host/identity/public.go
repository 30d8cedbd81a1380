package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
)

var (
	// ErrMalformed says that a key, signature, nonce or ciphertext isn't of the right shape: wrong alphabet or length.
	ErrMalformed = errors.New("malformed")
	// ErrBadSignature says that a well-formed signature doesn't match the text and the key.
	ErrBadSignature = errors.New("bad signature")
	// ErrWeakKey says that a public key can't be used for a box: low order, off the curve or outside the prime subgroup.
	ErrWeakKey = errors.New("weak public key")
	// ErrOpen says that a sealed text can't be opened with the given keys: another recipient, another sender, or tampered with.
	ErrOpen = errors.New("cannot be opened with this key")
)

// PublicKey is an ed25519 public key: of a member or of a session. It is comparable and usable as a map key.
type PublicKey [32]byte

// String returns the 64 lowercase hex digits that stand for the key on the wire (PROTOCOL 2.2).
func (p PublicKey) String() string { return hex.EncodeToString(p[:]) }

// ParsePublicKey reads exactly 64 lowercase hex digits; anything else is [ErrMalformed]. Uppercase is refused because the
// broker's membership look-up is case-sensitive (PROTOCOL 2.2).
func ParsePublicKey(s string) (PublicKey, error) {
	var p PublicKey
	if len(s) != 2*len(p) {
		return p, fmt.Errorf("public key: %w: %d characters, want 64 lowercase hex digits", ErrMalformed, len(s))
	}
	for i := range p {
		hi, ok1 := lowerHex(s[2*i])
		lo, ok2 := lowerHex(s[2*i+1])
		if !ok1 || !ok2 {
			return PublicKey{}, fmt.Errorf("public key: %w: want 64 lowercase hex digits", ErrMalformed)
		}
		p[i] = hi<<4 | lo
	}
	return p, nil
}

func lowerHex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
