package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// ValidateOptions say how much Validate does.
type ValidateOptions struct {
	// NoPlugins leaves the plugins unstarted, and so their options unchecked.
	NoPlugins bool
}

// Validate checks a configuration file or directory and, by asking each plugin,
// what stands in its config block. Diagnostics are the mistakes, in the order
// of the files; the error is for what has nothing to do with them. It touches
// no data directory and disturbs no daemon that runs.
func Validate(ctx context.Context, path string, opts ValidateOptions) (config.Diagnostics, error) {
	cfg, diags := config.Load(path)
	if diags.HasErrors() || opts.NoPlugins {
		return diags, nil
	}
	runtime, err := os.MkdirTemp("", "meshhost-")
	if err != nil {
		return diags, fmt.Errorf("make a runtime directory: %w", err)
	}
	defer os.RemoveAll(runtime)
	found := make([]config.Diagnostics, len(cfg.Uses))
	var wg sync.WaitGroup
	for i, u := range cfg.Uses {
		wg.Go(func() { _, found[i] = validateUse(ctx, u, runtime) })
	}
	wg.Wait()
	for _, ds := range found {
		diags = append(diags, ds...)
	}
	return diags, ctx.Err()
}

// validateUse asks one plugin what it is and whether its options are right.
func validateUse(ctx context.Context, u *config.Use, runtime string) (sdk.Description, config.Diagnostics) {
	s := specOf(u)
	s.RuntimeDir, s.DataDir = runtime, u.DataDir
	desc, said, err := plugin.Validate(ctx, s)
	var ours *configError
	switch {
	case errors.As(err, &ours):
		return desc, ours.diags
	case err != nil:
		return desc, config.Diagnostics{u.Diagnose(
			fmt.Sprintf("plugin %q can't be asked about its options", u.Label), err.Error()+".",
			fmt.Sprintf("Run %s describe by hand to see what it says.", u.Process.Path))}
	}
	return desc, u.MapDiagnostics(desc.Schema, said)
}

// Describe starts the plugin binary at path, asks what it is, and ends it.
func Describe(ctx context.Context, path string) (sdk.Description, error) {
	return plugin.Probe(ctx, plugin.Spec{Name: path, Path: path})
}
