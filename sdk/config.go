package sdk

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"
)

// Configured makes the Config of a Plugin from a struct C. Each exported field of
// C is an option:
//
//	type config struct {
//		Path    sdk.Path      `mesh:"path" default:"outbox.db" doc:"the database file"`
//		Busy    time.Duration `mesh:"busy_timeout" default:"5s"`
//		URL     string        `mesh:"url,required"`
//		Limits  limits        `mesh:"limits,block"`
//		Targets []target      `mesh:"target,block"`
//	}
//
// The tag mesh gives the name, in snake_case, then required and block; "-"
// leaves the field out. With block a struct or a pointer to one is a nested block
// (a pointer is nil where the block is not written), a slice of structs a block
// that may repeat. Without it: string, bool, numbers, time.Duration, Bytes, Path,
// Secret, Expr, slices, maps with string keys and structs of those; a pointer to
// any of them is nil where the option is not written. The tag default is the
// value as text, JSON for lists, maps and structs; doc is for people; variables
// lists the root names that an Expr may use.
//
// configure applies the values, and may be called again; when it fails, it leaves
// the earlier configuration in force. What it returns is shown to the user: a
// Diagnostic or Diagnostics (Invalid, Diagnostics.Err) lead to the line of the
// option. After ErrUnavailable, ErrTimeout or ErrFull the host starts the plugin
// again, in the hope that it passes; after anything else the plugin stays down
// until the configuration changes. validate, which may be nil, finds what the types can't, changes
// nothing and comes before configure each time.
//
// Configured panics if C can't be a configuration, which its author must mend.
func Configured[C any](configure func(ctx context.Context, config C, env Env) error, validate func(ctx context.Context, config C) Diagnostics) Configurer {
	t := reflect.TypeFor[C]()
	spec, err := specOf(t, nil)
	if err != nil {
		panic(fmt.Sprintf("sdk.Configured[%v]: %v", t, err))
	}
	if configure == nil {
		panic(fmt.Sprintf("sdk.Configured[%v]: configure is nil", t))
	}
	if validate == nil {
		validate = func(context.Context, C) Diagnostics { return nil }
	}
	return &configurer[C]{spec: spec, configure: configure, validate: validate}
}

// DecodeConfig reads a configuration as a Configurer of C does: unknown names,
// missing options, wrong types and numbers out of range are diagnostics. It is
// for tests and tools; it panics as Configured does.
func DecodeConfig[C any](config jsontext.Value) (C, Diagnostics) {
	var c C
	spec, err := specOf(reflect.TypeFor[C](), nil)
	if err != nil {
		panic(fmt.Sprintf("sdk.DecodeConfig[%T]: %v", c, err))
	}
	diags := spec.decodeWhole(config, reflect.ValueOf(&c).Elem(), "")
	return c, diags
}

// configurer is a Configurer over a struct.
type configurer[C any] struct {
	spec      *structSpec
	configure func(context.Context, C, Env) error
	validate  func(context.Context, C) Diagnostics
}

func (c *configurer[C]) Schema() Schema { return c.spec.schema() }

func (c *configurer[C]) Validate(ctx context.Context, config jsontext.Value) Diagnostics {
	_, diags := c.read(ctx, config, "")
	return diags
}

func (c *configurer[C]) Configure(ctx context.Context, config jsontext.Value, env Env) (Diagnostics, error) {
	values, diags := c.read(ctx, config, env.DataDir)
	if diags.HasErrors() {
		return diags, nil
	}
	err := c.configure(ctx, values, env)
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrFull) {
		return nil, err // a full disk, a database that is away: no fault of the configuration
	}
	return append(diags, diagnosticsOf(err)...), nil
}

// read decodes and validates.
func (c *configurer[C]) read(ctx context.Context, config jsontext.Value, dataDir string) (C, Diagnostics) {
	var values C
	diags := c.spec.decodeWhole(config, reflect.ValueOf(&values).Elem(), dataDir)
	if diags.HasErrors() {
		return values, diags
	}
	return values, append(diags, c.validate(ctx, values)...)
}

// diagnosticsOf turns what configure returned into diagnostics.
func diagnosticsOf(err error) Diagnostics {
	if err == nil {
		return nil
	}
	var many Diagnostics
	if errors.As(err, &many) {
		return many
	}
	var one Diagnostic
	if errors.As(err, &one) {
		return Diagnostics{one}
	}
	detail := err.Error()
	var e *Error
	if errors.As(err, &e) && e.Next != "" {
		detail += " " + e.Next
	}
	return Diagnostics{Invalid(nil, "The plugin can't start with this configuration.", detail)}
}
