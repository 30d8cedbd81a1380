package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// options is the config block.
type options struct {
	Path     sdk.Path  `mesh:"path" default:"outbox.db" doc:"The database file."`
	MaxRows  int64     `mesh:"max_rows" default:"1000000" doc:"Messages that may wait to be sent; more are refused."`
	MaxBytes sdk.Bytes `mesh:"max_bytes" default:"1GiB" doc:"Bytes of message bodies that may be kept."`
	MaxEntry sdk.Bytes `mesh:"max_entry" default:"256KiB" doc:"Largest single message, with its ids."`
}

func (o options) limits() outboxstate.Limits {
	return outboxstate.Limits{Rows: o.MaxRows, Bytes: int64(o.MaxBytes), Entry: int64(o.MaxEntry)}
}

// validate refuses limits that nothing could pass.
func validate(_ context.Context, o options) sdk.Diagnostics {
	return outboxstate.CheckLimits(o.limits())
}

// outbox is the plugin: a store that Configure opens and Stop closes. The
// lifecycle keeps calls away from the time before and between.
type outbox struct {
	*store
	path string
}

func (o *outbox) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "sqlite",
		Version: "0.1.0",
		Doc:     "Keeps messages in a SQLite file until the mesh has taken them; survives power loss.",
		Config:  sdk.Configured(o.configure, validate),
		Stop:    o.stop,
		Outbox:  o,
		Durable: true,
	}
}

// configure opens the file. The same file again gets new limits only; another
// one is open before the old one closes.
func (o *outbox) configure(ctx context.Context, c options, env sdk.Env) error {
	path := string(c.Path)
	if o.store != nil && path == o.path {
		return o.store.limit(ctx, c.limits())
	}
	next, err := openStore(ctx, path, c.limits(), time.Now)
	if err != nil {
		return err
	}
	old := o.store
	o.store, o.path = next, path
	env.Logger.Debug("outbox is open", "path", path)
	if old != nil {
		if err := old.Close(); err != nil {
			env.Logger.Warn("the former outbox file did not close in good order", "error", err)
		}
	}
	return nil
}

func (o *outbox) stop() error {
	if o.store == nil {
		return nil
	}
	err := o.store.Close()
	o.store = nil
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}
