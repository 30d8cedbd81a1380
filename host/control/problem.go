package control

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// Problem is an error with everything that the API says of it.
type Problem struct {
	Status  int
	Code    string // the word in "error"
	Message string
	Next    string
	// RetryAfter becomes the header, in whole seconds; 0: none.
	RetryAfter time.Duration
	// Fields are further members of the body.
	Fields []Field
}

// Field is one further member of an error body; Value is marshalled as JSON.
type Field struct {
	Name  string
	Value any
}

// Error is the message.
func (p *Problem) Error() string { return p.Message }

// Conflict says that the client_message_id was used before and the send cannot
// be answered as a repetition (PROTOCOL 10.4's table).
type Conflict struct {
	// Kind is the table's word, such as "outbox_done_fingerprint_mismatch".
	Kind string
	// FingerprintPrefix is the first 16 hex digits of the stored fingerprint.
	FingerprintPrefix string
	BrokerMessageID   string // empty: null
}

// Error says what the key stands for, and names the conflict.
func (c *Conflict) Error() string {
	if strings.HasSuffix(c.Kind, "_match") {
		return "idempotency key reused: the message is in the outbox already and is not sent any more (" + c.Kind + ")"
	}
	return "idempotency key reused: it belongs to another message (" + c.Kind + ")"
}

// Ambiguous says that a name or prefix fits several peers.
type Ambiguous struct {
	Target     string
	Candidates []Candidate
}

// Candidate is one peer that a target may have meant.
type Candidate struct {
	Mesh         string `json:"mesh"`
	PubKey       string `json:"pubkey"`
	MemberPubKey string `json:"member_pubkey,omitempty"`
	DisplayName  string `json:"display_name,omitempty"`
	Role         string `json:"role,omitempty"`
}

// Error names the target.
func (a *Ambiguous) Error() string {
	return strconv.Quote(a.Target) + " fits " + strconv.Itoa(len(a.Candidates)) + " peers"
}

// MeshRequired says that there are several meshes and none was named.
type MeshRequired struct{ Attached []string }

// Error says so.
func (m *MeshRequired) Error() string { return "several meshes are configured and none was named" }

// UnknownOutcome says that the outbox did not answer: the message may be stored
// or not. Sending again with the same ClientMessageID is safe.
type UnknownOutcome struct {
	ClientMessageID string
	Err             error
}

// Error includes the reason.
func (u *UnknownOutcome) Error() string {
	if u.Err == nil {
		return "the outbox did not answer; the message may or may not be stored"
	}
	return "the outbox did not answer; the message may or may not be stored: " + u.Err.Error()
}

// Unwrap returns the reason.
func (u *UnknownOutcome) Unwrap() error { return u.Err }

// codeStatus is the HTTP status of each sdk.Code.
var codeStatus = map[sdk.Code]int{
	sdk.CodeInvalid:     http.StatusBadRequest,
	sdk.CodeNotFound:    http.StatusNotFound,
	sdk.CodeConflict:    http.StatusConflict,
	sdk.CodeUnavailable: http.StatusServiceUnavailable,
	sdk.CodePermission:  http.StatusForbidden,
	sdk.CodeFenced:      http.StatusServiceUnavailable,
	sdk.CodeSealed:      http.StatusServiceUnavailable,
	sdk.CodeTimeout:     http.StatusGatewayTimeout,
	sdk.CodeFull:        http.StatusServiceUnavailable,
	sdk.CodeInternal:    http.StatusInternalServerError,
}

// reasonStatus are the reasons for which PROTOCOL 10.3 and 10.4 fix a status
// that differs from their code's.
var reasonStatus = map[string]int{
	"route_failed": http.StatusBadGateway,
}

// problemOf turns any error of a room into what the caller sees. It is the only
// place that knows which status belongs to which error.
func problemOf(err error) *Problem {
	var (
		p  *Problem
		c  *Conflict
		a  *Ambiguous
		m  *MeshRequired
		u  *UnknownOutcome
		se *sdk.Error
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &c):
		return conflictProblem(c)
	case errors.As(err, &a):
		return &Problem{
			Status: http.StatusConflict, Code: "ambiguous_target", Message: a.Error(),
			Next:   "send to one of the candidates' keys",
			Fields: []Field{{"candidates", a.Candidates}},
		}
	case errors.As(err, &m):
		return &Problem{
			Status: http.StatusBadRequest, Code: "mesh_required", Message: m.Error(),
			Next:   "name one of the attached meshes",
			Fields: []Field{{"attached", m.Attached}},
		}
	case errors.As(err, &u):
		return &Problem{
			Status: http.StatusServiceUnavailable, Code: "outcome_unknown", Message: u.Error(),
			Next:   "send again with this client_message_id; it is stored once at most",
			Fields: []Field{{"client_message_id", u.ClientMessageID}},
		}
	case errors.As(err, &se):
		return sdkProblem(se, err)
	case errors.Is(err, context.DeadlineExceeded):
		return &Problem{Status: http.StatusGatewayTimeout, Code: "timeout", Message: err.Error(), Next: "try again"}
	case errors.Is(err, context.Canceled):
		return &Problem{
			Status: http.StatusServiceUnavailable, Code: "stopping",
			Message: "the daemon is stopping", Next: "try again once it runs",
		}
	default:
		return &Problem{
			Status: http.StatusInternalServerError, Code: string(sdk.CodeInternal), Message: err.Error(),
			Next: "this is a defect; the daemon's log says more",
		}
	}
}

func conflictProblem(c *Conflict) *Problem {
	p := &Problem{
		Status: http.StatusConflict, Code: "idempotency_key_reused", Message: c.Error(),
		Next: "use a new client_message_id for another message, or requeue the stored one",
		Fields: []Field{
			{"conflict", c.Kind}, {"daemon_fingerprint_prefix", c.FingerprintPrefix}, {"broker_message_id", nil},
		},
	}
	if c.BrokerMessageID != "" {
		p.Fields[2].Value = c.BrokerMessageID
	}
	return p
}

// sdkProblem keeps the words that wrapping added around e: they say which
// operation failed.
func sdkProblem(e *sdk.Error, whole error) *Problem {
	status, ok := reasonStatus[e.Reason]
	if !ok {
		if status, ok = codeStatus[e.Code]; !ok {
			status = http.StatusInternalServerError
		}
	}
	p := &Problem{Status: status, Code: e.Reason, Message: whole.Error(), Next: e.Next, RetryAfter: e.RetryAfter}
	if p.Code == "" {
		p.Code = string(e.Code)
	}
	return p
}

// appendProblem appends the body of p.
func appendProblem(b []byte, p *Problem) []byte {
	b = append(b, `{"error":`...)
	b = appendString(b, p.Code)
	b = append(b, `,"message":`...)
	b = appendString(b, p.Message)
	b = append(b, `,"next":`...)
	b = appendString(b, p.Next)
	for _, f := range p.Fields {
		v, err := json.Marshal(f.Value)
		if err != nil {
			continue // a Field of ours that cannot be marshalled must not hide the error itself
		}
		b = append(b, ',')
		b = appendString(b, f.Name)
		b = append(b, ':')
		b = append(b, v...)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string; invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	// The only error is invalid UTF-8, and the replacement is appended all the same.
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// statusNext is the next step of errors whose room names none, by status.
var statusNext = map[int]string{
	http.StatusBadRequest:          "correct the request; docs/api.md has the fields of each route",
	http.StatusForbidden:           "meshhost plugin list and the log say what is allowed",
	http.StatusNotFound:            "meshhost status shows what there is",
	http.StatusConflict:            "look at its state now, then decide",
	http.StatusInternalServerError: "this is a defect; the daemon's log says more",
	http.StatusBadGateway:          "meshhost peer list -all shows who is there",
	http.StatusServiceUnavailable:  "try again later; meshhost status shows what is down",
	http.StatusGatewayTimeout:      "try again; meshhost status shows what is slow",
}

// writeProblem answers with err.
func writeProblem(w http.ResponseWriter, err error) {
	p := *problemOf(err)
	if p.Next == "" {
		p.Next = statusNext[p.Status]
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10))
	}
	buf := getBuffer()
	buf.b = appendProblem(buf.b, &p)
	writeBytes(w, p.Status, buf.b)
	putBuffer(buf)
}
