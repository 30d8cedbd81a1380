package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/sdk"
)

// reloadTimeout bounds a whole reload; its steps have times of their own.
const reloadTimeout = 2 * time.Minute

// followHangups reloads once for each signal until ctx ends. What became of it
// is in the log.
func (h *Host) followHangups(ctx context.Context) {
	for {
		select {
		case <-h.opts.hangup:
			_, _ = h.Reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Reload is control.Reloader: it reads mesh.hcl again and puts what it says in
// force, all of it or nothing. One reload runs at a time, a second one waits.
// The log and an event tell of it too.
func (h *Host) Reload(ctx context.Context) (control.ReloadReply, error) {
	life := h.life.Load()
	switch {
	case h.opts.configPath == "":
		return control.ReloadReply{}, &control.Problem{
			Status: http.StatusConflict, Code: "no_config_file", Message: "this daemon has no configuration file to read again",
			Next: "Run meshhost -config mesh.hcl instead of meshhost -dev.",
		}
	case life == nil:
		return control.ReloadReply{}, sdk.Errorf(sdk.CodeUnavailable, "starting", "the daemon is starting").WithNext("Try again in a moment.")
	}
	if err := h.reloading.lock(ctx); err != nil {
		return control.ReloadReply{}, err
	}
	defer h.reloading.unlock()
	if (*life).Err() != nil {
		return control.ReloadReply{}, sdk.Errorf(sdk.CodeUnavailable, "stopping", "the daemon is stopping").WithNext("It reads the configuration when it starts again.")
	}
	work, cancel := context.WithTimeout(*life, reloadTimeout)
	defer cancel()
	r := &reload{h: h, old: h.now()}
	err := r.run(work)
	rep := control.ReloadReply{Changes: r.changes, Warnings: r.warnings}
	if err != nil {
		p := r.problem(err)
		why := p.Message
		var mistakes *ConfigError
		if p.Code == "config_invalid" && errors.As(err, &mistakes) {
			why += ":\n" + mistakes.Diagnostics.Err().Error()
		}
		h.logger.Error("reload: "+why, "next", p.Next)
		h.bus.Publish("reload", "", map[string]string{"kept": why})
		return control.ReloadReply{}, p
	}
	told := make([]string, len(rep.Changes))
	for i, c := range rep.Changes {
		told[i] = c.String()
		h.logger.Info("reload: " + told[i])
	}
	if len(told) == 0 {
		h.logger.Info("reload: nothing has changed")
	}
	for _, w := range rep.Warnings {
		h.logger.Warn("reload: " + w)
	}
	h.bus.Publish("reload", "", map[string][]string{"changed": told})
	return rep, nil
}

// endReload waits for a reload that the stop of the daemon has interrupted, and
// lets none begin. What it had put in force by then is stopped too.
func (h *Host) endReload(ctx context.Context) error {
	if err := h.reloading.lock(ctx); err != nil {
		return fmt.Errorf("a reload is still running: %w", err)
	}
	h.stopPlugins(ctx)
	return nil
}

// restartError names what only a start can put in force.
type restartError struct{ differences []string }

func (e *restartError) Error() string { return strings.Join(e.differences, "; ") }

// kept is the end of every sentence about a reload that came to nothing.
const kept = "the old configuration is kept"

// problem is what the caller of a reload sees.
func (r *reload) problem(err error) *control.Problem {
	var mistakes *ConfigError
	var restart *restartError
	var left *outbound.LeftError
	var e *sdk.Error
	switch {
	case (*r.h.life.Load()).Err() != nil:
		return &control.Problem{Status: http.StatusServiceUnavailable, Code: "stopping", Message: "the daemon is stopping; " + kept, Next: "It reads the configuration when it starts again."}
	case errors.As(err, &mistakes):
		n := 0
		for _, d := range mistakes.Diagnostics {
			if d.Severity == sdk.SeverityError {
				n++
			}
		}
		return &control.Problem{
			Status: http.StatusUnprocessableEntity, Code: "config_invalid",
			Message: fmt.Sprintf("mistakes in the configuration: %d; %s", n, kept),
			Next:    "Correct them and reload again; meshhost validate shows them too.",
			Fields:  []control.Field{{Name: "diagnostics", Value: mistakes.Diagnostics}},
		}
	case errors.As(err, &restart):
		return &control.Problem{
			Status: http.StatusConflict, Code: "restart_needed", Message: "a reload can't change this: " + err.Error() + "; " + kept,
			Next:   "Stop the daemon and start it again, or take these changes back and reload.",
			Fields: []control.Field{{Name: "differences", Value: restart.differences}},
		}
	case errors.As(err, &left):
		return &control.Problem{
			Status: http.StatusConflict, Code: "messages_left", Message: err.Error() + "; " + kept, Next: r.leaveNext(left),
		}
	}
	p := &control.Problem{Status: http.StatusBadGateway, Code: "reload_failed", Message: err.Error() + "; " + kept, Next: "meshhost plugin list and the log say more."}
	if errors.As(err, &e) && e.Next != "" {
		p.Next = e.Next
	}
	return p
}

// leaveNext says how the messages that would be left behind get away.
func (r *reload) leaveNext(left *outbound.LeftError) string {
	first := left.Left[0]
	for mesh, to := range r.moves() {
		if first.Mesh == mesh || first.Mesh == "" && r.h.outbound.OutboxOf(mesh) == first.Outbox {
			return fmt.Sprintf("Run meshhost outbox migrate %s %s first, or reload again when they have been sent.", first.Outbox, to)
		}
	}
	return "Put the block back, and reload without it when they have been sent."
}

// reconnect ends the pause of every mesh that the broker had refused.
func (r *reload) reconnect() {
	for _, m := range r.next.cfg.Meshes {
		c := r.h.meshes[m.Name].broker.Member()
		st := c.State()
		if st.Phase != link.Suspended {
			continue
		}
		c.Resume()
		r.changed(meshTitle(m), "connecting again, it was suspended: "+st.LastError)
	}
}

// setLog puts the level of the log in force; loggers made from it follow.
func (r *reload) setLog() {
	was, is := r.old.cfg.Log.Level, r.next.cfg.Log.Level
	if was == is {
		return
	}
	r.h.logger.SetLevel(hclog.LevelFromString(is))
	r.changed("log", fmt.Sprintf("level %s instead of %s", is, was))
}

func (r *reload) changed(block, change string) {
	r.changes = append(r.changes, control.ReloadChange{Block: block, Change: change})
}

func title(u *config.Use) string      { return fmt.Sprintf("%s %q", u.Kind, u.Name) }
func meshTitle(m *config.Mesh) string { return fmt.Sprintf("mesh %q", m.Name) }
