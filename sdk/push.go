package sdk

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// PushHandler receives what the mesh pushes, from the host's journal: nothing is
// lost while the handler is down, up to the journal's limit.
type PushHandler interface {
	// Handle takes a batch and returns one outcome for each, in order. Pushes
	// of one sender to one recipient come in order. After a crash the same
	// pushes come again: be idempotent on Push.DedupKeys. An error of the call
	// retries its pushes, and each time costs each of them one of its 20 attempts,
	// as Retry does. ErrUnavailable costs none: the host asks again within ten
	// seconds, for as long as it takes. It is for a handler that can take nothing now.
	Handle(ctx context.Context, pushes []Push) ([]Outcome, error)
}

// PushKind is what a push is; the wire has no such field, the host derives it
// (PROTOCOL 5.1).
type PushKind string

// The kinds of a push.
const (
	PushDirect    PushKind = "direct"    // sealed for one key
	PushBroadcast PushKind = "broadcast" // plaintext to all, a group or a topic
	PushSystem    PushKind = "system"    // peer_joined and the like
	PushWebhook   PushKind = "webhook"
)

// Push is one message or event from the mesh.
type Push struct {
	// ID is the host's, stable over redeliveries.
	ID   string
	Mesh string
	Kind PushKind
	// Recipient is the public key that it was for, 64 hex digits, and
	// RecipientKind says whose: "member" or "session".
	Recipient     string
	RecipientKind string
	// MessageID is the broker's id, ClientMessageID the sender's, if it came.
	MessageID       string
	ClientMessageID string
	// Sender is the key that sent it, "system" or "webhook:NAME".
	Sender string
	// SenderMember and SenderName come with live multicast, or from the host's
	// directory; empty if unknown.
	SenderMember string
	SenderName   string
	Priority     string
	Subtype      string
	Event        string
	EventData    jsontext.Value
	// Body is the plaintext, UTF-8 by custom but not by promise.
	Body []byte
	// Undecryptable is true for a sealed push that none of our keys opens;
	// then Body is empty.
	Undecryptable bool
	ReplyToID     string
	CreatedAt     time.Time // by the broker's clock
	ReceivedAt    time.Time // by ours
	// Attempt is 1 for the first delivery to this handler.
	Attempt int
	// DedupKeys are equal for equal messages: two pushes that share any are the
	// same message (ARCHITECTURE 6, promise 3).
	DedupKeys []string
}

// Want matches pushes: any of Kinds (empty: any kind) and, for system pushes,
// any of Events (empty: any event).
type Want struct {
	Kinds  []PushKind `json:"kinds,omitempty"`
	Events []string   `json:"events,omitempty"`
}

// Matches reports whether p is wanted.
func (w Want) Matches(p *Push) bool {
	return in(w.Kinds, p.Kind) && (p.Kind != PushSystem || in(w.Events, p.Event))
}

func in[T comparable](set []T, v T) bool {
	if len(set) == 0 {
		return true
	}
	for _, s := range set {
		if s == v {
			return true
		}
	}
	return false
}

// Decision is what a handler says of a push.
type Decision string

// The decisions of a handler. Each is for this handler alone.
const (
	Ack   Decision = "ack"
	Retry Decision = "retry"
	Drop  Decision = "drop"
)

// Outcome is what became of one push.
type Outcome struct {
	Decision Decision
	// After delays a retry; 0: the host chooses.
	After time.Duration
	// Reason is a sentence for people, with retry and drop.
	Reason string
}
