package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

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
