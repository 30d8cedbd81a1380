package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// maxReply bounds an answer that the client reads into memory.
const maxReply = 64 << 20

// Client talks to a daemon over its socket, by one connection that it keeps.
// Its methods return *UnreachableError, *APIError or the context's error.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client; it connects with the first call. The socket's file
// is never made or removed by it.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:       1,
		DisableCompression: true,
	}}}
}

// Socket is the path that the client talks to.
func (c *Client) Socket() string { return c.socket }

// Close ends the idle connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// UnreachableError says that no daemon answered on the socket.
type UnreachableError struct {
	Socket string
	Err    error
}

// Error names the socket and the reason.
func (e *UnreachableError) Error() string {
	return "no daemon answers on " + e.Socket + ": " + reason(e.Err)
}

// Unwrap returns the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// reason cuts the layers that repeat the address.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err.Error()
	}
	return err.Error()
}

// APIError is an error that the daemon answered with.
type APIError struct {
	Status  int
	Code    string
	Message string
	Next    string
	// Body is the whole answer; some codes carry more, such as "candidates".
	Body jsontext.Value
}

// Error is the daemon's sentence.
func (e *APIError) Error() string { return e.Message }

// Candidates are those of an ambiguous_target.
func (e *APIError) Candidates() []Candidate {
	var body struct {
		Candidates []Candidate `json:"candidates"`
	}
	if json.Unmarshal(e.Body, &body) != nil {
		return nil
	}
	return body.Candidates
}

// ClientMessageID is that of an outcome_unknown.
func (e *APIError) ClientMessageID() string {
	var body struct {
		ID string `json:"client_message_id"`
	}
	if json.Unmarshal(e.Body, &body) != nil {
		return ""
	}
	return body.ID
}

// do sends one request to an escaped path; the caller closes the body.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	kind := ""
	if body != nil {
		kind = "application/json"
	}
	return c.open(ctx, method, path, query, kind, bytes.NewReader(body))
}

// open is do for a body of any kind, which may still be read when the answer
// begins.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, kind string, body io.Reader) (*http.Response, error) {
	target := "http://localhost" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &UnreachableError{Socket: c.socket, Err: err}
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, apiError(resp)
	}
	return resp, nil
}

// apiError reads an error answer; one that isn't ours gets a sentence as well.
func apiError(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	e := &APIError{Status: resp.StatusCode, Body: raw}
	var body struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Next    string `json:"next"`
	}
	if json.Unmarshal(raw, &body) != nil || body.Error == "" {
		e.Code, e.Message = "bad_reply", "the daemon answered "+resp.Status
		return e
	}
	e.Code, e.Message, e.Next = body.Error, body.Message, body.Next
	return e
}

// call sends in (nil: no body) and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &UnreachableError{Socket: c.socket, Err: fmt.Errorf("the answer broke off: %w", err)}
	}
	if v, ok := out.(*jsontext.Value); ok {
		*v = raw
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: the daemon's answer: %w", method, path, err)
	}
	return nil
}

// Version asks what the daemon is.
func (c *Client) Version(ctx context.Context) (VersionReply, error) {
	var out VersionReply
	err := c.call(ctx, http.MethodGet, "/v1/version", nil, nil, &out)
	return out, err
}

// Status asks for the state of the host.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, nil, &out)
	return out, err
}

// Reload makes the daemon read its configuration again and returns when that is
// in force, or an *APIError that says why the old one is.
func (c *Client) Reload(ctx context.Context) (ReloadReply, error) {
	var out ReloadReply
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, nil, &out)
	return out, err
}

// Plugins lists the plugin processes.
func (c *Client) Plugins(ctx context.Context) ([]PluginStatus, error) {
	var out pluginList
	err := c.call(ctx, http.MethodGet, "/v1/plugins", nil, nil, &out)
	return out.Plugins, err
}

// Peers lists the peers of one mesh, or of all.
func (c *Client) Peers(ctx context.Context, mesh string, all bool) (PeersReply, error) {
	q := meshQuery(mesh)
	if all {
		q.Set("all", "true")
	}
	var out PeersReply
	err := c.call(ctx, http.MethodGet, "/v1/peers", q, nil, &out)
	return out, err
}

// Features lists the features of the running plugins.
func (c *Client) Features(ctx context.Context) ([]Feature, error) {
	var out featureList
	err := c.call(ctx, http.MethodGet, "/v1/features", nil, nil, &out)
	return out.Features, err
}

// Call runs a feature's method; params is a JSON object.
func (c *Client) Call(ctx context.Context, feature, method, mesh string, params jsontext.Value) (jsontext.Value, error) {
	var out jsontext.Value
	path := "/v1/features/" + url.PathEscape(feature) + "/" + url.PathEscape(method)
	err := c.call(ctx, http.MethodPost, path, meshQuery(mesh), params, &out)
	return out, err
}

// SendResult is the answer of POST /v1/send.
type SendResult struct {
	ID              string    `json:"id"`
	ClientMessageID string    `json:"client_message_id"`
	Status          string    `json:"status"`
	Duplicate       bool      `json:"duplicate,omitzero"`
	BrokerMessageID string    `json:"broker_message_id,omitempty"`
	Durable         bool      `json:"durable"`
	Resolved        *Resolved `json:"resolved,omitempty"`
}

// Send puts a message in the outbox.
func (c *Client) Send(ctx context.Context, req SendRequest) (SendResult, error) {
	in := struct {
		To              string         `json:"to"`
		Message         string         `json:"message"`
		Priority        string         `json:"priority,omitempty"`
		Meta            jsontext.Value `json:"meta,omitzero"`
		ReplyToID       string         `json:"reply_to_id,omitempty"`
		ClientMessageID string         `json:"client_message_id,omitempty"`
		Mesh            string         `json:"mesh,omitempty"`
	}{req.To, req.Message, req.Priority, req.Meta, req.ReplyToID, req.ClientMessageID, req.Mesh}
	var out SendResult
	err := c.call(ctx, http.MethodPost, "/v1/send", nil, in, &out)
	return out, err
}

// OutboxQuery chooses rows of the outbox.
type OutboxQuery struct {
	Status string // one of the Status words; empty: all
	Mesh   string
	Target string
	Limit  int // 0: 50
	Before string
}

// OutboxList lists messages, newest first.
func (c *Client) OutboxList(ctx context.Context, q OutboxQuery) (OutboxPage, error) {
	v := meshQuery(q.Mesh)
	for name, s := range map[string]string{"status": q.Status, "target": q.Target, "before": q.Before} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var out OutboxPage
	err := c.call(ctx, http.MethodGet, "/v1/outbox", v, nil, &out)
	return out, err
}

// OutboxShow shows one message.
func (c *Client) OutboxShow(ctx context.Context, id string) (OutboxRow, error) {
	var out OutboxRow
	err := c.call(ctx, http.MethodGet, "/v1/outbox/"+url.PathEscape(id), nil, nil, &out)
	return out, err
}

// OutboxWait returns the row once it is in state (accepted or delivered) or can
// no longer get there; *APIError with code wait_timeout when that takes longer.
func (c *Client) OutboxWait(ctx context.Context, id string, state sdk.EntryState, timeout time.Duration) (OutboxRow, error) {
	q := url.Values{"state": {string(state)}, "timeout": {timeout.String()}}
	var out OutboxRow
	err := c.call(ctx, http.MethodGet, "/v1/outbox/"+url.PathEscape(id)+"/wait", q, nil, &out)
	return out, err
}

// OutboxTrace returns the way of a message by its id, its client_message_id or
// the broker's id of it.
func (c *Client) OutboxTrace(ctx context.Context, id string) (TraceReply, error) {
	var out TraceReply
	err := c.call(ctx, http.MethodGet, "/v1/outbox/"+url.PathEscape(id)+"/trace", nil, nil, &out)
	return out, err
}

// OutboxRequeue makes a dead, expired or cancelled message pending again.
func (c *Client) OutboxRequeue(ctx context.Context, id string) (Requeued, error) {
	var out Requeued
	err := c.call(ctx, http.MethodPost, "/v1/outbox/requeue", nil, idBody{id}, &out)
	return out, err
}

// OutboxCancel stops a message that was not sent yet.
func (c *Client) OutboxCancel(ctx context.Context, id string) error {
	var out jsontext.Value
	return c.call(ctx, http.MethodPost, "/v1/outbox/cancel", nil, idBody{id}, &out)
}

type idBody struct {
	ID string `json:"id"`
}

func meshQuery(mesh string) url.Values {
	q := url.Values{}
	if mesh != "" {
		q.Set("mesh", mesh)
	}
	return q
}

// StreamEvent is one event of GET /v1/events. Data is the whole object with ts,
// seq and mesh.
type StreamEvent struct {
	Kind string
	Data jsontext.Value
}

// Events calls f for each event of these kinds (none: all) until ctx ends, f
// fails or the daemon goes. connected, if not nil, is called once the stream is
// open: no event after that is missed.
func (c *Client) Events(ctx context.Context, kinds []string, mesh string, connected func() error, f func(StreamEvent) error) error {
	q := meshQuery(mesh)
	if len(kinds) > 0 {
		q.Set("kind", strings.Join(kinds, ","))
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/events", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if connected != nil {
		if err := connected(); err != nil {
			return err
		}
	}
	err = readEvents(resp.Body, f)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &UnreachableError{Socket: c.socket, Err: errors.New("the daemon ended the stream")}
	default:
		return err
	}
}
