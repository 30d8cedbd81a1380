package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// fakeRun is an incarnation without a process; time is the bubble's.
type fakeRun struct {
	n        int
	spec     *Spec
	dead     chan struct{}
	deadOnce sync.Once
	why      string

	mu      sync.Mutex
	frozen  bool
	events  *[]string
	confErr error
	handle  func(ctx context.Context) error
}

func (f *fakeRun) die(why string) { f.deadOnce.Do(func() { f.why = why; close(f.dead) }) }
func (f *fakeRun) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*f.events = append(*f.events, fmt.Sprintf("%s%d", s, f.n))
}

func (f *fakeRun) calls() *calls { return &calls{push: f} }
func (f *fakeRun) Handle(ctx context.Context, p []sdk.Push) ([]sdk.Outcome, error) {
	if f.handle != nil {
		if err := f.handle(ctx); err != nil {
			return nil, err
		}
	}
	return []sdk.Outcome{{Decision: sdk.Ack, Reason: fmt.Sprint(f.n)}}[:len(p)], nil
}
func (f *fakeRun) description() sdk.Description { return sdk.Description{Name: fmt.Sprint(f.n)} }
func (f *fakeRun) pid() int                     { return 1000 + f.n }
func (f *fakeRun) startedAt() time.Time         { return time.Time{} }
func (f *fakeRun) exited() <-chan struct{}      { return f.dead }
func (f *fakeRun) report() string               { return f.why }
func (f *fakeRun) kill()                        { f.note("kill"); f.die("killed by us") }
func (f *fakeRun) drain(context.Context) error  { f.note("drain"); return nil }
func (f *fakeRun) end(context.Context)          { f.die("asked"); f.note("end") }
func (f *fakeRun) configure(_ context.Context, s *Spec) error {
	f.note("configure")
	return f.confErr
}
func (f *fakeRun) health(ctx context.Context) error {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// bench is a plugin over fakeRuns.
type bench struct {
	t      *testing.T
	p      *Plugin
	mu     sync.Mutex
	runs   []*fakeRun
	states []State
	events []string
	fail   func(n int, s *Spec) error // of launch
	made   func(*fakeRun)
}

func newBench(t *testing.T, s Spec, prepare func(*bench)) *bench {
	b := &bench{t: t}
	if prepare != nil {
		prepare(b)
	}
	if s.Name == "" {
		s.Name = "x"
	}
	if s.Kind == "" {
		s.Kind = sdk.KindPushHandler
	}
	if s.Path == "" {
		s.Path = "/bin/x"
	}
	s.OnState = func(st Status) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.states) == 0 || b.states[len(b.states)-1] != st.State {
			b.states = append(b.states, st.State)
		}
	}
	n := 0
	b.p = start(context.Background(), s, func(ctx context.Context, s *Spec) (incarnation, error) {
		n++
		if b.fail != nil {
			if err := b.fail(n, s); err != nil {
				return nil, err
			}
		}
		f := &fakeRun{n: n, spec: s, dead: make(chan struct{}), events: &b.events}
		if b.made != nil {
			b.made(f)
		}
		b.mu.Lock()
		b.runs = append(b.runs, f)
		b.mu.Unlock()
		return f, nil
	}, func() float64 { return 0 })
	return b
}

func (b *bench) last() *fakeRun {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs[len(b.runs)-1]
}

func (b *bench) handle() (string, error) {
	out, err := b.p.PushHandler().Handle(context.Background(), make([]sdk.Push, 1))
	if err != nil {
		return "", err
	}
	return out[0].Reason, nil
}

func TestAPluginThatDiesIsBackAtOnceAndFacadesStayValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		if err := b.p.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.last().die("signal: killed")
		synctest.Wait()
		begin := time.Now()
		if err := b.p.Ready(t.Context()); err != nil || time.Since(begin) != 0 {
			t.Fatalf("back after %s: %v", time.Since(begin), err)
		}
		if got, err := b.handle(); got != "2" || err != nil {
			t.Fatalf("call went to run %s: %v", got, err)
		}
		if st := b.p.Status(); st.Crashes != 1 || st.Starts != 2 || st.LastCrash != "signal: killed" {
			t.Fatalf("status %+v", st)
		}
		b.p.Stop(t.Context())
		want := []string{"end1", "drain2", "end2"}
		if !slices.Equal(b.events, want) {
			t.Fatalf("events %v, want %v", b.events, want)
		}
	})
}

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

func TestFiveCrashesQuarantineAndReplaceLiftsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		defer b.p.Stop(t.Context())
		for range 5 {
			_ = b.p.Ready(t.Context())
			b.last().die("exit status 1")
			synctest.Wait()
		}
		time.Sleep(time.Hour) // virtual
		st := b.p.Status()
		if st.State != StateQuarantined || st.Reason != ReasonCrashes || st.Starts != 5 {
			t.Fatalf("status %+v", st)
		}
		if err := b.p.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "5 crashes within 10m0s, the last: exit status 1") {
			t.Fatalf("Ready says %v", err)
		}
		if err := b.p.Replace(t.Context(), *b.p.spec.Load()); err != nil {
			t.Fatal(err)
		}
		if got, err := b.handle(); got != "6" || err != nil {
			t.Fatalf("after Replace: %s, %v", got, err)
		}
	})
}

func TestAnOutboxIsNeverQuarantinedByCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{Kind: sdk.KindOutbox}, nil)
		defer b.p.Stop(t.Context())
		for range 50 {
			if err := b.p.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.last().die("exit status 1")
			synctest.Wait()
		}
		if err := b.p.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAPermanentFailureIsNotRetried(t *testing.T) {
	bad := []error{
		permanent(errors.New("checksum of /bin/x is a, not b as configured")),
		permanent(&ConfigError{Plugin: "push_handler(x)", Diagnostics: sdk.Diagnostics{sdk.Invalid([]string{"path"}, "no such directory", "")}}),
		permanent(fmt.Errorf("no plugin: %w", fs.ErrNotExist)),
	}
	for _, kind := range []sdk.Kind{sdk.KindPushHandler, sdk.KindOutbox} {
		for _, want := range bad {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, Spec{Kind: kind}, func(b *bench) { b.fail = func(int, *Spec) error { return want } })
				defer b.p.Stop(t.Context())
				if err := b.p.Ready(t.Context()); !errors.Is(err, want) {
					t.Fatalf("Ready says %v", err)
				}
				time.Sleep(24 * time.Hour)
				if st := b.p.Status(); st.State != StateQuarantined || st.Reason != ReasonPermanent || st.Starts != 1 {
					t.Fatalf("status %+v", st)
				}
			})
		}
	}
}

func TestConfigurationThatOnceWorkedIsWorthARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{Kind: sdk.KindOutbox}, func(b *bench) {
			b.fail = func(n int, _ *Spec) error {
				if n > 1 && n < 5 {
					return permanent(&ConfigError{Diagnostics: sdk.Diagnostics{sdk.Invalid(nil, "database is locked", "")}})
				}
				return nil
			}
		})
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		b.last().die("signal: killed")
		synctest.Wait()
		if err := b.p.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestASilentPluginIsKilledAndRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		first := b.last()
		first.mu.Lock()
		first.frozen = true
		first.mu.Unlock()
		begin := time.Now()
		<-first.dead
		if took := time.Since(begin); took < 30*time.Second || took > 32*time.Second {
			t.Fatalf("killed after %s, want three checks 10 s apart, 1 s each", took)
		}
		synctest.Wait()
		if err := b.p.Ready(t.Context()); err != nil || !strings.Contains(b.p.Status().LastCrash, "alive but silent: 3 health checks") {
			t.Fatalf("%v, %q", err, b.p.Status().LastCrash)
		}
	})
}

func TestOneMissedHealthCheckIsForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{}, nil)
		defer b.p.Stop(t.Context())
		_ = b.p.Ready(t.Context())
		f := b.last()
		time.Sleep(5 * time.Second) // between two checks
		for range 20 {
			f.mu.Lock()
			f.frozen = !f.frozen
			f.mu.Unlock()
			time.Sleep(10 * time.Second)
		}
		if st := b.p.Status(); st.Crashes != 0 {
			t.Fatalf("killed: %+v", st)
		}
	})
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

func TestStopDuringBackoffAndStartEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{Kind: sdk.KindOutbox}, func(b *bench) {
			b.fail = func(int, *Spec) error { return errors.New("no") }
		})
		time.Sleep(time.Hour)
		begin := time.Now()
		b.p.Stop(t.Context())
		if time.Since(begin) != 0 || b.p.Status().State != StateStopped {
			t.Fatalf("%s, %+v", time.Since(begin), b.p.Status())
		}
		if _, err := b.handle(); !IsDown(err) {
			t.Fatalf("after Stop: %v", err)
		}
		if err := b.p.Replace(t.Context(), *b.p.spec.Load()); err == nil {
			t.Fatal("a stopped plugin was replaced")
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
		if _, err := b.p.Outbox().Stats(t.Context()); !errors.Is(err, sdk.ErrNotFound) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestThirtyDaysOfCrashesKeepEverythingBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Spec{Restart: Restart{Initial: 50 * time.Millisecond, Max: 30 * time.Second}}, func(b *bench) {
			b.made = func(f *fakeRun) {
				go func() {
					select {
					case <-time.After(time.Duration(f.n%7) * 20 * time.Second):
						f.die("exit status 1")
					case <-f.dead:
					}
				}()
			}
		})
		time.Sleep(30 * 24 * time.Hour)
		st := b.p.Status()
		if st.Crashes < 30_000 || st.Broken() {
			t.Fatalf("status %+v", st)
		}
		b.p.Stop(t.Context())
	})
}
