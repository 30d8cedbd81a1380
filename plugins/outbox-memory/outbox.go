package main

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

// options is the config block.
type options struct {
	MaxRows    int64     `mesh:"max_rows" default:"100000" doc:"Messages that may wait to be sent; more are refused."`
	MaxBytes   sdk.Bytes `mesh:"max_bytes" default:"64MiB" doc:"Bytes of message bodies that may be kept."`
	MaxEntry   sdk.Bytes `mesh:"max_entry" default:"256KiB" doc:"Largest single message, with its ids."`
	MaxRecords int64     `mesh:"max_records" default:"100000" doc:"Records of finished messages that are kept to recognise repeats; beyond, the oldest are forgotten."`
}

func (o options) limits() outboxstate.Limits {
	return outboxstate.Limits{Rows: o.MaxRows, Bytes: int64(o.MaxBytes), Entry: int64(o.MaxEntry)}
}

func validate(_ context.Context, o options) sdk.Diagnostics {
	d := outboxstate.CheckLimits(o.limits())
	if o.MaxRecords < 1 {
		d = append(d, sdk.Invalid([]string{"max_records"}, "max_records is too small", "Keep at least 1 record. Leave it out for the default."))
	}
	return d
}

// outbox is the plugin: a store that Configure makes. The lifecycle keeps calls
// away from the time before.
type outbox struct {
	*store
}

func (o *outbox) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "memory",
		Version: "0.1.0",
		Doc:     "Keeps messages in RAM until the mesh has taken them; they end with the process.",
		Config:  sdk.Configured(o.configure, validate),
		Outbox:  o,
	}
}

// configure makes the store, or gives the one that is there new limits: what is
// queued stays.
func (o *outbox) configure(_ context.Context, c options, _ sdk.Env) error {
	if o.store == nil {
		o.store = newStore(c.limits(), c.MaxRecords, time.Now)
		return nil
	}
	o.store.limit(c.limits(), c.MaxRecords)
	return nil
}
