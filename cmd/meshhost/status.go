package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

func (a *app) statusVerb() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the daemon, its meshes, plugins and outboxes",
		Description: "Exits 0 once every plugin is ready or known to be broken, 1 while one still starts, and 4 when no daemon\nanswers. A mesh that is not connected is shown; it is no error.",
		Action:      a.status,
	}
}

func (a *app) status(ctx context.Context, cmd *cli.Command) error {
	if _, err := words(cmd, 0, 0); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if a.json.on {
		err = a.emit("status/v1", "", st)
	} else {
		err = a.printStatus(&st)
	}
	if err != nil {
		return err
	}
	var starting []string
	for i := range st.Plugins {
		if p := &st.Plugins[i]; !p.Settled() {
			starting = append(starting, fmt.Sprintf("%s %q", p.Kind, p.Name))
		}
	}
	if len(starting) > 0 {
		return &exitError{code: exitFailed, msg: "not ready yet: " + strings.Join(starting, ", "), next: "ask again in a moment"}
	}
	return nil
}

func (a *app) printStatus(st *control.Status) error {
	t := newTable(a.stdout)
	t.row("meshhost", st.Version, "pid "+strconv.Itoa(st.PID), "up "+time.Duration(st.UptimeMS*int64(time.Millisecond)).Round(time.Second).String())
	for _, m := range st.Meshes {
		t.row("mesh", m.Name, m.State, m.Detail)
	}
	for _, p := range st.Plugins {
		t.row(string(p.Kind), p.Name, p.State, p.LastError)
	}
	for _, o := range st.Outboxes {
		t.row("queue", o.Name, queueWords(&o), o.Error)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, w := range st.Warnings {
		a.warn("%s", clean(w))
	}
	return nil
}

// queueWords counts what an outbox holds.
func queueWords(o *control.OutboxStatus) string {
	if o.Error != "" {
		return "unknown"
	}
	var parts []string
	for _, s := range []sdk.EntryState{sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled} {
		if n := o.States[s]; n > 0 {
			parts = append(parts, strconv.FormatInt(n, 10)+" "+string(s))
		}
	}
	if !o.Durable {
		parts = append(parts, "not durable")
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}
