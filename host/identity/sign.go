package identity

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"strconv"
)

// SignHello signs a member's hello (PROTOCOL 2.2) and returns 128 hex digits. Times are milliseconds since the Unix epoch.
func (k *Key) SignHello(meshID, memberID string, tsMillis int64) string {
	return k.sign(helloText(meshID, memberID, k.s().public, tsMillis))
}

// VerifyHello checks a member's hello. [ErrMalformed]: sigHex isn't 128 hex digits; [ErrBadSignature]: it doesn't match.
// The age of ts is for the caller to judge.
func VerifyHello(pub PublicKey, meshID, memberID string, ts int64, sigHex string) error {
	return verify(pub, helloText(meshID, memberID, pub, ts), sigHex)
}

// Attest vouches, as the member, for a session key until expiresAtMillis (PROTOCOL 3.2: at most 24 h ahead; mint 12 h).
func (k *Key) Attest(session PublicKey, expiresAtMillis int64) string {
	return k.sign(attestText(k.s().public, session, expiresAtMillis))
}

// VerifyAttestation checks a member's attestation; errors as in [VerifyHello]. Expiry is for the caller to judge.
func VerifyAttestation(parent, session PublicKey, expiresAt int64, sigHex string) error {
	return verify(parent, attestText(parent, session, expiresAt), sigHex)
}

// SignSessionHello signs a session's hello (PROTOCOL 3.3); k is the session's key, parent its member's.
func (k *Key) SignSessionHello(meshID string, parent PublicKey, ts int64) string {
	return k.sign(sessionText(meshID, parent, k.s().public, ts))
}

// VerifySessionHello checks a session's hello; errors as in [VerifyHello].
func VerifySessionHello(session PublicKey, meshID string, parent PublicKey, ts int64, sigHex string) error {
	return verify(session, sessionText(meshID, parent, session, ts), sigHex)
}

func helloText(meshID, memberID string, pub PublicKey, ts int64) string {
	return meshID + "|" + memberID + "|" + pub.String() + "|" + strconv.FormatInt(ts, 10)
}

func attestText(parent, session PublicKey, expiresAt int64) string {
	return "claudemesh-session-attest|" + parent.String() + "|" + session.String() + "|" + strconv.FormatInt(expiresAt, 10)
}

func sessionText(meshID string, parent, session PublicKey, ts int64) string {
	return "claudemesh-session-hello|" + meshID + "|" + parent.String() + "|" + session.String() + "|" + strconv.FormatInt(ts, 10)
}

func (k *Key) sign(text string) string {
	return hex.EncodeToString(ed25519.Sign(k.s().private, []byte(text)))
}

func verify(pub PublicKey, text, sigHex string) error {
	sig, err := hex.DecodeString(sigHex)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return fmt.Errorf("signature: %w: want 128 hex digits", ErrMalformed)
	}
	if !ed25519.Verify(pub[:], []byte(text), sig) {
		return ErrBadSignature
	}
	return nil
}
