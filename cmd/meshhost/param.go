package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// param is one parameter of a method as a flag or a word.
type param struct {
	name     string
	doc      string
	kind     string // JSON Schema's type; empty: any value
	item     string // the type of an array's elements
	enum     []string
	required bool

	set  bool
	vals []jsontext.Value // more than one for an array only
}

// paramSchema is what of a JSON Schema the command line needs.
type paramSchema struct {
	Type        jsontext.Value   `json:"type"`
	Description string           `json:"description"`
	Enum        []jsontext.Value `json:"enum"`
	Items       *paramSchema     `json:"items"`
	Properties  jsontext.Value   `json:"properties"`
	Required    []string         `json:"required"`
}

// typeName is the type, or any for a schema with several or none.
func (s *paramSchema) typeName() string {
	var name string
	if s == nil || json.Unmarshal(s.Type, &name) != nil {
		return ""
	}
	return name
}

// paramsOf reads the declaration of a method's parameters, in its order.
func paramsOf(m *sdk.Method) ([]*param, error) {
	if len(m.Params) == 0 {
		return nil, nil
	}
	var s paramSchema
	if err := json.Unmarshal(m.Params, &s); err != nil {
		return nil, err
	}
	if len(s.Properties) == 0 {
		return nil, nil
	}
	props, err := members(s.Properties)
	if err != nil {
		return nil, err
	}
	var params []*param
	for _, prop := range props {
		var ps paramSchema
		if err := json.Unmarshal(prop.value, &ps); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", prop.name, err)
		}
		p := &param{name: prop.name, doc: ps.Description, kind: ps.typeName(), item: ps.Items.typeName()}
		for _, e := range ps.Enum {
			p.enum = append(p.enum, cell(e))
		}
		for _, r := range s.Required {
			p.required = p.required || r == prop.name
		}
		params = append(params, p)
	}
	return params, nil
}

// flag is the parameter's name on the command line: dashes for underscores.
func (p *param) flag() string { return strings.ReplaceAll(p.name, "_", "-") }

func (p *param) usage() string {
	words := []string{strings.TrimSuffix(clean(strings.ReplaceAll(p.doc, "`", "'")), ".")}
	switch {
	case len(p.enum) > 0:
		words = append(words, "one of "+strings.Join(p.enum, ", "))
	case p.kind == "array":
		words = append(words, "may repeat")
	case p.kind == "" || p.kind == "object":
		words = append(words, "JSON, or a text")
	}
	if p.required {
		words = append(words, "required")
	}
	usage := strings.TrimPrefix(strings.Join(words, "; "), "; ")
	if p.isBool() {
		return usage
	}
	return "`" + strings.ToUpper(p.flag()) + "`; " + usage
}

func (p *param) isBool() bool { return p.kind == "boolean" }

// IsBoolFlag tells the parser that no value follows.
func (p *param) IsBoolFlag() bool { return p.isBool() }

// Set takes a word of the command line.
func (p *param) Set(s string) error {
	kind := p.kind
	if kind == "array" {
		kind = p.item
	}
	v, err := jsonOf(s, kind)
	if err != nil {
		return err
	}
	if len(p.enum) > 0 {
		ok := false
		for _, e := range p.enum {
			ok = ok || e == s
		}
		if !ok {
			return fmt.Errorf("%q is none of %s.%s", s, strings.Join(p.enum, ", "), didYouMean(s, p.enum))
		}
	}
	if p.kind != "array" {
		p.vals = p.vals[:0]
	}
	p.vals, p.set = append(p.vals, v), true
	return nil
}

// jsonOf turns a word into a JSON value of a type. A value of any type is JSON
// where the word is, and the word itself otherwise.
func jsonOf(s, kind string) (jsontext.Value, error) {
	switch kind {
	case "string":
		v, err := json.Marshal(s)
		if err != nil {
			return nil, errors.New("the text is not UTF-8")
		}
		return v, nil
	case "boolean":
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", s)
		}
		return jsontext.Value(strconv.FormatBool(b)), nil
	case "integer":
		if _, err := strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is no whole number", s)
		}
		return jsontext.Value(s).Clone(), canonical(s)
	case "number":
		return jsontext.Value(s).Clone(), canonical(s)
	case "object":
		v := jsontext.Value(s)
		if !v.IsValid() || v.Kind() != jsontext.KindBeginObject {
			return nil, fmt.Errorf("%q is no JSON object", s)
		}
		return v, nil
	default:
		if v := jsontext.Value(s); v.IsValid() {
			return v, nil
		}
		return jsonOf(s, "string")
	}
}

// canonical refuses numbers that JSON writes differently, such as +1 and 007.
func canonical(s string) error {
	v := jsontext.Value(s)
	if !v.IsValid() || v.Kind() != jsontext.KindNumber {
		return fmt.Errorf("%q is no number", s)
	}
	return nil
}

// value is what goes to the plugin.
func (p *param) value() jsontext.Value {
	if p.kind != "array" {
		return p.vals[0]
	}
	out := []byte{'['}
	for i, v := range p.vals {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
	}
	return append(out, ']')
}

// String is for the parser's own messages.
func (p *param) String() string {
	if p == nil || !p.set {
		return ""
	}
	return string(p.value())
}

// Get returns the parameter.
func (p *param) Get() any { return p }
