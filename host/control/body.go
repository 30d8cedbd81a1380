package control

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// The largest bodies in bytes, by route (PROTOCOL 10.3).
const (
	bodySend    = 256 << 10
	bodyState   = 256 << 10
	bodyCall    = 256 << 10
	bodySeen    = 64 << 10
	bodyProfile = 16 << 10
	bodyOutbox  = 4 << 10
)

// read appends the whole body to buf, at most limit bytes.
func (buf *buffer) read(r *http.Request, limit int) error {
	if r.ContentLength > int64(limit) {
		return tooLarge(limit)
	}
	for {
		if len(buf.b) > limit {
			return tooLarge(limit)
		}
		if len(buf.b) == cap(buf.b) {
			buf.b = append(buf.b, 0)[:len(buf.b)]
		}
		n, err := r.Body.Read(buf.b[len(buf.b):min(cap(buf.b), limit+1)])
		buf.b = buf.b[:len(buf.b)+n]
		if errors.Is(err, io.EOF) {
			if len(buf.b) > limit {
				return tooLarge(limit)
			}
			return nil
		}
		if err != nil {
			return &Problem{
				Status: http.StatusBadRequest, Code: "incomplete_body", Message: "read the body: " + err.Error(),
				Next: "send the whole body within " + bodyTimeout.String(),
			}
		}
	}
}

func tooLarge(limit int) error {
	return &Problem{
		Status: http.StatusRequestEntityTooLarge, Code: "payload_too_large",
		Message: "the body is larger than " + strconv.Itoa(limit) + " bytes", Next: "send less",
	}
}

// decode reads the body as one JSON object into v, a pointer to a struct. What
// v does not know is an error: silently dropping a misspelt field would lose it.
func decode(r *http.Request, limit int, v any) error {
	buf := getBuffer()
	defer putBuffer(buf)
	if err := buf.read(r, limit); err != nil {
		return err
	}
	if err := json.Unmarshal(buf.b, v, json.RejectUnknownMembers(true)); err != nil {
		return &Problem{
			Status: http.StatusBadRequest, Code: "invalid_json", Message: "the body: " + jsonWords(err),
			Next: "send one JSON object with the fields of this route",
		}
	}
	return nil
}

// jsonWords says what is wrong with a text without the names of our types.
func jsonWords(err error) string {
	var se *json.SemanticError
	switch {
	case !errors.As(err, &se):
		return err.Error()
	case errors.Is(err, json.ErrUnknownName):
		return "there is no field " + strconv.Quote(se.JSONPointer.LastToken())
	case se.JSONPointer == "":
		return "it is not a JSON object"
	default:
		return "the field " + strconv.Quote(strings.TrimPrefix(string(se.JSONPointer), "/")) + " can't be a JSON " + se.JSONKind.String()
	}
}

// missingField says that a required field is not there.
func missingField(name string) error {
	return &Problem{
		Status: http.StatusBadRequest, Code: "missing_field", Message: "the field " + strconv.Quote(name) + " is missing",
		Next: "add it",
	}
}

// badParameter says that a query parameter or field has no such value.
func badParameter(name, value, next string) error {
	return &Problem{
		Status: http.StatusBadRequest, Code: "bad_" + name, Message: name + " is " + strconv.Quote(value), Next: next,
	}
}

// limitOf reads the query parameter limit.
func limitOf(r *http.Request, fallback, most int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, badParameter("limit", s, "use a number from 1 to "+strconv.Itoa(most))
	}
	return min(n, most), nil
}

// boolOf reads a query parameter that is true or false.
func boolOf(r *http.Request, name string) (bool, error) {
	switch s := r.URL.Query().Get(name); s {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	default:
		return false, badParameter(name, s, "use true or false")
	}
}
