package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// The API's words for the state of a message (PROTOCOL 10.7). "queued" is what
// /v1/send says of pending (10.4).
const (
	StatusQueued   = "queued"
	StatusPending  = "pending"
	StatusInflight = "inflight"
	StatusDone     = "done"
	StatusDead     = "dead"
	StatusAborted  = "aborted"
)

// statusStates are the states behind each word (ARCHITECTURE 5).
var statusStates = map[string][]sdk.EntryState{
	StatusPending: {sdk.StatePending, sdk.StateWaiting},
	StatusDone:    {sdk.StateAccepted, sdk.StateDelivered},
	StatusDead:    {sdk.StateDead, sdk.StateExpired},
	StatusAborted: {sdk.StateCancelled},
}

// statusWord is the API's word for a state.
func statusWord(state sdk.EntryState, inflight bool) string {
	switch state {
	case sdk.StatePending, sdk.StateWaiting:
		if inflight {
			return StatusInflight
		}
		return StatusPending
	case sdk.StateAccepted, sdk.StateDelivered:
		return StatusDone
	case sdk.StateDead, sdk.StateExpired:
		return StatusDead
	default:
		return StatusAborted
	}
}

// OutboxRow is one message of the outbox as the API shows it.
type OutboxRow struct {
	ID              string `json:"id"`
	ClientMessageID string `json:"client_message_id"`
	// Status is PROTOCOL 10.7's word, State ours.
	Status     string         `json:"status"`
	State      sdk.EntryState `json:"state"`
	Mesh       string         `json:"mesh"`
	Sender     string         `json:"sender"`
	Target     string         `json:"target"`
	Priority   string         `json:"priority"`
	Attempts   int            `json:"attempts"`
	EnqueuedAt time.Time      `json:"enqueued_at"`
	// NextAttemptAt has a meaning while the row is pending.
	NextAttemptAt   *time.Time `json:"next_attempt_at"`
	NotAfter        *time.Time `json:"not_after"`
	AcceptedAt      *time.Time `json:"accepted_at"`
	DeliveredAt     *time.Time `json:"delivered_at"`
	BrokerMessageID *string    `json:"broker_message_id"`
	LastError       *string    `json:"last_error"`
	// PayloadBytes is the size of the stored body, sealed as it is; null where
	// the body was not read or is no longer needed.
	PayloadBytes *int  `json:"payload_bytes"`
	Seq          int64 `json:"seq"`
}

// rowOf shows an entry.
func rowOf(e *sdk.Entry, inflight bool) OutboxRow {
	row := OutboxRow{
		ID: e.ID, ClientMessageID: e.ClientMessageID, Status: statusWord(e.State, inflight), State: e.State,
		Mesh: e.Mesh, Sender: e.Sender, Target: e.Target, Priority: e.Priority, Attempts: e.Attempts,
		EnqueuedAt: e.EnqueuedAt.UTC(), NotAfter: moment(e.NotAfter), AcceptedAt: moment(e.AcceptedAt),
		DeliveredAt: moment(e.DeliveredAt), BrokerMessageID: text(e.BrokerMessageID), LastError: text(e.LastError),
		Seq: e.Seq,
	}
	if e.State.Live() {
		row.NextAttemptAt = moment(e.DueAt)
	}
	if n := len(e.Body); n > 0 {
		row.PayloadBytes = &n
	}
	return row
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// OutboxPage is the answer of GET /v1/outbox.
type OutboxPage struct {
	Items []OutboxRow `json:"items"`
	// Next goes into ?before= for the next page; empty at the end.
	Next string `json:"next,omitempty"`
}

// outboxList is GET /v1/outbox?status=&mesh=&target=&limit=&before=.
func (s *Server) outboxList(w http.ResponseWriter, r *http.Request) {
	limit, err := limitOf(r, 50, 500)
	if err != nil {
		writeProblem(w, err)
		return
	}
	q := r.URL.Query()
	req := sdk.ListRequest{Mesh: q.Get("mesh"), Target: q.Get("target"), Limit: limit, Before: q.Get("before")}
	status := q.Get("status")
	if status == StatusInflight {
		s.outboxInflight(w, r, req)
		return
	}
	if status != "" {
		states, ok := statusStates[status]
		if !ok {
			writeProblem(w, badParameter("status", status, "use pending, inflight, done, dead or aborted"))
			return
		}
		req.States = states
	}
	page, err := s.opts.Outbox.List(r.Context(), req)
	if err != nil {
		writeProblem(w, err)
		return
	}
	flying := s.inflight()
	out := OutboxPage{Items: make([]OutboxRow, 0, len(page.Entries)), Next: page.Next}
	for i := range page.Entries {
		row := rowOf(&page.Entries[i], flying[page.Entries[i].ID])
		if status == StatusPending && row.Status != StatusPending {
			continue // in flight: a page may be shorter than its limit
		}
		out.Items = append(out.Items, row)
	}
	reply(w, out)
}

// outboxInflight lists what the host has in flight. It comes from the host's
// memory: no state of a row says so.
func (s *Server) outboxInflight(w http.ResponseWriter, r *http.Request, req sdk.ListRequest) {
	out := OutboxPage{Items: []OutboxRow{}}
	for _, id := range s.opts.Outbox.Inflight() {
		if len(out.Items) == req.Limit {
			break
		}
		e, inflight, err := s.opts.Outbox.Get(r.Context(), id)
		if errors.Is(err, sdk.ErrNotFound) {
			continue // settled and pruned meanwhile
		}
		if err != nil {
			writeProblem(w, err)
			return
		}
		if !inflight || (req.Mesh != "" && e.Mesh != req.Mesh) || (req.Target != "" && e.Target != req.Target) {
			continue
		}
		out.Items = append(out.Items, rowOf(e, inflight))
	}
	reply(w, out)
}

func (s *Server) inflight() map[string]bool {
	ids := s.opts.Outbox.Inflight()
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// outboxShow is GET /v1/outbox/ID.
func (s *Server) outboxShow(w http.ResponseWriter, r *http.Request) {
	e, inflight, err := s.opts.Outbox.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, rowOf(e, inflight))
}

// maxWait bounds one GET /v1/outbox/ID/wait; who wants longer asks again.
const maxWait = 10 * time.Minute

// outboxWait is GET /v1/outbox/ID/wait?state=accepted|delivered&timeout=30s. It
// answers with the row once it is there or can no longer get there, and with
// 504 wait_timeout when the time is over.
func (s *Server) outboxWait(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	state := sdk.EntryState(q.Get("state"))
	switch state {
	case "":
		state = sdk.StateAccepted
	case sdk.StateAccepted, sdk.StateDelivered:
	default:
		writeProblem(w, badParameter("state", string(state), "use accepted or delivered"))
		return
	}
	timeout := time.Minute
	if t := q.Get("timeout"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d <= 0 {
			writeProblem(w, badParameter("timeout", t, "use a duration such as 30s"))
			return
		}
		timeout = min(d, maxWait)
	}
	select {
	case s.waiters <- struct{}{}:
		defer func() { <-s.waiters }()
	default:
		writeProblem(w, tooMany("waiters", maxWaiters))
		return
	}
	// The body's deadline would end the wait; errors mean that the client is gone.
	http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	ctx, stop := s.untilStop(ctx)
	defer stop()
	e, err := s.opts.Outbox.Wait(ctx, r.PathValue("id"), state)
	switch {
	case err == nil:
		reply(w, rowOf(e, false))
	case s.isStopping():
		writeProblem(w, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		writeProblem(w, &Problem{
			Status: http.StatusGatewayTimeout, Code: "wait_timeout",
			Message: "not " + string(state) + " within " + timeout.String(),
			Next:    "the message stays queued; ask again, or look at it by GET /v1/outbox/ID",
		})
	default:
		writeProblem(w, err)
	}
}

// untilStop derives a context that also ends at Shutdown.
func (s *Server) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-over }
}

// Requeued is the answer of POST /v1/outbox/requeue; a cancelled message is
// shown by its id and status alone.
type Requeued struct {
	ID              string `json:"id"`
	ClientMessageID string `json:"client_message_id,omitempty"`
	Status          string `json:"status"`
}

// outboxRequeue is POST /v1/outbox/requeue {id}. The row keeps its
// client_message_id, so that a peer who got it already can tell.
func (s *Server) outboxRequeue(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID  string         `json:"id"`
		New jsontext.Value `json:"new_client_message_id"`
		By  string         `json:"aborted_by"` // the reference's; nothing is aborted here
	}
	err := decode(r, bodyOutbox, &body)
	switch {
	case err != nil:
	case len(body.New) > 0:
		err = &Problem{
			Status: http.StatusBadRequest, Code: "new_client_message_id_refused",
			Message: "a requeued message keeps its client_message_id, by which its receiver knows it again",
			Next:    "leave new_client_message_id out, or send a new message",
		}
	case body.ID == "":
		err = missingField("id")
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	e, err := s.opts.Outbox.Requeue(r.Context(), body.ID)
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, Requeued{ID: e.ID, ClientMessageID: e.ClientMessageID, Status: statusWord(e.State, false)})
}

// outboxCancel is POST /v1/outbox/cancel {id}.
func (s *Server) outboxCancel(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID string `json:"id"`
	}
	err := decode(r, bodyOutbox, &body)
	if err == nil && body.ID == "" {
		err = missingField("id")
	}
	if err == nil {
		err = s.opts.Outbox.Cancel(r.Context(), body.ID)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}{body.ID, StatusAborted})
}
