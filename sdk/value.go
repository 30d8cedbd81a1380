package sdk

import (
	"fmt"
	"io"
)

// Bytes is an option counted in bytes; people may write "1MiB".
type Bytes int64

// Path is an option that names a file. In Configure it is absolute.
type Path string

// Expr is an option that is an expression, not evaluated: the plugin does that,
// as often as it likes, with the variables that it declared in the tag
// `variables:"name,name"`. File, Line and Column (from 1) say where it stands.
type Expr struct {
	Source    string   `json:"source"`
	File      string   `json:"file,omitempty"`
	Line      int      `json:"line,omitempty"`
	Column    int      `json:"column,omitempty"`
	Variables []string `json:"variables,omitempty"`
}

// Secret is an option that no log, error or dump shows: every way of formatting
// gives the same word. Reveal gives the value.
type Secret struct {
	// A pointer, since fmt prints the unexported fields of a struct that it
	// can't call a method on; of a pointer inside it prints the address.
	value *string
}

// redacted is what is shown in place of a secret.
const redacted = "[secret]"

// NewSecret makes a Secret, for tests.
func NewSecret(value string) Secret { return Secret{value: &value} }

// Reveal is the secret itself, "" if it was not set.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String hides the value.
func (Secret) String() string { return redacted }

// GoString hides the value.
func (Secret) GoString() string { return redacted }

// Format hides the value from every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText hides the value from JSON and everything else that encodes text.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
