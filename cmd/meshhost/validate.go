package main

import (
	"context"
	"fmt"

	"github.com/meshhost/meshhost/host/config"
	"github.com/urfave/cli/v3"
)

// defaultConfig is what validate and fmt take when nothing is named.
const defaultConfig = "mesh.hcl"

func (a *app) validateVerb() *cli.Command {
	var noPlugins bool
	return &cli.Command{
		Name: "validate", Usage: "check a configuration, plugins included", ArgsUsage: "[FILE|DIR]",
		Description: "Without a word it takes -config, else mesh.hcl. Exits 3 when something is wrong.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-plugins", Usage: "start no plugin: their config {} blocks stay unchecked", Destination: &noPlugins},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			args, err := words(cmd, 0, 1)
			if err != nil {
				return err
			}
			path := a.config
			if len(args) > 0 {
				path = args[0]
			}
			if path == "" {
				path = defaultConfig
			}
			return a.validate(ctx, path, noPlugins)
		},
	}
}

// validateReply is what -json prints.
type validateReply struct {
	Path        string             `json:"path"`
	Valid       bool               `json:"valid"`
	Diagnostics config.Diagnostics `json:"diagnostics"`
}

func (a *app) validate(ctx context.Context, path string, noPlugins bool) error {
	diags, err := a.daemon.validate(ctx, path, noPlugins)
	if err != nil {
		return err
	}
	if a.json.on {
		err := a.emit("validate/v1", "diagnostics", validateReply{path, !diags.HasErrors(), append(config.Diagnostics{}, diags...)})
		if err == nil && diags.HasErrors() {
			err = &exitError{code: exitConfig}
		}
		return err
	}
	if diags.HasErrors() {
		return a.badConfig(diags)
	}
	if err := diags.WriteText(a.stderr, a.color(a.stderr)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s is valid\n", path)
	return err
}
