package sdk

import (
	"errors"
	"fmt"
	"time"
)

// Code classifies an Error; a caller decides by it.
type Code string

// The codes of an Error. They survive the process boundary.
const (
	CodeInvalid     Code = "invalid"     // the request is wrong; the same again fails again
	CodeNotFound    Code = "not_found"   // what was named is not there
	CodeConflict    Code = "conflict"    // it clashes with what is there
	CodeUnavailable Code = "unavailable" // later it may work
	CodePermission  Code = "permission"  // neither declared nor allowed
	CodeFenced      Code = "fenced"      // another holder has the lane
	CodeSealed      Code = "sealed"      // the outbox is closed for good; its rows are elsewhere
	CodeTimeout     Code = "timeout"     // no answer in time; the outcome is unknown
	CodeFull        Code = "full"        // a limit is reached
	CodeInternal    Code = "internal"    // a defect
)

// Error is an error that a caller on the other side of the boundary understands.
type Error struct {
	Code Code
	// Reason is a short word for programs, such as "mesh_required".
	Reason  string
	Message string
	// Next tells a person what to do; may be empty.
	Next string
	// RetryAfter is the wait that makes sense, with unavailable and full.
	RetryAfter time.Duration

	// cause is context.Canceled or context.DeadlineExceeded where the call ended
	// by its context.
	cause error
}

// Error is the message alone; without one it is the code.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return e.Message
}

// Unwrap gives the context's error where the call ended by its context.
func (e *Error) Unwrap() error { return e.cause }

// Is matches the sentinels by code.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Reason == "" && t.Message == "" && t.Code == e.Code
}

// The sentinels, for errors.Is.
var (
	ErrInvalid     = &Error{Code: CodeInvalid}
	ErrNotFound    = &Error{Code: CodeNotFound}
	ErrConflict    = &Error{Code: CodeConflict}
	ErrUnavailable = &Error{Code: CodeUnavailable}
	ErrPermission  = &Error{Code: CodePermission}
	ErrFenced      = &Error{Code: CodeFenced}
	ErrSealed      = &Error{Code: CodeSealed}
	ErrTimeout     = &Error{Code: CodeTimeout}
	ErrFull        = &Error{Code: CodeFull}
	ErrInternal    = &Error{Code: CodeInternal}
)

// Errorf makes an Error; reason is a short word for programs.
func Errorf(code Code, reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// WithNext returns a copy that tells a person what to do.
func (e *Error) WithNext(next string) *Error {
	c := *e
	c.Next = next
	return &c
}
