package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// stopGrace is what a plugin gets to drain and go when the context of Start
// ends without a Stop, and at most when it is replaced.
const stopGrace = 10 * time.Second

// owner is the state of the goroutine that owns a plugin's life.
type owner struct {
	p    *Plugin
	spec *Spec
	// served says that spec once became ready: from then on a configuration
	// error or a missing file is the environment's fault and worth a retry.
	served   bool
	restarts restarts
	in       incarnation
}

// step does what a state is about and returns the next; nil ends the life.
type step func(ctx context.Context) step

// own is the owner goroutine.
func (p *Plugin) own(parent context.Context) {
	defer close(p.done)
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	watched := make(chan struct{})
	go func() { // ends with own: the cancel above, or Stop
		defer close(watched)
		select {
		case <-p.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watched }()

	o := &owner{p: p}
	o.adopt(p.spec.Load())
	next := o.starting
	err := o.spec.Check()
	if err == nil && o.spec.Kind == "" {
		err = fmt.Errorf("%s: a plugin that serves needs a kind", o.spec.id())
	}
	if err != nil {
		next = o.broken(permanent(err))
	}
	for next != nil {
		next = next(ctx)
	}
	p.set(func(st *Status) { st.State, st.Pid, st.NextStart = StateStopped, 0, time.Time{} })
	p.gate.shut(downError(o.spec, p.Status()))
}

// adopt makes s the spec in force.
func (o *owner) adopt(s *Spec) {
	if o.spec != s {
		o.served = false
	}
	o.spec = s
	o.restarts = restarts{Restart: s.Restart, never: s.Kind == sdk.KindOutbox}
	o.p.spec.Store(s)
}

// starting makes an incarnation.
func (o *owner) starting(ctx context.Context) step {
	if ctx.Err() != nil {
		return nil
	}
	o.p.set(func(st *Status) {
		st.State, st.Reason, st.NextStart = StateStarting, "", time.Time{}
		st.Starts++
	})
	o.p.gate.shut(downError(o.spec, o.p.Status()))
	in, err := o.p.launch(ctx, o.spec)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return o.failed(err)
	}
	o.in = in
	return o.serving
}

// failed chooses what follows a start that did not work.
func (o *owner) failed(err error) step {
	var conf *ConfigError
	retry := o.served && (errors.As(err, &conf) || errors.Is(err, fs.ErrNotExist))
	if isPermanent(err) && !retry {
		return o.broken(err)
	}
	o.p.set(func(st *Status) { st.Crashes++ })
	o.spec.Logger.Warn("plugin did not start", "plugin", o.spec.id(), "error", err)
	return o.again(err, 0)
}

// again waits for the next start, or gives up.
func (o *owner) again(err error, up time.Duration) step {
	wait, quarantine := o.restarts.ended(time.Now(), up, o.p.jitter())
	if quarantine {
		return o.quarantined(ReasonCrashes, fmt.Errorf("%d crashes within %s, the last: %w", o.restarts.Crashes, o.restarts.Window, err))
	}
	if wait == 0 {
		o.p.set(func(st *Status) { st.Err = err })
		return o.starting
	}
	return func(ctx context.Context) step { return o.backoff(ctx, err, wait) }
}

func (o *owner) backoff(ctx context.Context, err error, wait time.Duration) step {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	o.p.set(func(st *Status) {
		st.State, st.Err, st.NextStart = StateBackoff, err, time.Now().Add(wait)
	})
	o.p.gate.shut(downError(o.spec, o.p.Status()))
	select {
	case <-timer.C:
		return o.starting
	case c := <-o.p.commands:
		return o.startOther(ctx, c, o.starting)
	case <-ctx.Done():
		return nil
	}
}

// broken quarantines after a permanent failure.
func (o *owner) broken(err error) step { return o.quarantined(ReasonPermanent, err) }

func (o *owner) quarantined(reason string, err error) step {
	o.spec.Logger.Error("plugin quarantined", "plugin", o.spec.id(), "reason", reason, "error", err)
	var here step
	here = func(ctx context.Context) step {
		o.p.set(func(st *Status) { st.State, st.Reason, st.Err = StateQuarantined, reason, err })
		o.p.gate.shut(downError(o.spec, o.p.Status()))
		select {
		case c := <-o.p.commands:
			return o.startOther(ctx, c, here)
		case <-ctx.Done():
			return nil
		}
	}
	return here
}

// serving watches an incarnation that takes calls.
func (o *owner) serving(ctx context.Context) step {
	in := o.in
	o.served = true
	// Open first: who was told "ready" must find it so.
	o.p.gate.open(in)
	o.p.set(func(st *Status) {
		st.State, st.Reason, st.Err = StateReady, "", nil
		st.Pid, st.StartedAt, st.Description = in.pid(), in.startedAt(), in.description()
	})
	since := time.Now()
	hctx, cancel := context.WithCancel(ctx)
	sick := make(chan error, 1)
	watched := make(chan struct{})
	health := o.spec.Health // o is the owner's
	go func() { defer close(watched); watchHealth(hctx, in, health, sick) }()
	defer func() { cancel(); <-watched }()

	select {
	case <-in.exited():
		return o.crashed(errors.New(in.report()), time.Since(since))
	case err := <-sick:
		in.kill()
		return o.crashed(err, time.Since(since))
	case c := <-o.p.commands:
		cancel()
		return o.change(ctx, c)
	case <-ctx.Done():
		cancel()
		return o.stop
	}
}

// crashed cleans up after a process that ended unasked.
func (o *owner) crashed(err error, up time.Duration) step {
	// Shut before cleaning up: calls must not run into a dead process.
	o.p.set(func(st *Status) {
		st.State, st.Err, st.Pid = StateBackoff, err, 0
		st.NextStart = time.Now()
		st.Crashes++
		st.LastCrash = err.Error()
	})
	o.p.gate.shut(downError(o.spec, o.p.Status()))
	o.spec.Logger.Warn("plugin crashed", "plugin", o.spec.id(), "report", err.Error())
	o.discard()
	return o.again(err, up)
}

// discard ends the incarnation at once.
func (o *owner) discard() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.in.end(ctx)
	o.in = nil
}

// stop is the orderly end.
func (o *owner) stop(context.Context) step {
	ctx, cancel := o.stopContext()
	defer cancel()
	o.p.set(func(st *Status) { st.State = StateDraining })
	o.p.gate.shut(downError(o.spec, o.p.Status()))
	o.retire(ctx)
	return nil
}

// stopContext bounds an end that was asked for.
func (o *owner) stopContext() (context.Context, context.CancelFunc) {
	select {
	case <-o.p.stopping:
		return context.WithCancel(o.p.stopCtx)
	default:
		return context.WithTimeout(context.Background(), stopGrace)
	}
}

// retire lets calls in flight finish, drains and ends the incarnation. The gate
// is held or shut.
func (o *owner) retire(ctx context.Context) {
	in := o.in
	o.in = nil
	// A call that hangs must not use up the time of those that are to be
	// drained, nor the plugins that are stopped next.
	sctx, scancel := context.WithTimeout(ctx, o.spec.timeout(MethodDrain))
	defer scancel()
	if err := o.p.gate.settle(sctx); err != nil {
		o.spec.Logger.Warn("calls still in flight at the end of the plugin", "plugin", o.spec.id())
	}
	dctx, cancel := context.WithTimeout(ctx, o.spec.timeout(MethodDrain))
	defer cancel()
	if err := in.drain(dctx); err != nil {
		o.spec.Logger.Warn("plugin did not drain", "plugin", o.spec.id(), "error", err)
	}
	in.end(ctx)
}

// watchHealth asks for signs of life until ctx ends or too many are missing.
func watchHealth(ctx context.Context, in incarnation, h Health, sick chan<- error) {
	tick := time.NewTicker(h.Interval)
	defer tick.Stop()
	for misses := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-in.exited():
			return
		case <-tick.C:
		}
		cctx, cancel := context.WithTimeout(ctx, h.Timeout)
		err := in.health(cctx)
		cancel()
		if err == nil {
			misses = 0
			continue
		}
		if misses++; misses >= h.Misses {
			sick <- fmt.Errorf("alive but silent: %d health checks in a row failed, the last with: %w", misses, err)
			return
		}
	}
}
