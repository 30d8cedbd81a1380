package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestCallsOnAPluginThatIsDownFailAtOnceAndSayWhatNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, func(b *bench) {
			b.fail = func(n int, _ *Spec) error {
				if n > 1 {
					return errors.New("exit status 3")
				}
				return nil
			}
		})
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		b.last().die("signal: killed")
		synctest.Wait()
		begin := time.Now()
		_, err := b.handle()
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != sdk.CodeUnavailable || e.Reason != ReasonDown || !IsDown(err) || OutcomeUnknown(err) {
			t.Fatalf("got %#v", err)
		}
		if time.Since(begin) != 0 {
			t.Fatal("waited")
		}
		if !strings.HasPrefix(e.Message, "push_handler(x): ") || !strings.Contains(e.Message, "exit status 3") || e.Next == "" || e.RetryAfter <= 0 {
			t.Fatalf("unhelpful: %+v", e)
		}
	})
}

func TestCallErrorsSayWhetherTheOutcomeIsKnown(t *testing.T) {
	cases := []struct {
		name    string
		err     func(ctx context.Context) error
		code    sdk.Code
		reason  string
		unknown bool
	}{
		{"hang", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, sdk.CodeTimeout, ReasonTimeout, true},
		{"died", func(context.Context) error { return sdk.Errorf(sdk.CodeUnavailable, "transport", "EOF") }, sdk.CodeUnavailable, ReasonUnknown, true},
		{"said so", func(context.Context) error { return sdk.Errorf(sdk.CodeFull, "disk", "disk is full") }, sdk.CodeFull, "disk", false},
		{"busy", func(context.Context) error { return sdk.Errorf(sdk.CodeUnavailable, "locked", "locked") }, sdk.CodeUnavailable, "locked", false},
		{"odd", func(context.Context) error { return errors.New("odd") }, sdk.CodeInternal, "plugin_error", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, Spec{}, func(b *bench) { b.made = func(f *fakeRun) { f.handle = c.err } })
				defer b.p.Stop(t.Context())
				_ = b.p.Ready(t.Context())
				_, err := b.handle()
				var e *sdk.Error
				if !errors.As(err, &e) || e.Code != c.code || e.Reason != c.reason || OutcomeUnknown(err) != c.unknown {
					t.Fatalf("got %#v", err)
				}
				if !strings.HasPrefix(e.Message, "push_handler(x): ") {
					t.Fatalf("message %q", e.Message)
				}
			})
		})
	}
}

func TestACallOfAKindThatThePluginIsNotIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		if _, err := b.p.Outbox().Stats(t.Context(), sdk.StatsRequest{}); !errors.Is(err, sdk.ErrNotFound) {
			t.Fatalf("got %v", err)
		}
	})
}
