package sdk

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON Schema; its fields are in the order in which they are written.
type node struct {
	Type        string      `json:"type,omitempty"`
	Format      string      `json:"format,omitempty"`
	Encoding    string      `json:"contentEncoding,omitempty"`
	Description string      `json:"description,omitempty"`
	Properties  *properties `json:"properties,omitzero"`
	Required    []string    `json:"required,omitempty"`
	Items       *node       `json:"items,omitzero"`
	Additional  *additional `json:"additionalProperties,omitzero"`
}

// additional is false for a struct, a schema for a map.
type additional struct{ node *node }

func (a additional) MarshalJSONTo(enc *jsontext.Encoder) error {
	if a.node == nil {
		return enc.WriteToken(jsontext.False)
	}
	return json.MarshalEncode(enc, a.node)
}

// properties keep the order of the struct: help and docs show it.
type properties struct {
	names []string
	nodes []*node
}

func (p *properties) MarshalJSONTo(enc *jsontext.Encoder) error {
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for i, name := range p.names {
		if err := enc.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(enc, p.nodes[i]); err != nil {
			return err
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}

// schemaOf is the JSON Schema of a struct; it panics on what can't cross, which
// is the author's defect.
func schemaOf[T any]() jsontext.Value {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("sdk.NewMethod: %v: parameters and results are structs", t))
	}
	n, err := nodeOf(t, nil)
	if err != nil {
		panic(fmt.Sprintf("sdk.NewMethod: %v: %v", t, err))
	}
	out, err := json.Marshal(n)
	if err != nil {
		panic(fmt.Sprintf("sdk.NewMethod: %v: %v", t, err))
	}
	return out
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	rawType      = reflect.TypeFor[jsontext.Value]()
	textType     = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType     = reflect.TypeFor[json.Marshaler]()
	jsonToType   = reflect.TypeFor[json.MarshalerTo]()
)

// nodeOf describes a type; outer are the structs that it is inside of.
func nodeOf(t reflect.Type, outer []reflect.Type) (*node, error) {
	switch {
	case t == timeType:
		return &node{Type: "string", Format: "date-time"}, nil
	case t == durationType:
		return nil, errors.New(`time.Duration has no form in JSON by itself: use a string, or a number with its unit in the name`)
	case t == rawType || t.Implements(jsonType) || t.Implements(jsonToType):
		return &node{}, nil
	case t.Implements(textType):
		return &node{Type: "string"}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return &node{Type: "string"}, nil
	case reflect.Bool:
		return &node{Type: "boolean"}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &node{Type: "integer"}, nil
	case reflect.Float32, reflect.Float64:
		return &node{Type: "number"}, nil
	case reflect.Interface:
		return &node{}, nil
	case reflect.Pointer:
		return nodeOf(t.Elem(), outer)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &node{Type: "string", Encoding: "base64"}, nil
		}
		items, err := nodeOf(t.Elem(), outer)
		return &node{Type: "array", Items: items}, err
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("%v: keys of a map are strings", t)
		}
		values, err := nodeOf(t.Elem(), outer)
		return &node{Type: "object", Additional: &additional{node: values}}, err
	case reflect.Struct:
		if slices.Contains(outer, t) {
			return &node{Type: "object"}, nil // recursive; deeper levels look the same
		}
		return structNode(t, append(outer, t))
	default:
		return nil, fmt.Errorf("%v has no form in JSON", t)
	}
}

func structNode(t reflect.Type, outer []reflect.Type) (*node, error) {
	n := &node{Type: "object", Properties: &properties{}, Additional: &additional{}}
	for _, f := range jsonFields(t) {
		child, err := nodeOf(f.typ, outer)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.goName, err)
		}
		child.Description = f.doc
		n.Properties.names = append(n.Properties.names, f.name)
		n.Properties.nodes = append(n.Properties.nodes, child)
		if f.required {
			n.Required = append(n.Required, f.name)
		}
	}
	return n, nil
}

// jsonField is a field as JSON sees it.
type jsonField struct {
	goName, name, doc string
	typ               reflect.Type
	required          bool
}

// jsonFields lists the fields of a struct, those of embedded ones in place.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if f.Anonymous && name == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				fields = append(fields, jsonFields(inner)...)
				continue
			}
		}
		if name == "" {
			name = f.Name
		}
		optional := false
		for option := range strings.SplitSeq(options, ",") {
			optional = optional || option == "omitempty" || option == "omitzero"
		}
		fields = append(fields, jsonField{
			goName:   f.Name,
			name:     name,
			doc:      f.Tag.Get("doc"),
			typ:      f.Type,
			required: !optional,
		})
	}
	return fields
}

// namesOf are the names of a struct's fields in JSON.
func namesOf[T any]() []string {
	var names []string
	for _, f := range jsonFields(reflect.TypeFor[T]()) {
		names = append(names, f.name)
	}
	return names
}

// missing reports the required parameters that are absent.
func missing[P any](params jsontext.Value) error {
	members, err := objectMembers(params)
	if err != nil {
		return err
	}
	var absent []string
	for _, f := range jsonFields(reflect.TypeFor[P]()) {
		if f.required && !slices.ContainsFunc(members, func(m member) bool { return m.name == f.name }) {
			absent = append(absent, f.name)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("missing %s", strings.Join(absent, ", "))
	}
	return nil
}
