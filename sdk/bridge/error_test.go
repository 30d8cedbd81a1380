package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

// answer is a push handler that answers what its test says.
type answer func(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error)

func (f answer) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return f(ctx, pushes)
}

func startAnswer(t *testing.T, f answer) *plugintest.Plugin {
	t.Helper()
	return plugintest.Start(t, sdk.Plugin{Name: "answer", Version: "1", PushHandler: f}).MustConfigure("")
}

func handle(ctx context.Context, p *plugintest.Plugin) error {
	_, err := p.PushHandler().Handle(ctx, []sdk.Push{{ID: "1", Kind: sdk.PushDirect}})
	return err
}

func TestErrorsSurviveTheBoundary(t *testing.T) {
	sentinels := []*sdk.Error{
		sdk.ErrInvalid, sdk.ErrNotFound, sdk.ErrConflict, sdk.ErrUnavailable, sdk.ErrPermission,
		sdk.ErrFenced, sdk.ErrTimeout, sdk.ErrFull, sdk.ErrInternal,
	}
	var give error
	p := startAnswer(t, func(context.Context, []sdk.Push) ([]sdk.Outcome, error) { return nil, give })
	for _, sentinel := range sentinels {
		whole := &sdk.Error{Code: sentinel.Code, Reason: "r", Message: "what", Next: "do this", RetryAfter: 3 * time.Second}
		for name, err := range map[string]error{"bare": sentinel, "whole": whole, "wrapped": fmt.Errorf("store: %w", whole)} {
			give = err
			got := handle(t.Context(), p)
			for _, other := range sentinels {
				if errors.Is(got, other) != (other == sentinel) {
					t.Errorf("%s %s: Is(%s) is %v", name, sentinel, other, errors.Is(got, other))
				}
			}
			var e *sdk.Error
			if !errors.As(got, &e) || e.Message != err.Error() {
				t.Errorf("%s %s: %v", name, sentinel, got)
			}
			if name != "bare" && (e.Reason != "r" || e.Next != "do this" || e.RetryAfter != 3*time.Second) {
				t.Errorf("%s %s: lost details: %+v", name, sentinel, e)
			}
			if errors.Is(got, context.DeadlineExceeded) || errors.Is(got, context.Canceled) {
				t.Errorf("%s %s: it looks like the context's", name, sentinel)
			}
		}
	}
	give = errors.New("plain")
	if got := handle(t.Context(), p); !errors.Is(got, sdk.ErrInternal) || got.Error() != "plain" {
		t.Errorf("a plain error: %v", got)
	}
	give = fmt.Errorf("dial: %w", status.Error(codes.Unavailable, "elsewhere"))
	if got := handle(t.Context(), p); !errors.Is(got, sdk.ErrUnavailable) {
		t.Errorf("a status of somewhere else: %v", got)
	}
}

func TestContextErrorsSurviveTheBoundary(t *testing.T) {
	entered := make(chan struct{}, 1)
	p := startAnswer(t, func(ctx context.Context, _ []sdk.Push) ([]sdk.Outcome, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := handle(ctx, p); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, sdk.ErrTimeout) {
		t.Errorf("deadline: %v", err)
	}
	<-entered
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if err := handle(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}
}

func TestAPanicEndsTheCallAndNotTheProcess(t *testing.T) {
	n := 0
	p := startAnswer(t, func(context.Context, []sdk.Push) ([]sdk.Outcome, error) {
		if n++; n == 1 {
			panic("secret-in-a-panic")
		}
		return []sdk.Outcome{{Decision: sdk.Ack}}, nil
	})
	err := handle(t.Context(), p)
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeInternal || e.Reason != "panic" || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if logs := p.Logs(); !strings.Contains(logs, "secret-in-a-panic") || !strings.Contains(logs, "error_test.go") {
		t.Errorf("the log has no stack: %s", logs)
	}
	if err := handle(t.Context(), p); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestCallsComeOnlyBetweenConfigureAndDrain(t *testing.T) {
	p := plugintest.Start(t, sdk.Plugin{Name: "a", Version: "1", PushHandler: answer(func(context.Context, []sdk.Push) ([]sdk.Outcome, error) {
		return []sdk.Outcome{{Decision: sdk.Ack}}, nil
	})})
	reason := func() string {
		var e *sdk.Error
		if errors.As(handle(t.Context(), p), &e) {
			return string(e.Code) + " " + e.Reason
		}
		return ""
	}
	if got := reason(); got != "unavailable not_configured" {
		t.Errorf("before Configure: %q", got)
	}
	if diags := p.Configure(`{"x":1}`); !diags.HasErrors() || diags[0].Path[0] != "x" {
		t.Errorf("a plugin without options took one: %v", diags)
	}
	if got := reason(); got != "unavailable not_configured" {
		t.Errorf("after a Configure that failed: %q", got)
	}
	p.MustConfigure("")
	if got := reason(); got != "" {
		t.Errorf("after Configure: %q", got)
	}
	for range 2 { // a host that did not see the answer asks again
		if err := p.Client.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := reason(); got != "unavailable drained" {
		t.Errorf("after Drain: %q", got)
	}
	p.MustConfigure("")
	if got := reason(); got != "" {
		t.Errorf("configured again: %q", got)
	}
}

func TestMessagesPass5MiBAndAreRefusedBeyond16(t *testing.T) {
	var reply string
	p := startAnswer(t, func(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
		return []sdk.Outcome{{Decision: sdk.Drop, Reason: reply}}, nil
	})
	body := make([]byte, bridge.MaxMessageBytes+1)
	send := func(n int) error {
		_, err := p.PushHandler().Handle(t.Context(), []sdk.Push{{ID: "1", Kind: sdk.PushDirect, Body: body[:n]}})
		return err
	}
	if err := send(5 << 20); err != nil {
		t.Errorf("5 MiB to the plugin: %v", err)
	}
	if err := send(len(body)); !errors.Is(err, sdk.ErrFull) {
		t.Errorf("too much to the plugin: %v", err)
	}
	reply = strings.Repeat("x", 5<<20)
	if err := send(1); err != nil {
		t.Errorf("5 MiB from the plugin: %v", err)
	}
	reply = strings.Repeat("x", len(body))
	if err := send(1); !errors.Is(err, sdk.ErrFull) {
		t.Errorf("too much from the plugin: %v", err)
	}
}

func TestHealth(t *testing.T) {
	p := startAnswer(t, nil)
	if err := p.Client.Health(t.Context()); err != nil {
		t.Error(err)
	}
	c := serveRaw(t, nothing)
	if err := c.Health(t.Context()); !errors.Is(err, sdk.ErrInternal) {
		t.Errorf("no health service: %v", err)
	}
}
