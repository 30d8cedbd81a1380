package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind says what a frame from the broker is for.
type Kind uint8

// Kinds of frames from a broker.
const (
	KindUnknown  Kind = iota // a type this package doesn't know, without a request id
	KindHelloAck             // hello_ack
	KindAck                  // ack: of a send by ID, of a request by ReqID
	KindPush                 // push, or its alias inbound
	KindError                // error
	KindReply                // anything else that answers a request
	KindEvent                // unsolicited: state_change, stream_data, *_forward
)

// String names the kind for logs.
func (k Kind) String() string {
	names := [...]string{"unknown", "hello_ack", "ack", "push", "error", "reply", "event"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Frame is a classified frame from a broker.
type Frame struct {
	Kind  Kind
	Type  string // "type"
	ReqID string // "_reqId", if it is a string
	ID    string // "id", if it is a string: acks of sends, and errors of topic requests (PROTOCOL 1.6)
	Raw   []byte // the frame as it came; aliases what Classify was given

	messageID string
	ackError  string // "error"
	code      string
	message   string
	queued    bool
}

// Ack returns the frame as an [Ack], its error's text cut at a thousand bytes; it is meant for [KindAck] and costs nothing, the
// one pass has read it all.
func (f *Frame) Ack() Ack {
	return Ack{ID: f.ID, MessageID: f.messageID, Queued: f.queued, Error: clip(f.ackError), ReqID: f.ReqID}
}

// Error returns the frame as an [Error], its texts cut at a thousand bytes; it is meant for [KindError].
func (f *Frame) Error() Error {
	return Error{Code: clip(f.code), Message: clip(f.message), ID: f.ID, ReqID: f.ReqID}
}

// maxWords bounds what is kept of the broker's words, in bytes: they go to logs, states and answers, and a frame may be megabytes.
const maxWords = 1000

func clip(words string) string {
	if len(words) <= maxWords {
		return words
	}
	return strings.ToValidUTF8(words[:maxWords], "") + "…"
}

// CorrelationID returns the id that a request of ours would be known by: "_reqId", else "id" (PROTOCOL 1.6), else "".
func (f *Frame) CorrelationID() string {
	if f.ReqID != "" {
		return f.ReqID
	}
	return f.ID
}

// A scanner is reused, since a decoder is the only allocation of a scan besides the strings.
type scanner struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

var scanners = sync.Pool{New: func() any { return &scanner{dec: new(jsontext.Decoder)} }}

// Classify reads type and correlation ids of a frame in one pass, which also checks the whole of it: one JSON object, no
// duplicate names, valid UTF-8. Errors are [ErrMalformed]. An id that isn't a string counts as absent.
func Classify(raw []byte) (Frame, error) {
	s := scanners.Get().(*scanner)
	// The decoder reads the slice in place; it must not outlive this call.
	s.buf = *bytes.NewBuffer(raw)
	s.dec.Reset(&s.buf)
	f, err := scan(s.dec)
	s.buf = bytes.Buffer{}
	s.dec.Reset(&s.buf)
	scanners.Put(s)
	if err != nil {
		return Frame{}, err
	}
	f.Raw = raw
	f.Kind = kindOf(&f)
	return f, nil
}

func scan(dec *jsontext.Decoder) (Frame, error) {
	var f Frame
	tok, err := dec.ReadToken()
	if err != nil {
		return f, malformed("frame", err)
	}
	if tok.Kind() != '{' {
		return f, fmt.Errorf("%w: a JSON %s, want an object", ErrMalformed, tok.Kind())
	}
	typed := false
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return f, malformed("frame", err)
		}
		if bytes.IndexByte(name, '\\') >= 0 { // an escaped name is the same name
			name = name.Clone() // it lies inside the caller's frame
			if err := name.Canonicalize(); err != nil {
				return f, malformed("frame", err)
			}
		}
		field := f.field(name)
		if bytes.Equal(name, []byte(`"queued"`)) && (dec.PeekKind() == 't' || dec.PeekKind() == 'f') {
			value, err := dec.ReadToken()
			if err != nil {
				return f, malformed("frame", err)
			}
			f.queued = value.Bool()
			continue
		}
		if field == nil || dec.PeekKind() != '"' {
			if err := dec.SkipValue(); err != nil {
				return f, malformed("frame", err)
			}
			continue
		}
		value, err := dec.ReadToken()
		if err != nil {
			return f, malformed("frame", err)
		}
		*field = value.String()
		typed = typed || field == &f.Type
	}
	if _, err := dec.ReadToken(); err != nil {
		return f, malformed("frame", err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return f, fmt.Errorf("%w: something follows the object", ErrMalformed)
	}
	if !typed {
		return f, fmt.Errorf("%w: no string \"type\"", ErrMalformed)
	}
	return f, nil
}

// field maps a quoted member name to where its string goes.
func (f *Frame) field(quoted []byte) *string {
	switch string(quoted) {
	case `"type"`:
		return &f.Type
	case `"_reqId"`:
		return &f.ReqID
	case `"id"`:
		return &f.ID
	case `"messageId"`:
		return &f.messageID
	case `"code"`:
		return &f.code
	case `"error"`:
		return &f.ackError
	case `"message"`:
		return &f.message
	}
	return nil
}

func kindOf(f *Frame) Kind {
	switch f.Type {
	case TypeHelloAck:
		return KindHelloAck
	case TypeAck:
		return KindAck
	case TypePush, TypeInbound:
		return KindPush
	case TypeError:
		return KindError
	case TypeStateChange, TypeStreamData, TypeMCPCallForward, TypePeerFileForward, TypePeerDirForward:
		return KindEvent
	case TypePeersList, TypeStateResult, TypeStateList, TypeMessageStatusResult, TypeMeshInfoResult:
		return KindReply
	}
	if f.ReqID != "" {
		return KindReply
	}
	return KindUnknown
}
