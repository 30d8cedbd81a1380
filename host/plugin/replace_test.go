package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

func TestReplaceAndReconfigureWithProcesses(t *testing.T) {
	values := func(v string) func(context.Context, sdk.Description) (jsontext.Value, error) {
		return func(context.Context, sdk.Description) (jsontext.Value, error) { return jsontext.Value(v), nil }
	}
	s := spec(sdk.KindFeature, "good", shortDir(t))
	s.Config = values(`{"greeting":"one"}`)
	p := startReady(t, s)
	pid := mustAsk(t, p, "pid", "")

	s.Config = values(`{"greeting":"two"}`)
	if err := p.Reconfigure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := mustAsk(t, p, "config", ""); got != `{"greeting":"two"}` || mustAsk(t, p, "pid", "") != pid {
		t.Fatalf("values %s", got)
	}
	s.Config = values(`{"fail":"x"}`)
	var conf *ConfigError
	if err := p.Reconfigure(t.Context(), s); !errors.As(err, &conf) || conf.Diagnostics[0].Path[0] != "fail" {
		t.Fatalf("Reconfigure says %v", err)
	}
	if mustAsk(t, p, "pid", "") != pid {
		t.Fatal("refused values cost the process")
	}
	if err := p.Replace(t.Context(), s); !errors.As(err, &conf) || !strings.Contains(err.Error(), "the old one runs again") {
		t.Fatalf("Replace says %v", err)
	}
	if got := mustAsk(t, p, "config", ""); got != `{"greeting":"two"}` {
		t.Fatalf("the old one runs with %s", got)
	}

	// Calls go on all the time while the plugin is replaced: none fails.
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			for ctx.Err() == nil {
				if _, err := ask(p, "pid", ""); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	s.Config = values(`{"greeting":"three"}`)
	for range 3 {
		if err := p.Replace(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	cancel()
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if st := p.Status(); st.Crashes != 0 {
		t.Fatalf("status %+v", st)
	}
}

func TestProbeAndValidateLeaveNoProcess(t *testing.T) {
	dir := shortDir(t)
	s := spec("", "good", dir)
	s.DataDir = ""
	d, err := Probe(t.Context(), s)
	if err != nil || d.Name != "test" || !d.Has(sdk.KindFeature) || len(d.Methods) != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
		return jsontext.Value(`{"fail":"x"}`), nil
	}
	_, diags, err := Validate(t.Context(), s)
	if err != nil || !diags.HasErrors() || diags[0].Path[0] != "fail" {
		t.Fatalf("%+v, %v", diags, err)
	}
	s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) { return nil, errors.New("typo") }
	var conf *ConfigError
	if _, _, err := Validate(t.Context(), s); !errors.As(err, &conf) || conf.Err == nil {
		t.Fatalf("%v", err)
	}
	s.Kind = sdk.KindOutbox
	if _, err := Probe(t.Context(), s); err == nil || !isPermanent(err) {
		t.Fatalf("wrong kind: %v", err)
	}
	if left, _ := os.ReadDir(s.RuntimeDir); len(left) > 0 {
		t.Fatalf("left in the runtime directory: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "d")); !os.IsNotExist(err) {
		t.Fatal("validation made a data directory")
	}
}

func TestReplaceHoldsCallsDrainsTheOldAndStartsTheNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := newBench(t, Spec{}, func(b *bench) {
			b.made = func(f *fakeRun) {
				if f.n == 1 {
					f.handle = func(context.Context) error { <-release; return nil }
				}
			}
		})
		_ = b.p.Ready(t.Context())
		inFlight, held, replaced := make(chan string, 1), make(chan string, 1), make(chan error, 1)
		go func() { s, err := b.handle(); inFlight <- fmt.Sprint(s, err) }()
		synctest.Wait()
		next := *b.p.spec.Load()
		next.Args = []string{"-new"}
		go func() { replaced <- b.p.Replace(t.Context(), next) }()
		synctest.Wait()
		go func() { s, err := b.handle(); held <- fmt.Sprint(s, err) }()
		synctest.Wait()
		if len(held) > 0 || len(replaced) > 0 {
			t.Fatal("the old one was replaced with a call in flight, or a call was not held")
		}
		close(release)
		if got := <-inFlight; got != "1<nil>" {
			t.Fatalf("call in flight: %s", got)
		}
		if got := <-held; got != "2<nil>" {
			t.Fatalf("held call: %s", got)
		}
		if err := <-replaced; err != nil {
			t.Fatal(err)
		}
		b.p.Stop(t.Context())
		if want := []string{"drain1", "end1", "drain2", "end2"}; !slices.Equal(b.events, want) {
			t.Fatalf("events %v, want %v", b.events, want)
		}
		if want := []State{StateStarting, StateReady, StateDraining, StateReady, StateDraining, StateStopped}; !slices.Equal(b.states, want) {
			t.Fatalf("states %v, want %v", b.states, want)
		}
	})
}

func TestIfTheNewOneDoesNotStartTheOldOneRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := permanent(errors.New("wrong kind"))
		b := newBench(t, Spec{}, func(b *bench) {
			b.fail = func(_ int, s *Spec) error {
				if len(s.Args) > 0 {
					return bad
				}
				return nil
			}
		})
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		next := *b.p.spec.Load()
		next.Args = []string{"-new"}
		if err := b.p.Replace(t.Context(), next); !errors.Is(err, bad) {
			t.Fatalf("Replace says %v", err)
		}
		if got, err := b.handle(); got != "3" || err != nil {
			t.Fatalf("after it: %s, %v", got, err)
		}
		if len(b.p.spec.Load().Args) > 0 {
			t.Fatal("the new spec is in force")
		}
	})
}

func TestReconfigureKeepsTheProcessAndTheOldValuesOnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		next := *b.p.spec.Load()
		next.CallTimeout = map[Method]time.Duration{MethodHandle: time.Minute}
		if err := b.p.Reconfigure(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if got, err := b.handle(); got != "1" || err != nil || b.p.spec.Load().CallTimeout[MethodHandle] != time.Minute {
			t.Fatalf("another process or the old spec: %s, %v", got, err)
		}
		b.last().confErr = permanent(&ConfigError{Plugin: "push_handler(x)"})
		next.CallTimeout = nil
		var conf *ConfigError
		if err := b.p.Reconfigure(t.Context(), next); !errors.As(err, &conf) {
			t.Fatalf("Reconfigure says %v", err)
		}
		if got, err := b.handle(); got != "1" || err != nil || b.p.spec.Load().CallTimeout == nil {
			t.Fatalf("the refused spec is in force: %s, %v", got, err)
		}
		next.Path = "/bin/y"
		if err := b.p.Reconfigure(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if got, _ := b.handle(); got != "2" {
			t.Fatalf("another binary needs another process, got run %s", got)
		}
		next.Name = "z"
		if err := b.p.Reconfigure(t.Context(), next); err == nil {
			t.Fatal("a plugin changed its name")
		}
	})
}
