package plugin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// Plugin is one supervised plugin. It outlives its processes: hold on to it and
// to the facades that it gives out. All methods may be called concurrently.
type Plugin struct {
	kind sdk.Kind
	name string

	gate gate
	// spec is the one in force; its timeouts count for calls.
	spec atomic.Pointer[Spec]

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed and replaced on each change of status

	commands chan command
	stopping chan struct{}   // closed by the first Stop
	stopOnce sync.Once       // guards stopping and stopCtx
	stopCtx  context.Context // set before stopping is closed
	done     chan struct{}   // closed when the owner goroutine has ended

	// Seams for tests in virtual time.
	launch launcher
	jitter func() float64
}

// incarnation is one run of a plugin, from a finished Configure to the end of
// its process.
type incarnation interface {
	// calls are the generated clients' facades; nil where a kind is missing.
	calls() *calls
	description() sdk.Description
	pid() int
	startedAt() time.Time
	// exited is closed when the process has ended, however.
	exited() <-chan struct{}
	// report says in one line how it ended; valid after exited.
	report() string
	health(ctx context.Context) error
	configure(ctx context.Context, s *Spec) error
	drain(ctx context.Context) error
	// kill ends the process and its children now.
	kill()
	// end asks the process to go, kills it when ctx ends, and removes what it
	// leaves behind. It returns when that is done; a second call does nothing.
	end(ctx context.Context)
}

// calls is what an incarnation offers.
type calls struct {
	outbox  sdk.Outbox
	push    sdk.PushHandler
	filter  sdk.PeerFilter
	feature sdk.FeatureCaller
}

// launcher makes an incarnation that is ready to be called.
type launcher func(ctx context.Context, s *Spec) (incarnation, error)

// command asks the owner goroutine for a change; it answers once.
type command struct {
	ctx   context.Context
	spec  *Spec
	fresh bool // a new process, even where the old one could be configured
	reply chan error
}

// Start begins the life of a plugin and returns at once; Ready waits for it. A
// Spec that fails Check gives a plugin that is quarantined. When ctx ends, the
// plugin is drained and stopped as by Stop; Stop must be called in any case, or
// Wait used, to know that its process is gone.
func Start(ctx context.Context, s Spec) *Plugin {
	return start(ctx, s, launchProcess, rand.Float64)
}

func start(ctx context.Context, s Spec, launch launcher, jitter func() float64) *Plugin {
	s = s.withDefaults()
	p := &Plugin{
		kind: s.Kind, name: s.Name,
		changed:  make(chan struct{}),
		commands: make(chan command),
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
		launch:   launch, jitter: jitter,
	}
	p.status = Status{Kind: s.Kind, Name: s.Name, State: StateStarting, Since: time.Now()}
	p.spec.Store(&s)
	p.gate.shut(downError(&s, p.status))
	go p.own(ctx)
	return p
}

// Name is the block's name.
func (p *Plugin) Name() string { return p.name }

// Kind is the block's kind; the process may be of further kinds, see
// Description.
func (p *Plugin) Kind() sdk.Kind { return p.kind }

// ID names the plugin in messages: outbox(sqlite).
func (p *Plugin) ID() string { return p.spec.Load().id() }

// Status is a snapshot.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Description is what the plugin last said of itself; zero before it first did.
func (p *Plugin) Description() sdk.Description { return p.Status().Description }

// Ready waits until the plugin serves. It fails as soon as the plugin is
// quarantined or stopped, and when ctx ends; then the error names the state and
// the last failure.
func (p *Plugin) Ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		st, changed := p.status, p.changed
		p.mu.Unlock()
		if st.State == StateReady {
			return nil
		}
		if st.Broken() {
			if st.Err != nil {
				return st.Err
			}
			return fmt.Errorf("%s: %s", p.ID(), st.State)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not ready but %s: %w", p.ID(), st.State, context.Cause(ctx)), st.Err)
		}
	}
}

// Wait returns when the plugin has stopped for good, or with ctx's error.
func (p *Plugin) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop lets calls in flight finish, drains the plugin and ends its process,
// killing it when ctx ends first. Calls made meanwhile fail with ReasonDown. It
// returns when the process is gone; later Stops wait for the first.
func (p *Plugin) Stop(ctx context.Context) {
	p.stopOnce.Do(func() {
		p.stopCtx = ctx
		close(p.stopping)
	})
	<-p.done
}

// Replace holds the plugin's calls, drains and ends its process and starts one
// by the new Spec. If that fails the old one starts again and the error says
// why the new one did not. The kind and the name must be the same. On a plugin
// that is quarantined or waits for a restart it starts by the new Spec at once,
// so a Replace by the same Spec lifts a quarantine.
func (p *Plugin) Replace(ctx context.Context, s Spec) error {
	return p.command(ctx, s, true)
}

// Reconfigure gives the running process the values of s.Config, between calls;
// on an error it keeps the old ones. Where s needs another process (path,
// arguments, environment, grants) it is Replace.
func (p *Plugin) Reconfigure(ctx context.Context, s Spec) error {
	return p.command(ctx, s, false)
}

func (p *Plugin) command(ctx context.Context, s Spec, fresh bool) error {
	s = s.withDefaults()
	if s.Kind != p.kind || s.Name != p.name {
		return fmt.Errorf("%s can't become %s: stop it and start the other", p.ID(), s.id())
	}
	if err := s.Check(); err != nil {
		return err
	}
	c := command{ctx: ctx, spec: &s, fresh: fresh, reply: make(chan error, 1)}
	select {
	case p.commands <- c:
	case <-p.done:
		return downError(&s, p.Status())
	case <-ctx.Done():
		return fmt.Errorf("%s: replace: %w", p.ID(), ctx.Err())
	}
	// Taken: the owner answers in any case, in its own bounded time.
	return <-c.reply
}

// set changes the status and tells who watches. Only the owner calls it.
func (p *Plugin) set(change func(st *Status)) {
	p.mu.Lock()
	before := p.status.State
	change(&p.status)
	if p.status.State != before {
		p.status.Since = time.Now()
	}
	st := p.status
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if f := p.spec.Load().OnState; f != nil {
		f(st)
	}
}

// downError is what calls get while no process takes them.
func downError(s *Spec, st Status) *sdk.Error {
	e := &sdk.Error{Code: sdk.CodeUnavailable, Reason: ReasonDown}
	switch st.State {
	case StateStarting:
		e.Message = s.id() + ": it is starting"
		e.Next = "Try again in a moment."
		e.RetryAfter = 100 * time.Millisecond
	case StateBackoff:
		e.Message = fmt.Sprintf("%s: it is down and starts again by itself (%v)", s.id(), st.Err)
		e.Next = "Try again; `meshhost plugin list` shows its state."
		e.RetryAfter = max(time.Until(st.NextStart), 100*time.Millisecond)
	case StateQuarantined:
		e.Message = fmt.Sprintf("%s: it is quarantined (%s): %v", s.id(), st.Reason, st.Err)
		e.Next = "Correct the cause and run `meshhost reload`; `meshhost plugin info " + s.Name + "` shows its last words."
	case StateDraining:
		e.Message = s.id() + ": it is stopping"
		e.Next = "Start meshhost again."
	default:
		e.Message = s.id() + ": it is stopped"
		e.Next = "Start meshhost again."
	}
	return e
}
