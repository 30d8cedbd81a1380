package inbound

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// RecipientKind says whose key a push was for, as in [sdk.Push].
const (
	RecipientMember  = "member"
	RecipientSession = "session"
)

// Candidate is a key that may open a push.
type Candidate struct {
	Key  *identity.Key
	Kind string // RecipientMember or RecipientSession
}

// Keys knows the secret keys of this host. Called for every push, concurrently: it must answer from memory.
type Keys interface {
	// Candidates returns the keys to try for a push on the connection of receiving, in order: the session's own if it is one,
	// then the member's (PROTOCOL 6). None: the mesh or the identity is unknown.
	Candidates(mesh string, receiving identity.PublicKey) []Candidate
	// AtRest returns the sealer for plaintext frames of a mesh; nil if the mesh is unknown.
	AtRest(mesh string) *identity.AtRest
}

// Acker sends a client_ack (PROTOCOL 5.3) on the current connection of identity, with the ids that are known. It must not
// block: an ack that can't be sent now may be dropped, since the broker then sends the push again.
type Acker interface {
	ClientAck(mesh string, receiving identity.PublicKey, clientMessageID, brokerMessageID string)
}

// Names is what the host remembers of peers. Neither call may block.
type Names interface {
	// NameOf returns the member key and the display name behind a key of a mesh, empty if unknown.
	NameOf(mesh, key string) (memberKey, name string)
	// Announced is told of each new system event (PROTOCOL 5.2), in order of arrival.
	Announced(mesh, event string, data jsontext.Value)
}

// Publisher publishes events; [event.Bus] is one.
type Publisher interface {
	Publish(kind, mesh string, data any)
}

// Journal is the part of [store.Store] that a receiver needs.
type Journal interface {
	Journal(ctx context.Context, rows []store.JournalRow, marks []store.Mark) ([]store.JournalResult, store.JournalSize, error)
	JournalSize(ctx context.Context) (store.JournalSize, error)
	Handlers(ctx context.Context, names []string) (ids map[string]int64, dropped map[string]int, err error)
	Work(ctx context.Context, handler, after int64, limit int) ([]store.WorkItem, error)
	Frames(ctx context.Context, seqs []int64) ([]store.Frame, error)
}

// Handler is a push handler with the name of its block. Handle of Push returns an error that is [sdk.ErrUnavailable] while its
// plugin is down: that costs no attempt.
type Handler struct {
	Name  string
	Wants []sdk.Want // empty: every push
	Push  sdk.PushHandler
	// CallTimeout bounds one call; default 30 s.
	CallTimeout time.Duration
}

func (h *Handler) wants(p *sdk.Push) bool {
	if len(h.Wants) == 0 {
		return true
	}
	for _, w := range h.Wants {
		if w.Matches(p) {
			return true
		}
	}
	return false
}
