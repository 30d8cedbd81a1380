package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/sdk"
)

// Options of Run.
type Options struct {
	// ConfigPath is mesh.hcl or a directory of such files.
	ConfigPath string
	// Dev runs a whole mesh in this process instead; ConfigPath is not read.
	Dev bool
	// Hangup asks for a reload with each signal; nil: none ever comes.
	Hangup <-chan os.Signal
	// Stdout takes data, Stderr the log and words.
	Stdout io.Writer
	Stderr io.Writer
}

// ConfigError is a configuration with mistakes; the CLI prints them.
type ConfigError struct{ Diagnostics config.Diagnostics }

func (e *ConfigError) Error() string { return "the configuration has mistakes" }

// Run is the daemon: it returns when ctx ends, after an orderly stop, or when
// it can't go on. A *ConfigError has the mistakes of mesh.hcl.
func Run(ctx context.Context, opts Options) error {
	if opts.Dev {
		return runDev(ctx, opts)
	}
	cfg, diags := config.Load(opts.ConfigPath)
	if diags.HasErrors() {
		return &ConfigError{diags}
	}
	if err := diags.WriteText(opts.Stderr, false); err != nil { // warnings
		return fmt.Errorf("print warnings: %w", err)
	}
	h, err := New(ctx, cfg, settings{logger: newLogger(cfg.Log, opts.Stderr), configPath: opts.ConfigPath, hangup: opts.Hangup})
	if err != nil {
		return explain(err)
	}
	return h.Run(ctx)
}

// explain adds what to do next to an error of New.
func explain(err error) error {
	var used *InUseError
	if errors.As(err, &used) {
		return fmt.Errorf("%w: stop that one, or give this one another data_dir", err)
	}
	return err
}

// newLogger makes the log of mesh.hcl's log block.
func newLogger(l config.Log, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "meshhost", Level: hclog.LevelFromString(l.Level), Output: w,
		JSONFormat: l.Format == "json" || l.Format == "auto" && !isTerminal(w),
	})
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Version is the version that the build was stamped with, else "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	v := strings.Trim(info.Main.Version, "()")
	if v == "" {
		v = "devel"
	}
	return v
}

// ProtocolVersion is the plugin protocol that this host speaks.
const ProtocolVersion = sdk.ProtocolVersion
