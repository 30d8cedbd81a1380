package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// holdTimeout is how long an outbox may take to come to rest before it is
	// changed; senders wait for that (outbound gives them ten seconds in all).
	holdTimeout = 7 * time.Second
	// backTimeout bounds the way back after a change that did not work.
	backTimeout = time.Minute
)

// reload is one reload under way.
type reload struct {
	h     *Host
	old   *setup
	next  *setup
	edits []*edit // one for each use of next
	// undo are the ways back from what was done, the last one first.
	undo     []func(ctx context.Context) error
	changes  []control.ReloadChange
	warnings []string
}

// run does it. After an error all is as it was.
func (r *reload) run(ctx context.Context) error {
	cfg, diags := config.Load(r.h.opts.configPath)
	if diags.HasErrors() {
		return &ConfigError{diags}
	}
	r.warn(diags)
	if err := r.compare(ctx, cfg); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.start, r.configure, r.move} {
		if err := step(ctx); err != nil {
			r.back(ctx)
			return err
		}
	}
	r.commit(ctx)
	return nil
}

// warn keeps the warnings of the configuration for the reply.
func (r *reload) warn(diags config.Diagnostics) {
	for _, d := range diags {
		r.warnings = append(r.warnings, d.Where()+d.Summary)
	}
}

// back undoes what was done. Where the daemon stops, that is not needed: the
// plugins end anyway.
func (r *reload) back(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backTimeout)
	defer cancel()
	stop := context.AfterFunc(*r.h.life.Load(), cancel)
	defer stop()
	for _, undo := range slices.Backward(r.undo) {
		if err := undo(ctx); err != nil {
			r.h.logger.Error("reload: a change could not be taken back; restart the daemon", "error", err)
		}
	}
}

// start starts the plugins of new outboxes and waits until they serve.
func (r *reload) start(ctx context.Context) error {
	for _, e := range r.edits {
		if !e.added {
			continue
		}
		news := make(chan struct{}, 1)
		spec := r.h.spec(e.next.cfg, e.next.values)
		look := spec.OnState
		spec.OnState = func(st plugin.Status) {
			look(st)
			select {
			case news <- struct{}{}:
			default:
			}
		}
		p := plugin.Start(r.h.pluginsCtx, spec)
		e.next.plugin = p
		r.undo = append(r.undo, func(ctx context.Context) error {
			one, cancel := context.WithTimeout(ctx, pluginTimeout)
			defer cancel()
			p.Stop(one)
			return nil
		})
		if err := firstStart(ctx, p, news); err != nil {
			return fmt.Errorf("%s does not start: %w", title(e.next.cfg), err)
		}
		name := e.next.cfg.Name
		if err := r.h.outbound.AddOutbox(ctx, name, backendOf(e.next)); err != nil {
			return err
		}
		r.undo = append(r.undo, func(ctx context.Context) error { return r.h.outbound.RemoveOutbox(ctx, name) })
		r.changed(title(e.next.cfg), "added")
	}
	return nil
}

// firstStart waits until a plugin serves; its first failure ends that. news has
// a token after each change of its state.
func firstStart(ctx context.Context, p *plugin.Plugin, news <-chan struct{}) error {
	for {
		st := p.Status()
		switch {
		case st.State == plugin.StateReady:
			return nil
		case st.Err != nil:
			return st.Err
		case st.Broken():
			return fmt.Errorf("it is %s", st.State)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// configure gives changed plugins their new options or processes, and lifts
// quarantines.
func (r *reload) configure(ctx context.Context) error {
	for _, e := range r.edits {
		switch {
		case e.changed:
			if err := r.exchange(ctx, e.next, e.old, e.fresh); err != nil {
				return fmt.Errorf("%s does not take its new options: %w", title(e.next.cfg), err)
			}
			r.undo = append(r.undo, func(ctx context.Context) error { return r.exchange(ctx, e.old, e.next, e.fresh) })
			change := "new options in force"
			switch {
			case e.fresh:
				change = "runs in a new process"
			case e.lifted:
				change = "new options in force, out of quarantine"
			}
			r.changed(title(e.next.cfg), change)
		case e.lifted:
			// The block is as it was, so that it does not serve keeps nothing else back.
			if err := e.next.plugin.Reconfigure(ctx, r.h.spec(e.next.cfg, e.next.values)); err != nil {
				r.warnings = append(r.warnings, title(e.next.cfg)+" is still out of service: "+err.Error())
				continue
			}
			r.changed(title(e.next.cfg), "out of quarantine")
		}
	}
	return nil
}

// exchange makes the plugin of a block serve as to says instead of from. An
// outbox comes to rest first, and must be the same store afterwards: options
// that lead to another one would leave messages behind that nobody looks after.
func (r *reload) exchange(ctx context.Context, to, from *use, fresh bool) error {
	p := to.plugin
	spec := r.h.spec(to.cfg, to.values)
	if to.cfg.Kind != sdk.KindOutbox || p.Status().State != plugin.StateReady {
		return p.Reconfigure(ctx, spec)
	}
	name := to.cfg.Name
	rest, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	if err := r.h.outbound.Hold(rest, name, nil); err != nil {
		return err
	}
	defer func() {
		if err := r.h.outbound.Resume(context.WithoutCancel(ctx), name); err != nil {
			r.h.logger.Debug("an outbox is not resumed", "outbox", name, "error", err) // the daemon stops
		}
	}()
	waits, err := waitingRow(ctx, p.Outbox())
	switch {
	case err != nil:
		return err
	case waits != "" && fresh && !p.Description().Durable:
		return sdk.Errorf(sdk.CodeConflict, "messages_left", "its messages would end with its process").WithNext("Reload again when they have been sent.")
	}
	if err := p.Reconfigure(ctx, spec); err != nil || waits == "" {
		return err
	}
	found, err := p.Outbox().Get(ctx, []string{waits})
	if err == nil && found[0] == nil {
		err = sdk.Errorf(sdk.CodeConflict, "messages_left", "they lead to another store, which lacks the messages that wait in the present one").
			WithNext("Give the other store a block of its own, and run meshhost outbox migrate.")
	}
	if err != nil {
		if back := p.Reconfigure(ctx, r.h.spec(from.cfg, from.values)); back != nil {
			r.h.logger.Error("reload: a change could not be taken back; restart the daemon", "error", back)
		}
	}
	return err
}

// waitingRow is the id of a message that an outbox still has to send; empty if
// there is none.
func waitingRow(ctx context.Context, o sdk.Outbox) (string, error) {
	page, err := o.List(ctx, sdk.ListRequest{States: []sdk.EntryState{sdk.StatePending, sdk.StateWaiting}, Limit: 1})
	if err != nil || len(page.Entries) == 0 {
		return "", err
	}
	return page.Entries[0].ID, nil
}

// moves are the meshes that change their outbox, with the new one.
func (r *reload) moves() map[string]string {
	out := map[string]string{}
	for _, m := range r.next.cfg.Meshes {
		if r.h.outbound.OutboxOf(m.Name) != m.Outbox {
			out[m.Name] = m.Outbox
		}
	}
	return out
}

// removed are the outboxes that are gone.
func (r *reload) removed() []*use {
	var out []*use
	for _, u := range r.old.of(sdk.KindOutbox) {
		if r.next.use(blockOf(u.cfg)) == nil {
			out = append(out, u)
		}
	}
	return out
}

// move attaches meshes to their new outboxes; nothing can fail after it.
func (r *reload) move(ctx context.Context) error {
	moves := r.moves()
	var leave []string
	for _, u := range r.removed() {
		leave = append(leave, u.cfg.Name)
	}
	was := map[string]string{}
	for mesh := range moves {
		was[mesh] = r.h.outbound.OutboxOf(mesh)
	}
	if err := r.h.outbound.Attach(ctx, moves, leave...); err != nil {
		return err
	}
	for _, m := range r.next.cfg.Meshes {
		if to, ok := moves[m.Name]; ok {
			r.changed(meshTitle(m), fmt.Sprintf("sends from outbox %q instead of %q", to, was[m.Name]))
		}
	}
	return nil
}

// commit puts the new setup in force and lets go of what is not in it.
func (r *reload) commit(ctx context.Context) {
	h := r.h
	gone := r.removed()
	h.setup.Store(r.next)
	h.lookAtPlugins()
	h.setHandlers(ctx)
	r.setLog()
	for _, u := range gone {
		if err := h.outbound.RemoveOutbox(ctx, u.cfg.Name); err != nil {
			h.logger.Warn("a removed outbox is still in use; its calls end now", "outbox", u.cfg.Name, "error", err)
		}
		one, cancel := context.WithTimeout(ctx, pluginTimeout)
		u.plugin.Stop(one)
		cancel()
		r.changed(title(u.cfg), "removed")
	}
	r.reconnect()
}
