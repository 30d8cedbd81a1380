// Package identity holds the ed25519 identities of a mesh: member and session keys, what they sign, and what they seal.
//
// A [Key] never leaves the process in any printed or encoded form: each way of formatting it gives "[redacted]".
// It signs the three texts of the protocol (hello, attestation, session hello: PROTOCOL 2.2, 3.2, 3.3), seals and opens
// direct messages (crypto_box_easy over the converted keys, PROTOCOL 6) and derives keys for what the host keeps at rest.
// A [PublicKey] is a routing key; only its lowercase hex form exists on the wire, since brokers compare it as a string.
//
// Invariants: a public key of low order or outside the prime subgroup is never used for a box; an error never contains key
// material or plaintext; the cache of box keys is bounded. A [Key] is safe for concurrent use.
package identity
