package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/meshhost/meshhost/host"
	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/sdk"
)

// hostDaemon is the real daemon.
func hostDaemon() daemon {
	return daemon{
		version: host.Version(),
		run: func(ctx context.Context, configPath string, dev bool, stdout, stderr io.Writer) error {
			opts := host.Options{ConfigPath: configPath, Dev: dev, Stdout: stdout, Stderr: stderr}
			if !dev { // which has nothing to read again: there, a hangup ends it
				hangup := make(chan os.Signal, 1) // one that comes during a reload is the next one
				signal.Notify(hangup, syscall.SIGHUP)
				defer signal.Stop(hangup)
				opts.Hangup = hangup
			}
			err := host.Run(ctx, opts)
			var bad *host.ConfigError
			if errors.As(err, &bad) {
				return &configError{bad.Diagnostics}
			}
			return err
		},
		validate: func(ctx context.Context, path string, noPlugins bool) (config.Diagnostics, error) {
			return host.Validate(ctx, path, host.ValidateOptions{NoPlugins: noPlugins})
		},
		describe: func(ctx context.Context, path string) (sdk.Description, error) { return host.Describe(ctx, path) },
	}
}
