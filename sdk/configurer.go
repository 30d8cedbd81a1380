package sdk

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"
)

// Configurer declares options and takes their values. Make one with Configured.
type Configurer interface {
	// Schema describes the options.
	Schema() Schema
	// Validate checks values that fit the schema.
	Validate(ctx context.Context, config jsontext.Value) Diagnostics
	// Configure applies them. It may come again while no call is in flight; on
	// errors the earlier configuration stays in force. Diagnostics are final: the
	// configuration must change. An error may pass: the host tries again.
	Configure(ctx context.Context, config jsontext.Value, env Env) (Diagnostics, error)
}
