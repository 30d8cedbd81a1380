package control

import (
	"net/http"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// MessageTrace is the way of one message, as far as the host knows it.
type MessageTrace struct {
	// Entry is the stored row; nil if there is none or the outbox does not answer.
	Entry    *sdk.Entry
	InFlight bool
	Outbox   string
	Durable  bool
	Hops     []TraceHop
	// Earlier says why the hops do not begin with the message's arrival.
	Earlier string
	Next    TraceNext
}

// TraceHop is one step of a message's way.
type TraceHop struct {
	// At is null where the time is not known.
	At     *time.Time `json:"at"`
	Hop    string     `json:"hop"`
	Detail string     `json:"detail,omitempty"`
	// BrokerMessageID is set with accepted.
	BrokerMessageID string `json:"broker_message_id,omitempty"`
	// Times is above 1 for a hop that came so often in a row, LastAt the last time.
	Times  int        `json:"times,omitzero"`
	LastAt *time.Time `json:"last_at,omitempty"`
	// FromRow is true for what the stored row tells alone.
	FromRow bool `json:"from_row,omitzero"`
}

// TraceNext is what happens to a message from now on.
type TraceNext struct {
	// What is a word: nothing, requeue, unknown, in_flight, turn, behind, offline,
	// other_host, lease, cloned, held, backoff, rate_limit, no_peer or ask.
	What   string     `json:"what"`
	Detail string     `json:"detail"`
	At     *time.Time `json:"at"`
}

// TraceReply is the answer of GET /v1/outbox/ID/trace.
type TraceReply struct {
	Message *OutboxRow `json:"message"` // null: the outbox has none
	Outbox  string     `json:"outbox,omitempty"`
	Durable bool       `json:"durable"`
	Hops    []TraceHop `json:"hops"`
	// Earlier says why the hops do not begin with the message's arrival; left out
	// if they do.
	Earlier string    `json:"earlier,omitempty"`
	Next    TraceNext `json:"next"`
}

// outboxTrace is GET /v1/outbox/ID/trace.
func (s *Server) outboxTrace(w http.ResponseWriter, r *http.Request) {
	t, err := s.opts.Outbox.Trace(r.Context(), r.PathValue("id"))
	if err != nil {
		writeProblem(w, err)
		return
	}
	out := TraceReply{Outbox: t.Outbox, Durable: t.Durable, Hops: t.Hops, Earlier: t.Earlier, Next: t.Next}
	if out.Hops == nil {
		out.Hops = []TraceHop{}
	}
	if t.Entry != nil {
		row := rowOf(t.Entry, t.InFlight)
		out.Message = &row
	}
	reply(w, out)
}
