package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const redacted = "[redacted]"

// Key is the secret half of an identity. Its zero value is no key; get one from [Generate], [ParseSecret] or [LoadKeyFile].
//
// The material sits behind a function, so that fmt's reflection over a struct with an unexported Key shows an address, whatever
// the verb: through a pointer, a verb that doesn't fit such as %s would print what it points to.
type Key struct{ s func() *secret }

type secret struct {
	private ed25519.PrivateKey // seed ‖ public
	public  PublicKey
	scalar  [32]byte // clamped first half of SHA-512(seed): the X25519 secret

	mu  sync.Mutex
	hot map[PublicKey]*[32]byte // box keys per peer; guarded by mu, at most boxCacheHalf
	old map[PublicKey]*[32]byte // the generation before; guarded by mu, at most boxCacheHalf
}

// Generate makes a new random key.
func Generate() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return newKey(private), nil
}

// ParseSecret reads a secret key: 128 hex digits (seed ‖ public, checked against each other) or 64 (the seed alone).
// White space around it is ignored. Anything else is [ErrMalformed]; the error never repeats the input.
func ParseSecret(s string) (*Key, error) {
	raw, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil || (len(raw) != ed25519.SeedSize && len(raw) != ed25519.PrivateKeySize) {
		return nil, fmt.Errorf("secret key: %w: want 128 hex digits (seed and public key) or 64 (seed)", ErrMalformed)
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && subtle.ConstantTimeCompare(private, raw) != 1 {
		return nil, fmt.Errorf("secret key: %w: its second half is not the public key of its first half", ErrMalformed)
	}
	return newKey(private), nil
}

func newKey(private ed25519.PrivateKey) *Key {
	s := &secret{private: private, hot: make(map[PublicKey]*[32]byte)}
	copy(s.public[:], private[ed25519.SeedSize:])
	digest := sha512.Sum512(private.Seed())
	copy(s.scalar[:], digest[:32])
	s.scalar[0] &= 248
	s.scalar[31] &= 127
	s.scalar[31] |= 64
	return &Key{s: func() *secret { return s }}
}

// Public returns the key that others know this identity by.
func (k *Key) Public() PublicKey { return k.s().public }

// hexSecret is the on-disk form, 128 hex digits (PROTOCOL 2.2).
func (k *Key) hexSecret() string { return hex.EncodeToString(k.s().private) }

// String returns "[redacted]".
func (Key) String() string { return redacted }

// GoString returns "[redacted]".
func (Key) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]".
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "[redacted]".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }
