package host

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/inbound"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// specOf is the part of a spec that mesh.hcl decides.
func specOf(u *config.Use) plugin.Spec {
	p := u.Process
	s := plugin.Spec{
		Kind: u.Kind, Name: u.Name, Path: p.Path, SHA256: p.SHA256, Args: p.Args, Env: p.Env,
		StartTimeout: p.Timeouts.Start, Allow: u.Allow,
		Restart: plugin.Restart{Initial: p.Restart.Initial, Max: p.Restart.Max, Crashes: p.Restart.Crashes, Window: p.Restart.Window},
		Config: func(_ context.Context, d sdk.Description) (jsontext.Value, error) {
			value, diags := u.DecodePlugin(d.Schema)
			if err := diags.Err(); err != nil {
				return nil, &configError{diags}
			}
			return value, nil
		},
		Explain: func(d sdk.Description, said sdk.Diagnostics) sdk.Diagnostics {
			var out sdk.Diagnostics
			for _, m := range u.MapDiagnostics(d.Schema, said) {
				out = append(out, sdk.Diagnostic{Severity: m.Severity, Summary: m.Where() + m.Summary, Detail: m.Next})
			}
			return out
		},
	}
	if p.Timeouts.Call > 0 {
		s.CallTimeout = map[plugin.Method]time.Duration{}
		for _, m := range plugin.Methods() {
			s.CallTimeout[m] = p.Timeouts.Call
		}
	}
	return s
}

// configError carries diagnostics through the plugin room.
type configError struct{ diags config.Diagnostics }

func (e *configError) Error() string { return e.diags.Err().Error() }

// startPlugins starts all processes side by side.
func (h *Host) startPlugins(cfg *config.Config) {
	h.pluginsCtx, h.cancelPlugins = context.WithCancel(context.Background())
	s := &setup{cfg: cfg}
	for _, u := range cfg.Uses {
		values := &digest{}
		s.uses = append(s.uses, &use{cfg: u, values: values, plugin: plugin.Start(h.pluginsCtx, h.spec(u, values))})
	}
	h.setup.Store(s)
}

// stopPlugins drains and ends them in reverse order.
func (h *Host) stopPlugins(ctx context.Context) {
	if s := h.now(); s != nil {
		for _, u := range slices.Backward(s.uses) {
			one, cancel := context.WithTimeout(ctx, pluginTimeout)
			u.plugin.Stop(one)
			cancel()
		}
	}
	if h.cancelPlugins != nil {
		h.cancelPlugins()
	}
}

// awaitPlugins returns when every plugin serves or is known to be broken, or
// has had its time.
func (h *Host) awaitPlugins(ctx context.Context) {
	var wg sync.WaitGroup
	for _, u := range h.now().uses {
		wg.Go(func() {
			limit := othersTimeout
			if u.cfg.Kind == sdk.KindPushHandler {
				limit = settleTimeout
			}
			ready, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			if err := u.plugin.Ready(ready); err != nil && ctx.Err() == nil {
				h.logger.Error("a plugin does not serve", "plugin", u.plugin.ID(), "error", err)
			}
		})
	}
	wg.Wait()
	h.setHandlers(ctx)
}

// lookAtPlugins makes followPlugins look at all of them.
func (h *Host) lookAtPlugins() {
	select {
	case h.pluginsChanged <- struct{}{}:
	default: // it will
	}
}

// followPlugins reacts to plugins that come and go, until ctx ends.
func (h *Host) followPlugins(ctx context.Context) {
	// A plugin that crashed and came back between two looks has the same state.
	type look struct {
		state  plugin.State
		starts int
	}
	last := map[*plugin.Plugin]look{}
	for {
		select {
		case <-h.pluginsChanged:
		case <-ctx.Done():
			return
		}
		var back []*use
		seen := last
		last = map[*plugin.Plugin]look{}
		for _, u := range h.now().uses {
			st := u.plugin.Status()
			last[u.plugin] = look{st.State, st.Starts}
			if last[u.plugin] == seen[u.plugin] {
				continue
			}
			h.bus.Publish("plugin", "", map[string]string{"plugin": blockOf(u.cfg), "state": string(st.State), "detail": st.LastCrash})
			if st.State == plugin.StateReady {
				back = append(back, u)
			}
		}
		if len(back) > 0 {
			h.setHandlers(ctx) // before the wake: what waited for a handler goes by what it wants now
		}
		for _, u := range back {
			h.welcome(u)
		}
	}
}

// welcome sends a plugin that serves (again) what waited for it.
func (h *Host) welcome(u *use) {
	switch u.cfg.Kind {
	case sdk.KindOutbox:
		if !u.plugin.Description().Durable {
			h.logger.Warn("this outbox forgets what it holds when its process ends; senders are told so", "outbox", u.cfg.Name)
		}
		h.outbound.OutboxReady(u.cfg.Name)
	case sdk.KindPushHandler:
		h.inbound.Wake(u.cfg.Name)
	}
	h.features.Ready(blockOf(u.cfg), h.connected())
}

// connected are the connections that are up.
func (h *Host) connected() []sdk.Connected {
	var up []sdk.Connected
	for _, m := range h.meshes {
		if st := m.broker.Member().State(); st.Phase == link.Ready {
			up = append(up, m.connected(st))
		}
	}
	return up
}

// setHandlers tells the way in who wants what.
func (h *Host) setHandlers(ctx context.Context) {
	if err := h.inbound.SetHandlers(ctx, h.handlers()); err != nil && ctx.Err() == nil {
		h.logger.Error("the push handlers could not be noted", "error", err)
	}
}

// handlers are all push handlers that are configured, up or not.
func (h *Host) handlers() []inbound.Handler {
	var out []inbound.Handler
	for _, u := range h.now().of(sdk.KindPushHandler) {
		out = append(out, inbound.Handler{
			Name: u.cfg.Name, Wants: u.plugin.Description().Wants, Push: u.plugin.PushHandler(),
			CallTimeout: u.cfg.Process.Timeouts.Call,
		})
	}
	return out
}

// warnings are what an operator should know now.
func (h *Host) warnings() []string {
	var out []string
	for _, u := range h.now().uses {
		st := u.plugin.Status()
		switch {
		case st.State == plugin.StateQuarantined:
			out = append(out, u.plugin.ID()+" is out of service: "+st.Reason)
		case u.cfg.Kind == sdk.KindOutbox && st.State == plugin.StateReady && !st.Description.Durable:
			out = append(out, u.plugin.ID()+" is not durable: what it holds is lost when its process ends")
		}
	}
	return out
}
