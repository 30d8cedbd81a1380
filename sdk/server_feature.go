package sdk

import (
	"context"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
)

type featureServer struct {
	featurev1.UnimplementedFeatureServiceServer
	impl *Feature
}

func (s featureServer) Call(ctx context.Context, req *featurev1.CallRequest) (*featurev1.CallResponse, error) {
	result, err := s.impl.Call(ctx, Call{
		Method:   req.GetMethod(),
		Params:   req.GetParamsJson(),
		Mesh:     req.GetMesh(),
		Identity: req.GetIdentity(),
	})
	if err != nil {
		return nil, err
	}
	return &featurev1.CallResponse{ResultJson: result}, nil
}

func (s featureServer) OnConnect(ctx context.Context, req *featurev1.OnConnectRequest) (*featurev1.OnConnectResponse, error) {
	if s.impl.OnConnect == nil {
		return &featurev1.OnConnectResponse{}, nil
	}
	err := s.impl.OnConnect(ctx, Connected{
		Mesh:       req.GetMesh(),
		Identity:   req.GetIdentity(),
		PresenceID: req.GetPresenceId(),
		At:         wire.Time(req.GetAtUnixMs()),
	})
	if err != nil {
		return nil, err
	}
	return &featurev1.OnConnectResponse{}, nil
}

func (s featureServer) OnFrame(ctx context.Context, req *featurev1.OnFrameRequest) (*featurev1.OnFrameResponse, error) {
	if s.impl.OnFrame == nil {
		return &featurev1.OnFrameResponse{}, nil
	}
	frames := make([]Frame, len(req.GetFrames()))
	for i, f := range req.GetFrames() {
		frames[i] = Frame{Mesh: f.GetMesh(), Identity: f.GetIdentity(), Type: f.GetType(), Frame: f.GetFrameJson()}
	}
	if err := s.impl.OnFrame(ctx, frames); err != nil {
		return nil, err
	}
	return &featurev1.OnFrameResponse{}, nil
}
