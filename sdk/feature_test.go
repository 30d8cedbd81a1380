package sdk

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

type schemaParams struct {
	Key    string           `json:"key" doc:"the key"`
	Limit  int              `json:"limit,omitempty" doc:"at most so many"`
	Any    jsontext.Value   `json:"any"`
	Flags  []bool           `json:"flags,omitzero"`
	Labels map[string]uint8 `json:"labels,omitzero"`
	At     time.Time        `json:"at,omitzero"`
	Blob   []byte           `json:"blob,omitzero"`
	Inner  *struct {
		Ratio float64 `json:"ratio"`
	} `json:"inner,omitzero"`
	Skip string `json:"-"`
	schemaBase
}

type schemaBase struct {
	Mesh string `json:"mesh,omitempty"`
}

type schemaTree struct {
	Children []schemaTree `json:"children"`
}

func TestSchemasComeFromTheStructs(t *testing.T) {
	m := NewMethod("m", "", CLI{}, func(context.Context, Call, schemaParams) (schemaTree, error) { return schemaTree{}, nil })
	want := `{"type":"object","properties":{` +
		`"key":{"type":"string","description":"the key"},` +
		`"limit":{"type":"integer","description":"at most so many"},` +
		`"any":{},` +
		`"flags":{"type":"array","items":{"type":"boolean"}},` +
		`"labels":{"type":"object","additionalProperties":{"type":"integer"}},` +
		`"at":{"type":"string","format":"date-time"},` +
		`"blob":{"type":"string","contentEncoding":"base64"},` +
		`"inner":{"type":"object","properties":{"ratio":{"type":"number"}},"required":["ratio"],"additionalProperties":false},` +
		`"mesh":{"type":"string"}},` +
		`"required":["key","any"],"additionalProperties":false}`
	if string(m.Params) != want {
		t.Errorf("params %s\nwant   %s", m.Params, want)
	}
	if want := `{"type":"object","properties":{"children":{"type":"array","items":{"type":"object"}}},"required":["children"],"additionalProperties":false}`; string(m.Result) != want {
		t.Errorf("result %s\nwant   %s", m.Result, want)
	}
}

func TestWhatCantCrossPanics(t *testing.T) {
	for name, try := range map[string]func(){
		"duration": func() { schemaOf[struct{ D time.Duration }]() },
		"channel":  func() { schemaOf[struct{ C chan int }]() },
		"int keys": func() { schemaOf[struct{ M map[int]int }]() },
		"scalar":   func() { schemaOf[string]() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r, ok := recover().(string); !ok || !strings.HasPrefix(r, "sdk.NewMethod: ") {
					t.Errorf("panicked with %v", r)
				}
			}()
			try()
		})
	}
}

func TestAMethodGetsOnlyParametersThatFit(t *testing.T) {
	type params struct {
		Key string `json:"key"`
		N   int    `json:"n,omitempty"`
	}
	type result struct {
		Key string `json:"key"`
		N   int    `json:"n"`
	}
	f := &Feature{Methods: []Method{NewMethod("m", "", CLI{}, func(_ context.Context, _ Call, p params) (result, error) {
		if p.Key == "fail" {
			return result{}, ErrNotFound
		}
		return result(p), nil
	})}}
	for name, c := range map[string]struct {
		params, want string
		err          error
	}{
		"all":       {`{"key":"k","n":2}`, `{"key":"k","n":2}`, nil},
		"optional":  {`{"key":"k"}`, `{"key":"k","n":0}`, nil},
		"missing":   {`{"n":2}`, "m: missing key", ErrInvalid},
		"nothing":   {``, "m: missing key", ErrInvalid},
		"unknown":   {`{"key":"k","m":1}`, `m: there is no parameter "m"`, ErrInvalid},
		"case":      {`{"Key":"k"}`, `there is no parameter "Key"`, ErrInvalid},
		"type":      {`{"key":1}`, `the parameter "key" can't be a JSON number`, ErrInvalid},
		"array":     {`["k"]`, "not a JSON object", ErrInvalid},
		"its error": {`{"key":"fail"}`, "not_found", ErrNotFound},
	} {
		got, err := f.Call(t.Context(), Call{Method: "m", Params: jsontext.Value(c.params)})
		switch {
		case c.err == nil && (err != nil || string(got) != c.want):
			t.Errorf("%s: got %s, %v", name, got, err)
		case c.err != nil && (!errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %v with %q", name, err, c.err, c.want)
		}
	}
	if _, err := f.Call(t.Context(), Call{Method: "x"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown method: %v", err)
	}
}
