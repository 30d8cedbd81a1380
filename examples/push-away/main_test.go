package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func start(t *testing.T, c *clock, options ...plugintest.Option) *plugintest.Plugin {
	t.Helper()
	return plugintest.Start(t, plugin(&handler{now: c.now}), options...).MustConfigure(`{"text":"Away.","every":"1h"}`)
}

// handle gives pushes to the plugin, which must answer.
func handle(t *testing.T, p *plugintest.Plugin, pushes ...sdk.Push) []sdk.Outcome {
	t.Helper()
	outcomes, err := p.PushHandler().Handle(t.Context(), pushes)
	if err != nil {
		t.Fatal(err)
	}
	return outcomes
}

func from(sender, id string) sdk.Push {
	return sdk.Push{ID: id, Mesh: "team", Kind: sdk.PushDirect, Sender: sender, Body: []byte("are you there?")}
}

func TestASenderIsAnsweredOnceInAPeriod(t *testing.T) {
	c := &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p := start(t, c)
	handle(t, p, from("bob", "1"), from("carol", "2"), from("bob", "3"))
	c.at = c.at.Add(59 * time.Minute)
	handle(t, p, from("bob", "4"))
	c.at = c.at.Add(time.Minute)
	handle(t, p, from("bob", "5"))
	var got []string
	for _, s := range p.Host.Sends() {
		got = append(got, strings.Join([]string{s.Mesh, s.To, s.Message, s.Priority, s.ClientMessageID}, " "))
	}
	want := []string{"team bob Away. low away-1", "team carol Away. low away-2", "team bob Away. low away-5"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheSameMessageIsAnsweredUnderTheSameID(t *testing.T) {
	c := &clock{at: time.Now()}
	p := start(t, c)
	handle(t, p, from("bob", "1"))
	// Its record is lost, as by a crash between answer and record.
	if err := p.Host.StoreDelete(t.Context(), "answered/team/bob"); err != nil {
		t.Fatal(err)
	}
	p.Host.OnSend(func(sdk.SendRequest) error { return sdk.Errorf(sdk.CodeConflict, "key_reused", "sent before") })
	if out := handle(t, p, from("bob", "1")); out[0].Decision != sdk.Ack {
		t.Errorf("%+v", out)
	}
	for _, s := range p.Host.Sends() {
		if s.ClientMessageID != "away-1" {
			t.Errorf("%+v", s)
		}
	}
}

func TestWhatTheHostRefusesIsDroppedAndWhatItCannotDoNowComesAgain(t *testing.T) {
	p := start(t, &clock{at: time.Now()})
	for _, tc := range []struct {
		code     sdk.Code
		decision sdk.Decision // empty: the call fails and the batch comes again
	}{
		{sdk.CodePermission, sdk.Drop},
		{sdk.CodeInvalid, sdk.Drop},
		{sdk.CodeInternal, sdk.Retry},
		{sdk.CodeUnavailable, ""},
		{sdk.CodeTimeout, ""},
	} {
		p.Host.OnSend(func(sdk.SendRequest) error { return sdk.Errorf(tc.code, "why", "because") })
		out, err := p.PushHandler().Handle(t.Context(), []sdk.Push{from("bob", string(tc.code))})
		if tc.decision == "" {
			if err == nil {
				t.Errorf("%s: %+v", tc.code, out)
			}
			continue
		}
		if err != nil || out[0].Decision != tc.decision || !strings.Contains(out[0].Reason, "because") {
			t.Errorf("%s: %+v, %v", tc.code, out, err)
		}
	}
}

func TestAFullStoreForgetsWhatIsPast(t *testing.T) {
	c := &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p := start(t, c)
	old := []byte(c.at.Add(-2 * time.Hour).Format(time.RFC3339))
	for i := 0; ; i++ {
		if err := p.Host.StorePut(t.Context(), fmt.Sprint("answered/team/", i), old); err != nil {
			break // full
		}
	}
	if out := handle(t, p, from("bob", "1")); out[0].Decision != sdk.Ack {
		t.Fatalf("%+v", out)
	}
	if keys, err := p.Host.StoreList(t.Context(), ""); err != nil || len(keys) != 1 {
		t.Errorf("%d keys are left, %v", len(keys), err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	p := plugintest.Start(t, plugin(&handler{now: time.Now}))
	for config, word := range map[string]string{
		`{"text":""}`:                "text",
		`{"text":"x","every":"59s"}`: "every",
		`{"text":"` + strings.Repeat("x", maxText+1) + `"}`: "text",
	} {
		if diags := p.Validate(config); len(diags) != 1 || !strings.Contains(fmt.Sprint(diags[0]), word) {
			t.Errorf("%.40s: %v", config, diags)
		}
	}
}
