package outbound

import (
	"context"
	"time"
)

// Message is one row as it goes to the broker.
type Message struct {
	// ID correlates the ack; it is the entry's id, the same on every attempt.
	ID              string
	ClientMessageID string
	Target          string
	Priority        string
	Nonce           string
	Ciphertext      string
	// Fingerprint is hex, 64 digits.
	Fingerprint string
}

// Verdict is what became of one attempt to send.
type Verdict int

// The verdicts of an attempt.
const (
	// Accepted: the broker acked with a message id.
	Accepted Verdict = iota + 1
	// RateLimited: nothing stored; the broker named a rate.
	RateLimited
	// NoPeer: nobody is connected under that key.
	NoPeer
	// Refused: the same frame will be refused again.
	Refused
	// Transient: the broker refused for a reason that may pass.
	Transient
	// Unknown: written, but no ack came; it may or may not be stored.
	Unknown
	// NotSent: not connected; nothing was written.
	NotSent
)

// Outcome is the result of one attempt.
type Outcome struct {
	Verdict   Verdict
	MessageID string
	// Detail is the broker's text, for people.
	Detail string
	// PerMinute is the rate that a rate-limit answer named; 0 if none.
	PerMinute float64
	// Poisoned is true with Unknown when the broker closed the socket for what
	// it read (1002, 1003, 1007, 1009) while this message was in flight.
	Poisoned bool
}

// Link is the connection that a lane sends on.
type Link interface {
	// Send writes m and calls done exactly once, from any goroutine, without
	// blocking in between. done must not block.
	Send(m Message, done func(Outcome))
	// Ready reports whether sends can be written now.
	Ready() bool
	// Delivered asks the broker whether the recipient has acknowledged a
	// message. ErrUnknownMessage if the broker no longer knows it.
	Delivered(ctx context.Context, messageID string) (bool, time.Time, error)
}

// TargetKind says how a target is sealed.
type TargetKind int

// The kinds of a target.
const (
	Direct    TargetKind = iota + 1 // one key: sealed for it
	Multicast                       // *, @all, @group, #topic: plaintext on the wire
)

// Target is a resolved name.
type Target struct {
	// Spec is the wire's targetSpec.
	Spec string
	Kind TargetKind
	// Name is the peer's display name, if known.
	Name string
	// From says where the name was found: "live", "directory" or "verbatim".
	From string
}

// Names resolves what a sender typed (roster).
type Names interface {
	Resolve(ctx context.Context, mesh, to string) (Target, error)
}
