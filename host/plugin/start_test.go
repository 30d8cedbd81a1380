package plugin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

func TestStartsThatCannotWorkSayWhyAndAreNotRepeated(t *testing.T) {
	other := t.TempDir()
	script := filepath.Join(other, "script")
	if err := os.WriteFile(script, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(other, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(other, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self(), filepath.Join(other, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(open, "x"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	sticky := filepath.Join(other, "sticky")
	if err := os.Mkdir(sticky, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sticky, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, mode string
		change     func(*Spec)
		want       string
	}{
		{"relative path", "good", func(s *Spec) { s.Path = "meshhost-push-inbox" }, "is not absolute"},
		{"no file", "good", func(s *Spec) { s.Path = "/nonexistent/meshhost-push-inbox" }, "no plugin at /nonexistent/meshhost-push-inbox; build or install it"},
		{"not executable", "good", func(s *Spec) { s.Path = plain }, "is not executable; run chmod +x"},
		{"a directory", "good", func(s *Spec) { s.Path = other }, "is not a file"},
		{"not a program", "good", func(s *Spec) { s.Path = script }, "exec format error"},
		{"writable directory", "good", func(s *Spec) { s.Path = filepath.Join(open, "x") }, "writable by everyone"},
		{"bad checksum", "good", func(s *Spec) { s.SHA256 = strings.Repeat("0", 64) }, "if the new file is right, correct sha256"},
		{"odd checksum", "good", func(s *Spec) { s.SHA256 = "abc" }, "is not 64 hex digits"},
		{"other protocol", "protocol", nil, "speaks plugin protocol 9, this host speaks 1"},
		{"net/rpc", "netrpc", nil, `speaks "netrpc"`},
		{"another go-plugin program", "raw", nil, "but no meshhost plugin"},
		{"nonsense", "nonsense", nil, "against its contract: it is of no kind"},
		{"wrong kind", "outbox", func(s *Spec) { s.Kind = sdk.KindPushHandler }, "is no push_handler but"},
		{"refused values", "good", func(s *Spec) {
			s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
				return jsontext.Value(`{"fail":"x"}`), nil
			}
		}, "configuration fail: it must not be set: Remove it."},
		{"undecodable values", "good", func(s *Spec) {
			s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
				return nil, errors.New("mesh.hcl:3: typo")
			}
		}, "mesh.hcl:3: typo"},
		{"long runtime dir", "good", func(s *Spec) { s.RuntimeDir = "/tmp/" + strings.Repeat("x", 90) }, "is too long"},
		{"PLUGIN_ variable", "good", func(s *Spec) { s.Env["PLUGIN_MIN_PORT"] = "1" }, "belongs to the plugin protocol"},
		{"shared data dir", "good", func(s *Spec) { s.DataDir = open }, "is writable by group or others"},
		{"sticky data dir", "good", func(s *Spec) { s.DataDir = sticky }, "is writable by group or others"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := shortDir(t)
			s := spec(sdk.KindFeature, c.mode, dir)
			if c.change != nil {
				c.change(&s)
			}
			p := Start(context.Background(), s)
			defer stopIn(p, 5*time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			err := p.Ready(ctx)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "(test): ") {
				t.Fatalf("Ready says %v", err)
			}
			if st := p.Status(); st.State != StateQuarantined || st.Reason != ReasonPermanent || st.Starts > 1 {
				t.Fatalf("status %+v", st)
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "r")); len(left) > 0 {
				t.Fatalf("left in the runtime directory: %v", left)
			}
			if _, err := ask(p, "pid", ""); !IsDown(err) {
				t.Fatalf("a call says %v", err)
			}
		})
	}
}

func TestWhatAPluginRefusesIsExplainedBeforeAnybodySeesIt(t *testing.T) {
	var log logBuffer
	s := spec(sdk.KindFeature, "good", shortDir(t))
	s.Logger = log.logger()
	values := `{"fail":"hunter2"}`
	s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) { return jsontext.Value(values), nil }
	s.Explain = func(d sdk.Description, said sdk.Diagnostics) sdk.Diagnostics {
		if d.Name != "test" || len(said) != 1 {
			t.Errorf("%+v said %+v", d, said)
		}
		said[0].Path, said[0].Summary = nil, "mesh.hcl:7:3: so it is"
		return said
	}
	p := Start(context.Background(), s)
	defer stopIn(p, 5*time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err == nil || !strings.Contains(err.Error(), "configuration: mesh.hcl:7:3: so it is") || strings.Contains(err.Error(), "must not be set") {
		t.Errorf("Ready says %v", err)
	}
	values = `{}` // only a warning
	if err := p.Replace(ctx, s); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]bool{"quarantined": true, "configuration: mesh.hcl:7:3: so it is": true, "must not be set": false, "just so": false} {
		if strings.Contains(log.String(), said) != want {
			t.Errorf("%q in the log: %v, want %v:\n%s", said, !want, want, log.String())
		}
	}
}

// What a plugin can't do now is no fault of its configuration: it is started
// until it can.
func TestAConfigureThatFailsForNowIsRepeated(t *testing.T) {
	dir := shortDir(t)
	free := filepath.Join(dir, "free")
	var log logBuffer
	s := spec(sdk.KindFeature, "good", dir)
	s.Logger = log.logger()
	s.Restart = Restart{Initial: time.Millisecond, Max: 10 * time.Millisecond}
	s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
		return jsontext.Value(`{"greeting":"wait for ` + free + `"}`), nil
	}
	s.Explain = func(_ sdk.Description, said sdk.Diagnostics) sdk.Diagnostics {
		said[0].Summary = strings.ReplaceAll(said[0].Summary, "hunter2", "(secret)")
		return said
	}
	again := make(chan struct{}, 64)
	s.OnState = func(st Status) {
		if st.State == StateBackoff {
			again <- struct{}{}
		}
	}
	p := Start(context.Background(), s)
	defer stopIn(p, 5*time.Second)
	for range 2 {
		<-again
	}
	if err := os.WriteFile(free, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if said := log.String(); strings.Contains(said, "hunter2") || !strings.Contains(said, "(secret) is in the way") {
		t.Errorf("the log says:\n%s", said)
	}
}

func TestStartsThatMayWorkLaterAreRepeated(t *testing.T) {
	for mode, want := range map[string]string{
		"exit":   "ended before the handshake: exit status 3",
		"words":  "last words: cannot find libfoo.so.3", // on stdout, without a newline
		"silent": "no handshake within 300ms",
		"frozen": "no ",
		"good":   "configure: ended: exit status 2", // by its values
	} {
		t.Run(mode, func(t *testing.T) {
			dir := shortDir(t)
			s := spec(sdk.KindFeature, mode, dir)
			s.StartTimeout = 300 * time.Millisecond
			if mode == "good" {
				s.StartTimeout = 0
				s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
					return jsontext.Value(`{"greeting":"die"}`), nil
				}
			}
			s.Restart = Restart{Initial: time.Millisecond, Max: time.Millisecond, Crashes: 3}
			p := Start(context.Background(), s)
			defer stopIn(p, 5*time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			err := p.Ready(ctx)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "3 crashes within") {
				t.Fatalf("Ready says %v", err)
			}
			if st := p.Status(); st.Reason != ReasonCrashes || st.Starts != 3 {
				t.Fatalf("status %+v", st)
			}
			if left, _ := os.ReadDir(s.RuntimeDir); len(left) > 0 {
				t.Fatalf("left in the runtime directory: %v", left)
			}
		})
	}
}
