package devbroker

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Inbound frames are decoded as loosely as a JavaScript broker takes them: a field of the wrong type counts as absent, of
// a repeated name the last one holds, unknown fields are skipped.

var loose = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func unmarshal(msg []byte, v any) error { return json.Unmarshal(msg, v, loose) }

// text is a string field; OK is false when it was absent or no string.
type text struct {
	S  string
	OK bool
}

// UnmarshalJSONFrom takes any JSON value.
func (t *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*t = text{}
	if dec.PeekKind() != '"' {
		return dec.SkipValue()
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return err
	}
	*t = text{S: tok.String(), OK: true}
	return nil
}

// number is a numeric field; OK is false when it was absent or no number.
type number struct {
	F  float64
	OK bool
}

// UnmarshalJSONFrom takes any JSON value.
func (n *number) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*n = number{}
	if dec.PeekKind() != '0' {
		return dec.SkipValue()
	}
	v, err := dec.ReadValue()
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(string(v), 64)
	*n = number{F: f, OK: err == nil && !math.IsInf(f, 0)}
	return nil
}

// String is the number as JavaScript prints integers into a signed text.
func (n number) String() string { return strconv.FormatFloat(n.F, 'f', -1, 64) }

// truth is a boolean field.
type truth struct{ B, OK bool }

// UnmarshalJSONFrom takes any JSON value.
func (b *truth) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*b = truth{}
	v, err := dec.ReadValue()
	if err == nil && (v.Kind() == 't' || v.Kind() == 'f') {
		*b = truth{B: v.Kind() == 't', OK: true}
	}
	return err
}

// reqID is the `_reqId` of a request as it came; it is echoed only if JavaScript calls it true.
type reqID = jsontext.Value

func echo(r reqID) reqID {
	switch string(r) {
	case "", "null", "false", `""`, "0", "-0":
		return nil
	}
	return plain(r)
}

// plain is a value as a JavaScript broker would print it again, so that strict clients can read what loose ones sent: no
// repeated names, no broken UTF-8. It is nil for what has no such form, a number beyond all bounds.
func plain(v jsontext.Value) jsontext.Value {
	var parsed any
	if json.Unmarshal(v, &parsed) == nil {
		return v
	}
	if unmarshal(v, &parsed) != nil {
		return nil
	}
	raw, err := json.Marshal(parsed, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil
	}
	return raw
}

// echoText is the `_reqId` where a reply wants it as a string: "" if it was none.
func echoText(r reqID) string {
	var s text
	if len(r) == 0 || unmarshal(r, &s) != nil {
		return ""
	}
	return s.S
}

type envelope struct {
	Type  text  `json:"type"`
	ReqID reqID `json:"_reqId"`
}

type group struct {
	Name string `json:"name"`
	Role string `json:"role,omitzero"`
}

// parseGroups reads `groups`; present is false when the field was absent or no array.
func parseGroups(v jsontext.Value) (groups []group, present bool) {
	groups = []group{}
	if v.Kind() != '[' {
		return groups, false
	}
	var rows []jsontext.Value
	if unmarshal(v, &rows) != nil {
		return groups, false
	}
	for _, row := range rows {
		var g struct {
			Name text `json:"name"`
			Role text `json:"role"`
		}
		if row.Kind() == '{' && unmarshal(row, &g) == nil && g.Name.OK {
			groups = append(groups, group{Name: g.Name.S, Role: g.Role.S})
		}
	}
	return groups, true
}

type errorFrame struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
	ID      string `json:"id,omitzero"`
	ReqID   reqID  `json:"_reqId,omitzero"`
}

type ackFrame struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	MessageID string `json:"messageId"`
	Queued    bool   `json:"queued"`
	Error     string `json:"error,omitzero"`
	ReqID     reqID  `json:"_reqId,omitzero"`
}

// iso is a time as the broker writes it: UTC with milliseconds.
func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
