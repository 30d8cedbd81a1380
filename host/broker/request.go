package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

// RemoteError is the broker's refusal of a request (PROTOCOL 1.6).
type RemoteError struct {
	Code    string
	Message string
}

// Error says the broker's words.
func (e *RemoteError) Error() string { return "broker: " + e.Code + ": " + e.Message }

// Request writes a frame of any type and returns the whole answering frame. The body is what [Conn.Notify] takes. Errors:
// *[RemoteError], [ErrNotConnected], [ErrConnectionLost], [ErrTimeout] after 5 s, [ErrBusy], the context's, and
// [wire.ErrMalformed] or [wire.ErrTooLarge] for a body that can't be sent.
func (c *Conn) Request(ctx context.Context, frameType string, body any) (jsontext.Value, error) {
	f, err := c.ask(ctx, frameType, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", frameType, err)
	}
	return f.Raw, nil
}

func (c *Conn) ask(ctx context.Context, frameType string, body any) (wire.Frame, error) {
	if err := ctx.Err(); err != nil {
		return wire.Frame{}, err
	}
	id := c.reqIDs + strconv.FormatUint(c.reqCount.Add(1), 36)
	frame, err := encode(frameType, id, body)
	if err != nil {
		return wire.Frame{}, err
	}
	socket := c.link.Ready()
	if socket == nil {
		return wire.Frame{}, ErrNotConnected
	}
	t := &trip{id: id, reply: make(chan reply, 1)}
	if err := c.flight.add(t, &c.flight.requests); err != nil {
		return wire.Frame{}, err
	}
	if err := socket.Write(frame); err != nil && c.flight.takeThis(t) {
		return wire.Frame{}, notConnected(err)
	}
	select {
	case r := <-t.reply:
		return r.frame, r.err
	case <-ctx.Done():
		c.flight.takeThis(t)
		return wire.Frame{}, ctx.Err()
	}
}

// Notify writes a frame that nobody answers: set_state, set_status, join_group. The body is a struct or map that encodes to a
// JSON object, raw JSON ([]byte, jsontext.Value), or nil for none; "type" is added. [ErrNotConnected] when there is no socket.
func (c *Conn) Notify(ctx context.Context, frameType string, body any) error {
	frame, err := encode(frameType, "", body)
	if err == nil {
		err = c.link.Send(ctx, frame)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", frameType, notConnected(err))
	}
	return nil
}

func encode(frameType, id string, body any) ([]byte, error) {
	r := wire.Request{Type: frameType, ReqID: id}
	switch b := body.(type) {
	case nil:
	case jsontext.Value:
		r.Body = b
	case []byte:
		r.Body = b
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
		}
		r.Body = raw
	}
	return r.Encode()
}

func notConnected(err error) error {
	if errors.Is(err, link.ErrNotReady) {
		return ErrNotConnected
	}
	return err
}

// replyOf keeps an answer beyond the reader's buffer.
func replyOf(f *wire.Frame) reply {
	switch f.Kind {
	case wire.KindError:
		e := f.Error()
		return reply{err: &RemoteError{Code: e.Code, Message: e.Message}}
	case wire.KindAck:
		if ack := f.Ack(); ack.Error != "" {
			return reply{err: &RemoteError{Code: "refused", Message: ack.Error}}
		}
	}
	own := *f
	own.Raw = bytes.Clone(f.Raw)
	return reply{frame: own}
}

// ListPeers asks the broker who is there, this connection included (PROTOCOL 7.1). A row that can't be read is left out and logged.
func (c *Conn) ListPeers(ctx context.Context) ([]Peer, error) {
	f, err := c.ask(ctx, wire.TypeListPeers, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wire.TypeListPeers, err)
	}
	peers, bad, err := wire.DecodePeers(f.Raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wire.TypeListPeers, err)
	}
	if bad > 0 {
		c.log.Warn("peer rows that can't be read were left out", "rows", bad)
	}
	return peers, nil
}

// MessageStatus asks what became of a message that the broker accepted (PROTOCOL 7.6). A message that the broker no longer
// knows is a *[RemoteError] with Code "not_found".
func (c *Conn) MessageStatus(ctx context.Context, messageID string) (*wire.MessageStatusResult, error) {
	f, err := c.ask(ctx, wire.TypeMessageStatus, wire.MessageStatus{MessageID: messageID})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wire.TypeMessageStatus, err)
	}
	var result wire.MessageStatusResult
	if err := wire.Decode(f.Raw, &result); err != nil {
		return nil, fmt.Errorf("%s: %w", wire.TypeMessageStatus, err)
	}
	return &result, nil
}
