package sdk

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

// GRPCStatus is how the error crosses the boundary; gRPC asks for it, also
// through wrapping, whose text is kept.
func (e *Error) GRPCStatus() *status.Status {
	return wire.Failure{
		Code:       string(e.Code),
		Reason:     e.Reason,
		Message:    e.Error(),
		Next:       e.Next,
		RetryAfter: e.RetryAfter,
	}.Status()
}

// ErrorFromStatus turns the error of a gRPC call into an *Error; nil stays nil.
// What the other side's Error said comes back whole. A call that ended by its
// context is ErrTimeout and the context's error at once; one whose connection
// broke is ErrUnavailable with Reason "transport". Authors don't need it.
func ErrorFromStatus(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	f, carried := wire.ParseStatus(st)
	e := &Error{
		Code:       Code(f.Code),
		Reason:     f.Reason,
		Message:    f.Message,
		Next:       f.Next,
		RetryAfter: f.RetryAfter,
	}
	if carried {
		return e
	}
	switch st.Code() {
	case codes.DeadlineExceeded:
		e.Reason, e.cause = "deadline", context.DeadlineExceeded
	case codes.Canceled:
		e.Reason, e.cause = "canceled", context.Canceled
	case codes.Unavailable:
		e.Reason = "transport"
	case codes.Unimplemented:
		e.Reason = "unimplemented"
	}
	return e
}
