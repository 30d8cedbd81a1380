package plugin

import (
	"context"
	"fmt"

	"github.com/meshhost/meshhost/sdk"
)

// Probe starts a plugin, asks what it is, and ends it. It needs no Config,
// DataDir, Services or Kind; with a Kind, a plugin of another kind is an error.
func Probe(ctx context.Context, s Spec) (sdk.Description, error) {
	s = s.withDefaults()
	r, err := connect(ctx, &s)
	if err != nil {
		return sdk.Description{}, err
	}
	defer r.discard()
	return r.desc, nil
}

// Validate is Probe, and then the plugin checks the values that s.Config makes.
// Diagnostics are the plugin's words on them, warnings among them; the error is
// for everything else, a *ConfigError if s.Config failed. Nothing is configured,
// so no data directory is touched.
func Validate(ctx context.Context, s Spec) (sdk.Description, sdk.Diagnostics, error) {
	s = s.withDefaults()
	r, err := connect(ctx, &s)
	if err != nil {
		return sdk.Description{}, nil, err
	}
	defer r.discard()
	v, err := r.values(ctx, &s)
	if err != nil {
		return r.desc, nil, err
	}
	vctx, cancel := context.WithTimeout(ctx, s.timeout(MethodValidate))
	defer cancel()
	diags, err := r.client.Validate(vctx, v)
	if err != nil {
		if vctx.Err() != nil {
			return r.desc, nil, fmt.Errorf("%s: validate: no answer within %s", s.id(), s.timeout(MethodValidate))
		}
		return r.desc, nil, r.explain("validate", err)
	}
	return r.desc, diags, nil
}
