package plugin

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

// feature is the facade of an RPC feature.
type feature struct{ p *Plugin }

// Feature returns the feature of this plugin, whatever process serves it now. It
// fails as Outbox does.
func (p *Plugin) Feature() sdk.FeatureCaller { return feature{p} }

func pickFeature(c *calls) (sdk.FeatureCaller, bool) { return c.feature, c.feature != nil }

func (f feature) Call(ctx context.Context, req sdk.Call) (jsontext.Value, error) {
	return call(ctx, f.p, MethodCall, pickFeature, func(ctx context.Context, c sdk.FeatureCaller) (jsontext.Value, error) {
		return c.Call(ctx, req)
	})
}

func (f feature) OnConnect(ctx context.Context, ev sdk.Connected) error {
	_, err := call(ctx, f.p, MethodOnConnect, pickFeature, func(ctx context.Context, c sdk.FeatureCaller) (struct{}, error) {
		return struct{}{}, c.OnConnect(ctx, ev)
	})
	return err
}

func (f feature) OnFrame(ctx context.Context, frames []sdk.Frame) error {
	_, err := call(ctx, f.p, MethodOnFrame, pickFeature, func(ctx context.Context, c sdk.FeatureCaller) (struct{}, error) {
		return struct{}{}, c.OnFrame(ctx, frames)
	})
	return err
}
