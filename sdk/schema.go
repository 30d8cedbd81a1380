package sdk

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ProtocolVersion is the plugin protocol that this SDK speaks. It changes only
// when the handshake or the lifecycle does.
const ProtocolVersion = 1

// Schema describes the body of a plugin's config block.
type Schema struct {
	Attributes []Attribute `json:"attributes,omitempty"`
	Blocks     []Block     `json:"blocks,omitempty"`
}

// TypeName is the type of an attribute.
type TypeName string

// The types of an attribute, and how a value crosses to the plugin as JSON.
const (
	TypeString   TypeName = "string"
	TypeNumber   TypeName = "number"
	TypeBool     TypeName = "bool"
	TypeList     TypeName = "list"     // JSON array of Elem
	TypeMap      TypeName = "map"      // JSON object of Elem
	TypeObject   TypeName = "object"   // JSON object of Fields
	TypeDuration TypeName = "duration" // "250ms"; crosses as that string
	TypeBytes    TypeName = "bytes"    // 1048576 or "1MiB"; crosses as a number
	TypePath     TypeName = "path"     // crosses absolute; relative ones start at the plugin's data dir
	TypeSecret   TypeName = "secret"   // a string that is never printed
	TypeExpr     TypeName = "expr"     // crosses as {source, file, line, column, variables}
)

// Type is a type with its parts.
type Type struct {
	Name   TypeName    `json:"name"`
	Elem   *Type       `json:"elem,omitempty"`   // list, map
	Fields []Attribute `json:"fields,omitempty"` // object
	// Variables are the root names that an expr may use.
	Variables []string `json:"variables,omitempty"`
}

// Attribute is one option.
type Attribute struct {
	Name     string `json:"name"`
	Type     Type   `json:"type"`
	Required bool   `json:"required,omitzero"`
	// Default is a JSON value; the host fills it in as if it had been written. Of
	// an expr it is the source, or the object that crosses.
	Default jsontext.Value `json:"default,omitempty"`
	Doc     string         `json:"doc,omitempty"`
}

// Block is a nested block. It crosses as an object, or as an array of objects
// if it may repeat.
type Block struct {
	Name     string `json:"name"`
	Repeat   bool   `json:"repeat,omitzero"`
	Required bool   `json:"required,omitzero"`
	Doc      string `json:"doc,omitempty"`
	Schema   Schema `json:"schema"`
}

// Severity of a Diagnostic.
type Severity string

// The severities of a Diagnostic.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is what a plugin says of its configuration. Path leads to the
// option: names of attributes and blocks, and decimal indexes of repeated
// blocks and lists. The host turns it into file, line and caret.
type Diagnostic struct {
	// Severity counts as an error where it is empty.
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary"`
	// Detail ends with what to do next.
	Detail string   `json:"detail,omitempty"`
	Path   []string `json:"path,omitempty"`
}

// Error makes a Diagnostic an error that configure can return as it is.
func (d Diagnostic) Error() string {
	text := d.Summary
	if len(d.Path) > 0 {
		text = strings.Join(d.Path, ".") + ": " + text
	}
	if d.Detail != "" {
		text += " " + d.Detail
	}
	return text
}

// Diagnostics is a list of them.
type Diagnostics []Diagnostic

// Error makes them an error that configure can return; see Err.
func (d Diagnostics) Error() string {
	texts := make([]string, len(d))
	for i := range d {
		texts[i] = d[i].Error()
	}
	return strings.Join(texts, "; ")
}

// Err is nil unless any of them is an error.
func (d Diagnostics) Err() error {
	if d.HasErrors() {
		return d
	}
	return nil
}

// HasErrors reports whether any is an error.
func (d Diagnostics) HasErrors() bool {
	for i := range d {
		if d[i].Severity != SeverityWarning {
			return true
		}
	}
	return false
}

// Invalid is an error diagnostic at a path; detail ends with what to do next.
func Invalid(path []string, summary, detail string) Diagnostic {
	return Diagnostic{Severity: SeverityError, Summary: summary, Detail: detail, Path: path}
}
