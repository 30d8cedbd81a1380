package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ndjson is the type of bodies with one JSON value a line.
const ndjson = "application/x-ndjson"

// BatchLine is the answer to one line of a batch.
type BatchLine struct {
	// Line counts from 1.
	Line int
	// Err is why the message was not taken; nil: it was.
	Err *APIError
	// Raw is the whole line, valid during the call.
	Raw jsontext.Value
	// More is true when the next answer is there already.
	More bool
}

// SendBatch sends the messages of in, one JSON object a line as POST /v1/send
// takes it, and calls f with the answer to each, in order, as they come. mesh and
// priority are of lines that name none. The daemon reads no faster than it
// answers; the last answer may be to a line that was not taken with all behind it.
func (c *Client) SendBatch(ctx context.Context, in io.Reader, mesh, priority string, f func(BatchLine) error) error {
	q := meshQuery(mesh)
	if priority != "" {
		q.Set("priority", priority)
	}
	return c.stream(ctx, http.MethodPost, "/v1/send/batch", q, in, func(raw []byte, more bool) error {
		l := BatchLine{Raw: raw, More: more}
		var head struct {
			Line    int    `json:"line"`
			Status  int    `json:"http_status"`
			Error   string `json:"error"`
			Message string `json:"message"`
			Next    string `json:"next"`
		}
		if err := json.Unmarshal(raw, &head); err != nil {
			return fmt.Errorf("the daemon's answer: %w", err)
		}
		l.Line = head.Line
		if head.Error != "" {
			l.Err = &APIError{Status: head.Status, Code: head.Error, Message: head.Message, Next: head.Next, Body: raw}
		}
		return f(l)
	})
}

// stream sends in, or nothing if it is nil, and calls f with each line of the
// answer; more tells that the next one is there already. An answer that breaks
// off is an *UnreachableError.
func (c *Client) stream(ctx context.Context, method, path string, q url.Values, in io.Reader, f func(line []byte, more bool) error) error {
	source := &watched{r: in}
	var body io.Reader
	kind := ""
	if in != nil {
		body, kind = source, ndjson
	}
	resp, err := c.open(ctx, method, path, q, kind, body)
	if err != nil {
		if source.failed() != nil {
			return source.failed()
		}
		return err
	}
	defer resp.Body.Close()
	br := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(br)
		switch {
		case errors.Is(err, io.EOF):
			return source.failed()
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil && source.failed() != nil:
			return source.failed()
		case err != nil:
			return &UnreachableError{Socket: c.socket, Err: fmt.Errorf("the answer broke off: %w", err)}
		case len(line) == 0:
			continue
		}
		if err := f(line, br.Buffered() > 0); err != nil {
			return err
		}
	}
}
