package host

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// edit is what a reload does about one block.
type edit struct {
	old, next *use
	// added: next has no plugin yet. changed: the plugin gets next's options, in
	// a new process if fresh. lifted: it comes out of quarantine.
	added, changed, fresh, lifted bool
	desc                          sdk.Description // where it was asked
}

// compare finds out what each block of the new configuration means for its
// plugin, and asks those that are new or changed whether it is right. Nothing
// is touched.
func (r *reload) compare(ctx context.Context, cfg *config.Config) error {
	runtime, err := os.MkdirTemp("", "meshhost-")
	if err != nil {
		return fmt.Errorf("make a runtime directory: %w", err)
	}
	defer os.RemoveAll(runtime)
	r.edits = make([]*edit, len(cfg.Uses))
	found := make([]config.Diagnostics, len(cfg.Uses))
	var wg sync.WaitGroup
	for i, u := range cfg.Uses {
		wg.Go(func() { r.edits[i], found[i] = r.look(ctx, u, runtime) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	var diags config.Diagnostics
	for _, ds := range found {
		diags = append(diags, ds...)
	}
	if diags.HasErrors() {
		return &ConfigError{diags}
	}
	r.warn(diags)
	r.next = &setup{cfg: cfg}
	for _, e := range r.edits {
		r.next.uses = append(r.next.uses, e.next)
	}
	if need := r.needRestart(); len(need) > 0 {
		return &restartError{need}
	}
	return nil
}

// look compares one block with the one of its name.
func (r *reload) look(ctx context.Context, u *config.Use, runtime string) (*edit, config.Diagnostics) {
	e := &edit{old: r.old.use(blockOf(u)), next: &use{cfg: u, values: &digest{}}}
	if e.added = e.old == nil; !e.added {
		st := e.old.plugin.Status()
		e.next.plugin = e.old.plugin
		e.fresh = !sameProcess(e.old.cfg, u)
		e.lifted = st.State == plugin.StateQuarantined
		if !e.fresh && samePolicy(e.old.cfg, u) && len(st.Description.Kinds) > 0 {
			values, diags := u.DecodePlugin(st.Description.Schema)
			if diags.HasErrors() {
				return e, diags
			}
			if e.old.values.is(values) {
				e.next.values = e.old.values
				return e, nil
			}
		}
		e.changed = true
	}
	desc, diags := validateUse(ctx, u, runtime)
	e.desc = desc
	return e, diags
}

// sameProcess reports whether two blocks start the same program in the same way.
func sameProcess(a, b *config.Use) bool {
	return a.Label == b.Label && a.Process.Path == b.Process.Path && a.Process.SHA256 == b.Process.SHA256 &&
		slices.Equal(a.Process.Args, b.Process.Args) && maps.Equal(a.Process.Env, b.Process.Env) && slices.Equal(a.Allow, b.Allow)
}

// samePolicy reports whether two blocks watch over the program in the same way.
func samePolicy(a, b *config.Use) bool {
	return a.Process.Timeouts == b.Process.Timeouts && a.Process.Restart == b.Process.Restart
}

// needRestart lists what a reload can't change, a sentence for each.
func (r *reload) needRestart() []string {
	var need []string
	say := func(format string, args ...any) { need = append(need, fmt.Sprintf(format, args...)) }
	was, is := r.old.cfg, r.next.cfg
	if was.DataDir != is.DataDir {
		say("data_dir is %s instead of %s", is.DataDir, was.DataDir)
	}
	if was.Control != is.Control {
		say("the control socket is %s instead of %s", is.Control.Socket, was.Control.Socket)
	}
	if was.Log.Format != is.Log.Format {
		say("the log's format is %s instead of %s", is.Log.Format, was.Log.Format)
	}
	need = append(need, meshDifferences(was.Meshes, is.Meshes)...)
	need = append(need, useDifferences(was.Uses, is.Uses)...)
	for _, e := range r.edits {
		if e.next.cfg.Kind != sdk.KindOutbox {
			continue
		}
		if e.added && e.desc.Has(sdk.KindFeature) {
			say("%s brings a feature too", title(e.next.cfg))
		}
		if !e.added && e.changed {
			if had := e.old.plugin.Description().Name; had != "" && had != e.desc.Name {
				say("%s would be another plugin, %s instead of %s: give the new one another name", title(e.next.cfg), e.desc.Name, had)
			}
		}
	}
	for _, u := range r.removed() {
		if u.plugin.Description().Has(sdk.KindFeature) {
			say("%s is gone, which brings a feature too", title(u.cfg))
		}
	}
	return need
}

// meshDifferences are those of the meshes beside their outbox.
func meshDifferences(was, is []*config.Mesh) []string {
	var out []string
	find := func(in []*config.Mesh, name string) *config.Mesh {
		if i := slices.IndexFunc(in, func(m *config.Mesh) bool { return m.Name == name }); i >= 0 {
			return in[i]
		}
		return nil
	}
	for _, m := range was {
		if find(is, m.Name) == nil {
			out = append(out, meshTitle(m)+" is gone")
		}
	}
	for _, m := range is {
		o := find(was, m.Name)
		if o == nil {
			out = append(out, meshTitle(m)+" is new")
			continue
		}
		var what []string
		for _, f := range []struct {
			name   string
			differ bool
		}{
			{"broker_url", o.BrokerURL != m.BrokerURL},
			{"mesh_id", o.MeshID != m.MeshID},
			{"member_id", o.MemberID != m.MemberID},
			{"key", o.Key.Public() != m.Key.Public()},
			{"display_name", o.DisplayName != m.DisplayName},
		} {
			if f.differ {
				what = append(what, f.name)
			}
		}
		if len(what) > 0 {
			out = append(out, fmt.Sprintf("%s has another %s", meshTitle(m), strings.Join(what, ", ")))
		}
	}
	return out
}

// useDifferences are those of handlers, filters and features beside their
// options and processes.
func useDifferences(was, is []*config.Use) []string {
	var out []string
	blocks := func(in []*config.Use, kind sdk.Kind) (names []string) {
		for _, u := range in {
			if u.Kind == kind {
				names = append(names, u.Name)
			}
		}
		return names
	}
	for _, kind := range []sdk.Kind{sdk.KindPushHandler, sdk.KindPeerFilter, sdk.KindFeature} {
		had, has := blocks(was, kind), blocks(is, kind)
		same := true
		for _, name := range had {
			if !slices.Contains(has, name) {
				out, same = append(out, fmt.Sprintf("%s %q is gone", kind, name)), false
			}
		}
		for _, name := range has {
			if !slices.Contains(had, name) {
				out, same = append(out, fmt.Sprintf("%s %q is new", kind, name)), false
			}
		}
		if same && !slices.Equal(had, has) {
			out = append(out, fmt.Sprintf("the %s blocks stand in another order", kind))
		}
	}
	for _, u := range is {
		i := slices.IndexFunc(was, func(o *config.Use) bool { return blockOf(o) == blockOf(u) })
		if i >= 0 && was[i].OnError != u.OnError {
			out = append(out, fmt.Sprintf("%s has another on_error", title(u)))
		}
	}
	return out
}
