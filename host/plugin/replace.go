package plugin

import (
	"context"
	"errors"
	"fmt"
)

// change carries out a command on a plugin that serves.
func (o *owner) change(ctx context.Context, c command) step {
	o.p.gate.hold()
	o.p.set(func(st *Status) { st.State = StateDraining })
	if !c.fresh && o.spec.sameProcess(c.spec) {
		return o.reconfigure(ctx, c)
	}
	return o.replace(ctx, c)
}

// reconfigure gives the running process new values between two calls.
func (o *owner) reconfigure(ctx context.Context, c command) step {
	wctx, cancel := o.during(ctx, c)
	defer cancel()
	if err := o.p.gate.settle(wctx); err != nil {
		c.reply <- fmt.Errorf("%s: reconfigure: calls in flight did not end: %w", o.spec.id(), err)
		return o.serving
	}
	if err := o.in.configure(wctx, c.spec); err != nil {
		var conf *ConfigError
		if errors.As(err, &conf) {
			c.reply <- err
			return o.serving
		}
		// Nobody knows which values are in force: a fresh process with the old
		// ones does.
		c.reply <- err
		return o.crashed(fmt.Errorf("configure: %w", err), 0)
	}
	o.adopt(c.spec)
	c.reply <- nil
	return o.serving
}

// replace puts a new process in place of the one that serves.
func (o *owner) replace(ctx context.Context, c command) step {
	wctx, cancel := o.during(ctx, c)
	defer cancel()
	rctx, rcancel := context.WithTimeout(wctx, stopGrace)
	o.retire(rctx)
	rcancel()
	in, err := o.launchOnce(ctx, c.spec)
	if err == nil {
		o.adopt(c.spec)
		o.in = in
		c.reply <- nil
		return o.serving
	}
	o.spec.Logger.Warn("the new plugin did not start; the old one starts again", "plugin", o.spec.id(), "error", err)
	in, old := o.launchOnce(ctx, o.spec)
	if old != nil {
		c.reply <- errors.Join(err, fmt.Errorf("the old one did not start again either: %w", old))
		if ctx.Err() != nil {
			return nil
		}
		return o.failed(old)
	}
	o.in = in
	c.reply <- fmt.Errorf("%w (the old one runs again)", err)
	return o.serving
}

// startOther carries out a command on a plugin that has no process; back is
// where it goes if the new spec does not start.
func (o *owner) startOther(ctx context.Context, c command, back step) step {
	o.p.set(func(st *Status) { st.State, st.Reason = StateStarting, "" })
	o.p.gate.shut(downError(o.spec, o.p.Status()))
	in, err := o.launchOnce(ctx, c.spec)
	if err != nil {
		c.reply <- err
		if ctx.Err() != nil {
			return nil
		}
		return back
	}
	o.adopt(c.spec)
	o.in = in
	c.reply <- nil
	return o.serving
}

func (o *owner) launchOnce(ctx context.Context, s *Spec) (incarnation, error) {
	o.p.set(func(st *Status) { st.Starts++ })
	return o.p.launch(ctx, s)
}

// during is the time that a command may take from calls: its own context and
// the plugin's life.
func (o *owner) during(ctx context.Context, c command) (context.Context, context.CancelFunc) {
	wctx, cancel := context.WithTimeout(c.ctx, o.spec.timeout(MethodConfigure))
	stop := context.AfterFunc(ctx, cancel)
	return wctx, func() { stop(); cancel() }
}
