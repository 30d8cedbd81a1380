package wire

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// domain marks our ErrorInfo among those of others.
const domain = "meshhost"

// Failure is an sdk.Error in plain values.
type Failure struct {
	Code       string // a word of codeOf
	Reason     string
	Message    string
	Next       string
	RetryAfter time.Duration
}

// codeOf are the gRPC codes of our words; the protos promise them.
var codeOf = map[string]codes.Code{
	"invalid":     codes.InvalidArgument,
	"not_found":   codes.NotFound,
	"conflict":    codes.AlreadyExists,
	"unavailable": codes.Unavailable,
	"permission":  codes.PermissionDenied,
	"fenced":      codes.Aborted,
	"sealed":      codes.FailedPrecondition,
	"timeout":     codes.DeadlineExceeded,
	"full":        codes.ResourceExhausted,
	"internal":    codes.Internal,
}

// maxText bounds each text of a status: it travels in HTTP/2 headers, which
// have a limit of their own, and an error that can't travel is lost.
const maxText = 2048

// Status writes a failure.
func (f Failure) Status() *status.Status {
	code, ok := codeOf[f.Code]
	if !ok {
		code, f.Code = codes.Internal, "internal"
	}
	st := status.New(code, Clip(f.Message))
	info := &errdetails.ErrorInfo{
		Domain:   domain,
		Reason:   Clip(f.Reason),
		Metadata: map[string]string{"code": f.Code},
	}
	if f.Next != "" {
		info.Metadata["next"] = Clip(f.Next)
	}
	var with *status.Status
	var err error
	if f.RetryAfter > 0 {
		with, err = st.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter)})
	} else {
		with, err = st.WithDetails(info)
	}
	if err != nil {
		return st
	}
	return with
}

// ParseStatus reads a status that is not OK. carried is true when the other side
// wrote a Failure; otherwise it is made from the gRPC code. Texts are cut as
// Status cuts them: the other side may not be ours, and they go into logs.
func ParseStatus(st *status.Status) (f Failure, carried bool) {
	f = Failure{Code: wordOf(st.Code()), Message: Clip(st.Message())}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != domain {
				continue
			}
			carried = true
			f.Reason = Clip(d.GetReason())
			f.Next = Clip(d.GetMetadata()["next"])
			if _, ok := codeOf[d.GetMetadata()["code"]]; ok {
				f.Code = d.GetMetadata()["code"]
			}
		case *errdetails.RetryInfo:
			f.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return f, carried
}

// wordOf is our word for a gRPC code, for those who send no ErrorInfo.
func wordOf(c codes.Code) string {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange:
		return "invalid"
	case codes.NotFound:
		return "not_found"
	case codes.AlreadyExists:
		return "conflict"
	case codes.FailedPrecondition:
		return "sealed"
	case codes.Unavailable:
		return "unavailable"
	case codes.PermissionDenied, codes.Unauthenticated:
		return "permission"
	case codes.Aborted:
		return "fenced"
	case codes.DeadlineExceeded, codes.Canceled:
		return "timeout"
	case codes.ResourceExhausted:
		return "full"
	default:
		return "internal"
	}
}

// Clip makes a text fit for a protobuf string and a header.
func Clip(s string) string {
	if len(s) > maxText+len("…") { // what was cut once stays as it is
		s = s[:maxText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// FromError is what a server answers for an error of an implementation: its
// status if it has one, also through wrapping; else the context's; else internal.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		if st = status.FromContextError(err); st.Code() == codes.Unknown {
			return Failure{Code: "internal", Message: err.Error()}.Status().Err()
		}
	}
	// The text may have grown by wrapping.
	p := st.Proto()
	p.Message = Clip(p.GetMessage())
	return status.FromProto(p).Err()
}
