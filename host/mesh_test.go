package host

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/sdk"
)

func TestAFrameIsItsTypeAndTheRest(t *testing.T) {
	for in, want := range map[string][2]string{
		`{"type":"get_state","key":"k"}`:                {"get_state", `{"key":"k"}`},
		`{"_reqId":"theirs","type":"x","id":1}`:         {"x", `{"id":1}`},
		`{"type":"list_state"}`:                         {"list_state", `{}`},
		`{"type":"x","deep":{"type":"y","_reqId":"z"}}`: {"x", `{"deep":{"type":"y","_reqId":"z"}}`},
		`{"type":7}`: {"", ""}, `{}`: {"", ""}, `[]`: {"", ""}, `{"type":"a","type":"b"}`: {"", ""}, `nothing`: {"", ""},
	} {
		typ, body := splitFrame(jsontext.Value(in))
		if typ != want[0] || string(body) != want[1] {
			t.Errorf("%s: %q and %s, want %q and %s", in, typ, body, want[0], want[1])
		}
	}
}

// twin is a connection whose place another one took twice: it is tried again.
var twin = broker.State{Phase: link.Suspended, Reason: "twin", LastError: "another connection", RetryAt: time.Unix(1_800_000_000, 0)}

func TestEveryPhaseHasAWordOfTheAPI(t *testing.T) {
	for _, c := range []struct {
		phase    link.Phase
		attempts int
		want     string
	}{
		{link.Idle, 0, control.MeshConnecting},
		{link.Dialing, 1, control.MeshConnecting},
		{link.Helloing, 1, control.MeshConnecting},
		{link.Dialing, 2, control.MeshReconnecting},
		{link.Helloing, 7, control.MeshReconnecting},
		{link.Ready, 1, control.MeshOpen},
		{link.Ready, 5, control.MeshOpen},
		{link.Backoff, 1, control.MeshReconnecting},
		{link.Suspended, 1, control.MeshRejected},
		{link.Stopped, 0, control.MeshClosed},
	} {
		if got := meshState(broker.State{Phase: c.phase, Attempts: c.attempts}); got != c.want {
			t.Errorf("%v after %d attempts is %q, want %q", c.phase, c.attempts, got, c.want)
		}
	}
	if got := meshState(twin); got != control.MeshReconnecting {
		t.Errorf("a connection that is tried again later is %q", got)
	}
}

func TestEveryOutcomeOfASendHasAVerdict(t *testing.T) {
	for in, want := range map[broker.Outcome]outbound.Verdict{
		broker.Accepted: outbound.Accepted, broker.RateLimited: outbound.RateLimited, broker.NoPeer: outbound.NoPeer,
		broker.Permanent: outbound.Refused, broker.Transient: outbound.Transient, broker.NotSent: outbound.NotSent,
		broker.Unknown: outbound.Unknown, broker.Outcome(200): outbound.Unknown,
	} {
		if got := outcome(broker.SendResult{Outcome: in}).Verdict; got != want {
			t.Errorf("%v is verdict %d, want %d", in, got, want)
		}
	}
	got := outcome(broker.SendResult{Outcome: broker.RateLimited, Text: "slow down", Rate: broker.Rate{PerMinute: 30}, Err: errors.New("e")})
	if got.Detail != "slow down" || got.PerMinute != 30 || got.Poisoned {
		t.Errorf("%+v", got)
	}
	got = outcome(broker.SendResult{Outcome: broker.Unknown, Err: broker.ErrConnectionLost, Poisoned: true})
	if got.Detail != broker.ErrConnectionLost.Error() || !got.Poisoned {
		t.Errorf("%+v", got)
	}
	if got = outcome(broker.SendResult{Outcome: broker.Accepted, MessageID: "m"}); got.MessageID != "m" {
		t.Errorf("%+v", got)
	}
}

// A plugin can tell what it may try again from what it must not.
func TestErrorsOfTheBrokerHaveACode(t *testing.T) {
	up := broker.State{Phase: link.Ready}
	for _, c := range []struct {
		err    error
		st     broker.State
		code   sdk.Code
		reason string
	}{
		{&broker.RemoteError{Code: "not_found", Message: "m"}, up, sdk.CodeNotFound, "not_found"},
		{&broker.RemoteError{Code: "topic_not_found"}, up, sdk.CodeNotFound, "topic_not_found"},
		{&broker.RemoteError{Code: "forbidden"}, up, sdk.CodePermission, "forbidden"},
		{&broker.RemoteError{Code: "invalid_args"}, up, sdk.CodeInvalid, "invalid_args"},
		{broker.ErrNotConnected, broker.State{Phase: link.Backoff}, sdk.CodeUnavailable, "mesh_not_connected"},
		{broker.ErrNotConnected, broker.State{Phase: link.Suspended, Reason: "banned"}, sdk.CodePermission, "identity_rejected"},
		{broker.ErrNotConnected, twin, sdk.CodeUnavailable, "mesh_not_connected"},
		{broker.ErrBusy, up, sdk.CodeUnavailable, "mesh_not_connected"},
		{broker.ErrTimeout, up, sdk.CodeTimeout, "no_answer"},
		{broker.ErrConnectionLost, up, sdk.CodeTimeout, "no_answer"},
		{context.DeadlineExceeded, up, sdk.CodeTimeout, "no_answer"},
		{broker.ErrTooLarge, up, sdk.CodeInvalid, "bad_frame"},
		{broker.ErrMalformed, up, sdk.CodeInvalid, "bad_frame"},
	} {
		err := frameError("team", c.st, fmt.Errorf("ask: %w", c.err))
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Reason != c.reason {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

func TestTimesOfTheBrokerAreReadOrLeftOut(t *testing.T) {
	if got := parseTime("2026-01-31T12:00:00.123Z"); !got.Equal(time.Date(2026, 1, 31, 12, 0, 0, 123e6, time.UTC)) {
		t.Error(got)
	}
	if got := parseTime("yesterday"); !got.IsZero() {
		t.Error(got)
	}
}

func TestAPeerRowKeepsWhatTheWireSaid(t *testing.T) {
	summary := "busy"
	p := peerOf("team", &broker.Peer{
		Pubkey: "k", MemberPubkey: "mk", DisplayName: "n", Status: "dnd", Summary: &summary, SessionID: "s", Channel: daemonChannel,
		ConnectedAt: "2026-01-31T12:00:00Z", Groups: []broker.Group{{Name: "g", Role: "r"}},
	})
	if p.Mesh != "team" || p.PubKey != "k" || p.MemberPubKey != "mk" || p.Summary != "busy" || p.Status != "dnd" || p.Role != sdk.RoleControlPlane ||
		len(p.Groups) != 1 || p.Groups[0] != (sdk.Group{Name: "g", Role: "r"}) || p.ConnectedAt.IsZero() {
		t.Errorf("%+v", p)
	}
	if len(p.Wire) == 0 || !p.Wire.IsValid() {
		t.Errorf("wire %s", p.Wire)
	}
}
