package plugin

import (
	"context"
	"errors"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

// Reasons of the *sdk.Error values that facades return of their own.
const (
	// ReasonDown: the plugin has no process that could take the call; the call
	// did not happen. CodeUnavailable.
	ReasonDown = "plugin_down"
	// ReasonUnknown: the process ended during the call, so nobody knows whether
	// it took effect. CodeUnavailable.
	ReasonUnknown = "outcome_unknown"
	// ReasonTimeout: no answer in time; whether it took effect is unknown too.
	// CodeTimeout.
	ReasonTimeout = "call_timeout"
	// ReasonNotOffered: the plugin is not of the kind that was called.
	// CodeNotFound.
	ReasonNotOffered = "not_offered"
)

// IsDown reports whether a call failed because the plugin is down: it did not
// happen, and later it may work.
func IsDown(err error) bool {
	var e *sdk.Error
	return errors.As(err, &e) && e.Reason == ReasonDown
}

// OutcomeUnknown reports whether a call that failed may have taken effect.
func OutcomeUnknown(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var e *sdk.Error
	return errors.As(err, &e) && (e.Reason == ReasonUnknown || e.Code == sdk.CodeTimeout)
}

// ConfigError says that a plugin did not take its configuration.
type ConfigError struct {
	// Plugin is the block, such as outbox(sqlite).
	Plugin string
	// Diagnostics are the plugin's words, after Spec.Explain. Empty if the values
	// did not reach the plugin.
	Diagnostics sdk.Diagnostics
	// Err is the error of Spec.Config, if it was that.
	Err error
}

// Error is one line with the first error.
func (e *ConfigError) Error() string {
	if e.Err != nil {
		return e.Plugin + ": configuration: " + e.Err.Error()
	}
	for _, d := range e.Diagnostics {
		if d.Severity != sdk.SeverityError {
			continue
		}
		s := e.Plugin + ": configuration"
		if len(d.Path) > 0 {
			s += " " + strings.Join(d.Path, ".")
		}
		s += ": " + d.Summary
		if d.Detail != "" {
			s += ": " + d.Detail
		}
		return s
	}
	return e.Plugin + ": configuration refused"
}

// Unwrap is the error of Spec.Config.
func (e *ConfigError) Unwrap() error { return e.Err }

// permanentError marks a failure that the same start would meet again.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// permanent marks err.
func permanent(err error) error { return &permanentError{err} }

// isPermanent reports whether a start failed for a reason that no restart
// changes: a bad checksum, a wrong protocol or kind, a configuration error.
func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
