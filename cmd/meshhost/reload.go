package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/urfave/cli/v3"
)

// reloadTimeout is longer than the daemon takes at most, which says what became
// of it in any case.
const reloadTimeout = 4 * time.Minute

func (a *app) reloadVerb() *cli.Command {
	return &cli.Command{
		Name: "reload", Usage: "have the daemon read its configuration again",
		Description: "Waits until all of it is in force and prints what changed; or says why the old one is kept as a whole.\n" +
			"Exits 3 for mistakes in the configuration, 10 for what only a restart can change or would leave messages behind.\n" +
			"SIGHUP to the daemon does the same; its log says what became of it.",
		Action: a.reload,
	}
}

func (a *app) reload(ctx context.Context, cmd *cli.Command) error {
	if _, err := words(cmd, 0, 0); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	rep, err := c.Reload(ctx)
	if err != nil {
		return a.notReloaded(err)
	}
	if a.json.on {
		return a.emit("reload/v1", "changes", rep)
	}
	for _, w := range rep.Warnings {
		a.warn("%s", clean(w))
	}
	if len(rep.Changes) == 0 {
		_, err = fmt.Fprintln(a.stdout, "nothing has changed")
		return err
	}
	for _, ch := range rep.Changes {
		if _, err := fmt.Fprintln(a.stdout, clean(ch.String())); err != nil {
			return err
		}
	}
	return nil
}

// notReloaded shows the mistakes of a configuration as validate does.
func (a *app) notReloaded(err error) error {
	var ae *control.APIError
	if !errors.As(err, &ae) || ae.Code != "config_invalid" {
		return err
	}
	var body struct {
		Diagnostics config.Diagnostics `json:"diagnostics"`
	}
	if json.Unmarshal(ae.Body, &body) != nil {
		return err
	}
	if a.json.on {
		shown := struct {
			Changes     []control.ReloadChange `json:"changes"`
			Diagnostics config.Diagnostics     `json:"diagnostics"`
		}{[]control.ReloadChange{}, body.Diagnostics}
		if err := a.emit("reload/v1", "diagnostics", shown); err != nil {
			return err
		}
		return &exitError{code: exitConfig}
	}
	if err := body.Diagnostics.WriteText(a.stderr, a.color(a.stderr)); err != nil {
		return err
	}
	return err
}
