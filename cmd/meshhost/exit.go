package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/meshhost/meshhost/host/control"
)

// The exit codes. Any other number is a failure.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitUnreachable = 4
	exitNotFound    = 5 // or an ambiguous name
	exitPartly      = 6
	exitRefused     = 7 // by policy
	exitTimeout     = 8
	exitIdentity    = 9 // rejected by the broker
	exitConflict    = 10
	exitInterrupted = 130
)

// exitError is an error with its exit code and what to do next.
type exitError struct {
	code int
	msg  string // empty: everything is said already
	next string
}

func (e *exitError) Error() string { return e.msg }

// usagef is a mistake on the command line.
func usagef(next, format string, args ...any) error {
	return &exitError{code: exitUsage, msg: fmt.Sprintf(format, args...), next: next}
}

// apiExit are the daemon's error words that say more than their HTTP status.
var apiExit = map[string]int{
	"mesh_required":          exitUsage,
	"ambiguous_target":       exitNotFound,
	"route_failed":           exitNotFound,
	"mesh_not_attached":      exitNotFound,
	"idempotency_key_reused": exitConflict,
	"identity_rejected":      exitIdentity,
	"timeout":                exitTimeout,
	"wait_timeout":           exitTimeout,
	"stopping":               exitUnreachable,
	"config_invalid":         exitConfig,
}

// statusExit are the exit codes of HTTP statuses; others are exitFailed.
var statusExit = map[int]int{
	http.StatusBadRequest:            exitUsage,
	http.StatusRequestEntityTooLarge: exitUsage,
	http.StatusNotFound:              exitNotFound,
	http.StatusConflict:              exitConflict,
	http.StatusForbidden:             exitRefused,
	http.StatusGatewayTimeout:        exitTimeout,
}

// explain turns any error into an exit code, a sentence and the next step.
func explain(err error, interrupted bool) *exitError {
	var (
		ee *exitError
		un *control.UnreachableError
		ae *control.APIError
	)
	switch {
	case errors.As(err, &ee):
		return ee
	case interrupted || errors.Is(err, context.Canceled):
		return &exitError{code: exitInterrupted}
	case errors.As(err, &un):
		return &exitError{code: exitUnreachable, msg: un.Error(), next: "start it by meshhost -config mesh.hcl, or name its socket by -socket"}
	case errors.As(err, &ae):
		return explainAPI(ae)
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{code: exitTimeout, msg: "the daemon did not answer in time", next: "meshhost status says what it is doing"}
	default:
		return &exitError{code: exitFailed, msg: err.Error()}
	}
}

func explainAPI(ae *control.APIError) *exitError {
	e := &exitError{code: exitFailed, msg: clean(ae.Message), next: clean(ae.Next)}
	if code, ok := apiExit[ae.Code]; ok {
		e.code = code
	} else if code, ok := statusExit[ae.Status]; ok {
		e.code = code
	}
	switch ae.Code {
	case "ambiguous_target":
		var b strings.Builder
		b.WriteString(e.msg)
		for _, c := range ae.Candidates() {
			fmt.Fprintf(&b, "\n  %s  %s  %s  %s", clean(c.PubKey), clean(c.DisplayName), clean(c.Mesh), clean(c.Role))
		}
		e.msg = b.String()
	case "mesh_required":
		e.next = "name one by -mesh"
	case "idempotency_key_reused":
		e.next = "use another -key for another message; meshhost outbox list shows the one that has this key, outbox requeue sends it again"
	case "outcome_unknown":
		if id := ae.ClientMessageID(); id != "" {
			e.next = "send it again with -key " + clean(id) + "; it is stored once at most"
		}
	}
	return e
}

// report prints the error and returns its code.
func (a *app) report(err error, interrupted bool) int {
	if err == nil {
		return exitOK
	}
	e := explain(err, interrupted)
	if e.msg != "" {
		prefix := "meshhost: "
		if strings.HasPrefix(e.msg, "meshhost") {
			prefix = ""
		}
		fmt.Fprintf(a.stderr, "%s%s\n", prefix, strings.TrimRight(e.msg, "\n"))
	}
	if e.next != "" {
		fmt.Fprintf(a.stderr, "  %s\n", e.next)
	}
	return e.code
}
