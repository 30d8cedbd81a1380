package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Typed is a frame with a fixed type.
type Typed interface {
	// FrameType returns the frame's "type".
	FrameType() string
}

// Encode writes a frame, its type first. [ErrTooLarge] above [MaxFrame]: hold it against what clients send; a broker that has
// longer answers uses [EncodeAny].
func Encode(f Typed) ([]byte, error) {
	raw, err := EncodeAny(f)
	if err != nil {
		return nil, err
	}
	if err := CheckSize(len(raw)); err != nil {
		return nil, fmt.Errorf("encode %s: %w", f.FrameType(), err)
	}
	return raw, nil
}

// EncodeAny is [Encode] without the limit, for frames from a broker.
func EncodeAny(f Typed) ([]byte, error) {
	body, err := json.Marshal(f, jsontext.PreserveRawStrings(true)) // users' values stay as they wrote them
	if err != nil {
		return nil, malformed(f.FrameType(), err)
	}
	return splice(f.FrameType(), "", body)
}

// Decode reads a frame into one of this package's types, whose type it must have. [ErrMalformed] otherwise.
func Decode(raw []byte, into Typed) error {
	want := into.FrameType()
	if err := unmarshal(raw, into, want); err != nil {
		return err
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := unmarshal(raw, &head, want); err != nil {
		return err
	}
	if head.Type != want && !(want == TypePush && head.Type == TypeInbound) {
		return fmt.Errorf("%w: type %q, want %q", ErrMalformed, head.Type, want)
	}
	return nil
}

// Request is a frame of any type with its correlation id and a body that the caller wrote: for features, whose frames this
// package needn't know.
type Request struct {
	Type  string
	ReqID string         // left out when empty
	Body  jsontext.Value // an object, or empty for none; its members stay byte for byte
}

// Encode writes the frame {"type":…,"_reqId":…, members of Body}. The body must be an object that has neither "type" nor
// "_reqId" itself. [ErrMalformed], [ErrTooLarge].
func (r Request) Encode() ([]byte, error) {
	if r.Type == "" {
		return nil, fmt.Errorf("%w: request without a type", ErrMalformed)
	}
	body := r.Body
	if len(bytes.Trim(body, space)) == 0 {
		body = jsontext.Value("{}")
	}
	raw, err := splice(r.Type, r.ReqID, body)
	if err != nil {
		return nil, err
	}
	if err := CheckSize(len(raw)); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Type, err)
	}
	// The body is someone else's: one valid object without our two names, or the broker would read another frame than we meant.
	if !jsontext.Value(raw).IsValid() {
		return nil, fmt.Errorf("%w: body of %s is no valid JSON object, or it names type or _reqId itself", ErrMalformed, r.Type)
	}
	return raw, nil
}

// space is JSON's white space. bytes.TrimSpace knows more, and what it took off would turn a body that is no JSON into one.
const space = " \t\r\n"

// splice puts type and request id before the members of an object.
func splice(typ, reqID string, object []byte) ([]byte, error) {
	object = bytes.Trim(object, space)
	if len(object) < 2 || object[0] != '{' {
		return nil, fmt.Errorf("%w: body of %s is not a JSON object", ErrMalformed, typ)
	}
	out := make([]byte, 0, len(object)+len(typ)+len(reqID)+24)
	out = append(out, `{"type":`...)
	out, err := jsontext.AppendQuote(out, typ)
	if err != nil {
		return nil, malformed(typ, err)
	}
	if reqID != "" {
		out = append(out, `,"_reqId":`...)
		if out, err = jsontext.AppendQuote(out, reqID); err != nil {
			return nil, malformed(typ, err)
		}
	}
	rest := bytes.TrimLeft(object[1:], space)
	if rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...), nil
}

func unmarshal(raw []byte, into any, what string) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return malformed(what, err)
	}
	return nil
}

func malformed(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }
