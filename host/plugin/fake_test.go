package plugin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func TestAnyOrderOfEventsEndsStopped(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			b := newBench(t, Spec{Kind: sdk.KindPushHandler, Restart: Restart{Initial: time.Millisecond, Max: time.Second, Crashes: int(seed % 4)}}, func(b *bench) {
				b.fail = func(n int, _ *Spec) error {
					if (uint64(n)*2654435761+seed)%5 == 0 {
						return errors.New("did not start")
					}
					return nil
				}
			})
			var callers sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			for range 4 {
				callers.Go(func() {
					for ctx.Err() == nil {
						if _, err := b.handle(); err != nil && !IsDown(err) && !OutcomeUnknown(err) {
							t.Errorf("seed %d: %v", seed, err)
						}
						time.Sleep(time.Duration(50+seed%7) * time.Millisecond) // virtual
					}
				})
			}
			for range 30 {
				switch random.IntN(4) {
				case 0:
					b.mu.Lock()
					if len(b.runs) > 0 {
						b.runs[len(b.runs)-1].die("exit status 1")
					}
					b.mu.Unlock()
				case 1:
					_ = b.p.Replace(ctx, *b.p.spec.Load())
				case 2:
					_ = b.p.Reconfigure(ctx, *b.p.spec.Load())
				case 3:
					time.Sleep(time.Duration(random.IntN(3_000)) * time.Millisecond)
				}
			}
			b.p.Stop(ctx)
			cancel()
			callers.Wait()
			if st := b.p.Status(); st.State != StateStopped || st.Pid != 0 {
				t.Fatalf("seed %d: %+v", seed, st)
			}
			for _, f := range b.runs {
				select {
				case <-f.dead:
				default:
					t.Fatalf("seed %d: run %d is left", seed, f.n)
				}
			}
		})
	}
}
