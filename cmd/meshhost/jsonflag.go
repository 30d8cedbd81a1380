package main

import (
	"errors"
	"slices"
	"strings"
)

// jsonFlag is -json or -json=a,b. It is a bool to the parser, so that the next
// word is not taken for its value.
type jsonFlag struct {
	on     bool
	fields []string // empty: all
}

// Set takes what stands behind the equals sign, "true" without one.
func (f *jsonFlag) Set(s string) error {
	f.on, f.fields = true, nil
	switch s {
	case "true":
		return nil
	case "false":
		f.on = false
		return nil
	}
	f.fields = strings.Split(s, ",")
	if slices.Contains(f.fields, "") {
		return errors.New("a field's name is empty; write -json=a,b")
	}
	return nil
}

// String is what Set would take.
func (f *jsonFlag) String() string {
	if f == nil || !f.on {
		return ""
	}
	return strings.Join(f.fields, ",")
}

// Get returns the flag itself.
func (f *jsonFlag) Get() any { return f }

// IsBoolFlag says that no value follows as a word of its own.
func (f *jsonFlag) IsBoolFlag() bool { return true }
