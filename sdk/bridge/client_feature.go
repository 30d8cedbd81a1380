package bridge

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
)

// featureClient is sdk.FeatureCaller over the wire.
type featureClient struct {
	rpc featurev1.FeatureServiceClient
}

func (c featureClient) Call(ctx context.Context, call sdk.Call) (jsontext.Value, error) {
	res, err := c.rpc.Call(ctx, &featurev1.CallRequest{
		Method:     call.Method,
		ParamsJson: call.Params,
		Mesh:       call.Mesh,
		Identity:   call.Identity,
	})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	result := jsontext.Value(res.GetResultJson())
	if !isObject(result) {
		return nil, fault("feature.Call", "the result of %s is not a JSON object", call.Method)
	}
	return result, nil
}

func (c featureClient) OnConnect(ctx context.Context, up sdk.Connected) error {
	_, err := c.rpc.OnConnect(ctx, &featurev1.OnConnectRequest{
		Mesh:       up.Mesh,
		Identity:   up.Identity,
		PresenceId: up.PresenceID,
		AtUnixMs:   wire.Millis(up.At),
	})
	return sdk.ErrorFromStatus(err)
}

func (c featureClient) OnFrame(ctx context.Context, frames []sdk.Frame) error {
	req := &featurev1.OnFrameRequest{Frames: make([]*featurev1.Frame, len(frames))}
	for i, f := range frames {
		req.Frames[i] = &featurev1.Frame{Mesh: f.Mesh, Identity: f.Identity, Type: f.Type, FrameJson: f.Frame}
	}
	_, err := c.rpc.OnFrame(ctx, req)
	return sdk.ErrorFromStatus(err)
}

// isObject reports whether v is one valid JSON object.
func isObject(v jsontext.Value) bool {
	return v.IsValid() && v.Kind() == '{'
}
