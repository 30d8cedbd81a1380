package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

func TestTheTablesAreThoseOfTheProtos(t *testing.T) {
	check(t, Kinds, lifecyclev1.Kind(0).Descriptor())
	check(t, TypeNames, lifecyclev1.TypeName(0).Descriptor())
	check(t, Severities, lifecyclev1.Severity(0).Descriptor())
	check(t, EntryStates, outboxv1.EntryState(0).Descriptor())
	check(t, OpKinds, outboxv1.OpKind(0).Descriptor())
	check(t, OpCodes, outboxv1.OpCode(0).Descriptor())
	check(t, PushKinds, pushv1.PushKind(0).Descriptor())
	check(t, Decisions, pushv1.Decision(0).Descriptor())
}

func check[N ~int32](t *testing.T, table Enum[N], d protoreflect.EnumDescriptor) {
	t.Helper()
	if d.Values().Len() != len(table) {
		t.Errorf("%s has %d values, the table %d", d.Name(), d.Values().Len(), len(table))
		return
	}
	// The proto's name is PREFIX_WORD; the prefix is that of UNSPECIFIED.
	prefix := strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
	for i := 1; i < len(table); i++ {
		word := strings.ToLower(strings.TrimPrefix(string(d.Values().ByNumber(protoreflect.EnumNumber(i)).Name()), prefix))
		if table[i] != word || table.Number(word) != N(i) {
			t.Errorf("%s: %d is %q in the proto and %q in the table", d.Name(), i, word, table[i])
		}
	}
	for _, n := range []N{-1, 0, N(len(table))} {
		if _, err := table.Word(n); err == nil {
			t.Errorf("%s: %d has a word", d.Name(), n)
		}
	}
	if table.Number("nonsense") != 0 || table.Number("") != 0 {
		t.Errorf("%s: nonsense has a number", d.Name())
	}
}

func TestTimesCrossToTheMillisecond(t *testing.T) {
	for _, in := range []time.Time{{}, time.UnixMilli(1), time.Date(2026, 11, 23, 1, 2, 3, 456_789_000, time.FixedZone("x", 3600)), time.UnixMilli(-5)} {
		if got := Time(Millis(in)); !got.Equal(in.Truncate(time.Millisecond)) || got.IsZero() != in.IsZero() {
			t.Errorf("%v came back as %v", in, got)
		}
	}
}

func TestAFailureSurvivesItsStatus(t *testing.T) {
	for code := range codeOf {
		in := Failure{Code: code, Reason: "r", Message: "what", Next: "do", RetryAfter: 1500 * time.Millisecond}
		got, carried := ParseStatus(in.Status())
		if got != in || !carried {
			t.Errorf("%+v came back as %+v, %v", in, got, carried)
		}
	}
	odd := Failure{Code: "sideways", Message: strings.Repeat("x", 3*maxText) + "\xff", Next: "\xff"}
	got, _ := ParseStatus(odd.Status())
	if got.Code != "internal" || len(got.Message) > maxText+4 || got.Next != "\uFFFD" {
		t.Errorf("an odd failure came back as %+v", got)
	}
}

func TestAForeignStatusIsReadByItsCode(t *testing.T) {
	for code, word := range map[codes.Code]string{
		codes.InvalidArgument: "invalid", codes.OutOfRange: "invalid", codes.NotFound: "not_found", codes.AlreadyExists: "conflict",
		codes.FailedPrecondition: "sealed", codes.Unavailable: "unavailable", codes.PermissionDenied: "permission",
		codes.Unauthenticated: "permission", codes.Aborted: "fenced", codes.DeadlineExceeded: "timeout", codes.Canceled: "timeout",
		codes.ResourceExhausted: "full", codes.Unknown: "internal", codes.Unimplemented: "internal", codes.DataLoss: "internal",
	} {
		f, carried := ParseStatus(status.New(code, "text"))
		if f.Code != word || f.Message != "text" || carried {
			t.Errorf("%v gave %+v, %v", code, f, carried)
		}
	}
}

func TestEveryErrorBecomesAStatus(t *testing.T) {
	if FromError(nil) != nil {
		t.Error("nil is an error")
	}
	if c := status.Code(FromError(errors.New("plain"))); c != codes.Internal {
		t.Errorf("a plain error is %v", c)
	}
	wrapped := FromError(fmt.Errorf("outer: %w", Failure{Code: "fenced", Message: "inner"}.Status().Err()))
	if f, carried := ParseStatus(status.Convert(wrapped)); f.Code != "fenced" || !carried || !strings.HasPrefix(f.Message, "outer: ") {
		t.Errorf("a wrapped one is %+v", f)
	}
}

func TestAForeignStatusIsBoundedToo(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	st, err := status.New(codes.Internal, long).WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: long, Metadata: map[string]string{"next": long}})
	if err != nil {
		t.Fatal(err)
	}
	f, _ := ParseStatus(st)
	if n := len(f.Message) + len(f.Reason) + len(f.Next); n > 3*(maxText+4) {
		t.Errorf("%d bytes of text were taken", n)
	}
	if once := Clip(long); Clip(once) != once {
		t.Error("what was cut once is cut again")
	}
}
