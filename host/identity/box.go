package identity

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/nacl/box"
)

// NonceSize is the length of a nonce in bytes, for boxes and for plaintext multicast alike (PROTOCOL 4.1).
const NonceSize = 24

// boxCacheHalf bounds each of the two generations of cached box keys: about 100 bytes an entry. Converting a public key and
// multiplying costs some 100 µs, sealing 200 bytes about 1 µs, so a hot peer must not pay the conversion per message.
const boxCacheHalf = 4096

// One strict decoder for everything: standard alphabet, padded, no stray bits, as libsodium's ORIGINAL variant reads it.
var b64 = base64.StdEncoding.Strict()

// Seal encrypts plaintext to a peer as crypto_box_easy with a random nonce; both results are padded standard base64, as the
// send frame wants them (PROTOCOL 6). [ErrWeakKey] when the peer's key can't be used.
func (k *Key) Seal(to PublicKey, plaintext []byte) (nonceB64, ciphertextB64 string, err error) {
	shared, err := k.shared(to)
	if err != nil {
		return "", "", fmt.Errorf("seal to %s: %w", to, err)
	}
	nonce := newNonce()
	sealed := box.SealAfterPrecomputation(make([]byte, 0, len(plaintext)+box.Overhead), plaintext, &nonce, shared)
	return b64.EncodeToString(nonce[:]), b64.EncodeToString(sealed), nil
}

// Open decrypts a box between k and peer, whichever of the two sealed it. [ErrMalformed]: not base64 or a wrong length;
// [ErrWeakKey]: the peer's key can't be used; [ErrOpen]: not sealed between these two, or changed on the way.
func (k *Key) Open(peer PublicKey, nonceB64, ciphertextB64 string) ([]byte, error) {
	nonce, err := decodeNonce(nonceB64)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	sealed, err := decodeBase64(ciphertextB64)
	if err != nil {
		return nil, fmt.Errorf("open: ciphertext: %w", err)
	}
	if len(sealed) < box.Overhead {
		return nil, fmt.Errorf("open: ciphertext: %w: %d bytes, want at least %d", ErrMalformed, len(sealed), box.Overhead)
	}
	shared, err := k.shared(peer)
	if err != nil {
		return nil, fmt.Errorf("open from %s: %w", peer, err)
	}
	plain, ok := box.OpenAfterPrecomputation(make([]byte, 0, len(sealed)), sealed, nonce, shared)
	if !ok {
		return nil, fmt.Errorf("open from %s: %w", peer, ErrOpen)
	}
	return plain, nil
}

// EncodePlain gives a multicast message its wire form: a random nonce that encrypts nothing, and the text in base64
// (PROTOCOL 6: broadcasts and groups aren't encrypted).
func EncodePlain(plaintext []byte) (nonceB64, ciphertextB64 string, err error) {
	nonce := newNonce()
	return b64.EncodeToString(nonce[:]), b64.EncodeToString(plaintext), nil
}

// DecodePlain reads the text of a multicast message; [ErrMalformed] when it isn't padded standard base64.
func DecodePlain(ciphertextB64 string) ([]byte, error) {
	plain, err := decodeBase64(ciphertextB64)
	if err != nil {
		return nil, fmt.Errorf("decode plaintext message: %w", err)
	}
	return plain, nil
}

func newNonce() (nonce [NonceSize]byte) {
	_, _ = rand.Read(nonce[:]) // never fails since Go 1.24: the process dies instead
	return nonce
}

func decodeNonce(s string) (*[NonceSize]byte, error) {
	raw, err := decodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	if len(raw) != NonceSize {
		return nil, fmt.Errorf("nonce: %w: %d bytes, want %d", ErrMalformed, len(raw), NonceSize)
	}
	return (*[NonceSize]byte)(raw), nil
}

func decodeBase64(s string) ([]byte, error) {
	// The library skips line ends inside base64; libsodium doesn't, and one text must have one reading.
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' {
			return nil, fmt.Errorf("%w: line end inside base64", ErrMalformed)
		}
	}
	raw, err := b64.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: want padded standard base64", ErrMalformed)
	}
	return raw, nil
}

// shared returns the precomputed box key between k and a peer, from the cache if the peer is hot. Two generations of a map
// come close to least recently used: a hit in the old one moves to the new one, and a full new one becomes the old.
func (k *Key) shared(peer PublicKey) (*[32]byte, error) {
	s := k.s()
	s.mu.Lock()
	key := s.hot[peer]
	if key == nil {
		if key = s.old[peer]; key != nil {
			s.remember(peer, key)
		}
	}
	s.mu.Unlock()
	if key != nil {
		return key, nil
	}
	u, err := montgomery(peer)
	if err != nil {
		return nil, err
	}
	key = new([32]byte)
	box.Precompute(key, u, &s.scalar)
	s.mu.Lock()
	s.remember(peer, key)
	s.mu.Unlock()
	return key, nil
}

func (s *secret) remember(peer PublicKey, key *[32]byte) {
	if len(s.hot) >= boxCacheHalf {
		s.old, s.hot = s.hot, make(map[PublicKey]*[32]byte)
	}
	s.hot[peer] = key
}

// minusOne is the group order less one: [L-1]P + P = [L]P is the identity exactly when P lies in the prime subgroup.
var minusOne = func() *edwards25519.Scalar {
	one, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		panic("identity: the scalar one is canonical: " + err.Error())
	}
	return edwards25519.NewScalar().Negate(one)
}()

// montgomery converts an ed25519 public key to X25519 by libsodium's rule: on the curve, not of low order, in the prime subgroup.
func montgomery(p PublicKey) (*[32]byte, error) {
	point, err := edwards25519.NewIdentityPoint().SetBytes(p[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of the curve", ErrWeakKey)
	}
	identity := edwards25519.NewIdentityPoint()
	if edwards25519.NewIdentityPoint().MultByCofactor(point).Equal(identity) == 1 {
		return nil, fmt.Errorf("%w: low order", ErrWeakKey)
	}
	product := edwards25519.NewIdentityPoint().VarTimeDoubleScalarBaseMult(minusOne, point, edwards25519.NewScalar())
	if product.Add(product, point).Equal(identity) != 1 {
		return nil, fmt.Errorf("%w: outside the prime subgroup", ErrWeakKey)
	}
	return (*[32]byte)(point.BytesMontgomery()), nil
}
