package sdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// member is one name and value of a JSON object.
type member struct {
	name  string
	value jsontext.Value
}

// objectMembers takes a JSON object apart, in order; nothing at all counts as an
// empty one. Duplicate names and invalid UTF-8 are errors.
func objectMembers(v jsontext.Value) ([]member, error) {
	if len(bytes.Trim(v, " \t\r\n")) == 0 {
		return nil, nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(v))
	if k := dec.PeekKind(); k != '{' {
		if _, err := dec.ReadValue(); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		return nil, fmt.Errorf("a JSON object is needed, got %s", kindWord(k))
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	var members []member
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		m := member{name: name.String()}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		m.value = value.Clone()
		members = append(members, m)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: something follows the object")
	}
	return members, nil
}

// arrayElements takes a JSON array apart.
func arrayElements(v jsontext.Value) ([]jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(v))
	if k := dec.PeekKind(); k != '[' {
		return nil, fmt.Errorf("a list is needed, got %s", kindWord(k))
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var elements []jsontext.Value
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		elements = append(elements, value.Clone())
	}
	return elements, nil
}

// kindWord names a kind of JSON value for people.
func kindWord(k jsontext.Kind) string {
	switch k {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a bool"
	case 'n':
		return "null"
	default:
		return "something else"
	}
}
