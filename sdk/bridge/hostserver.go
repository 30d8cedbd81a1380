package bridge

import (
	"context"
	"crypto/subtle"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	hostv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/host/v1"
)

// TokenKey is the key of gRPC metadata in which a plugin shows its token.
const TokenKey = wire.TokenKey

// HostServerOptions are the options of a gRPC server for RegisterHost: the limits
// of messages, and a guard that asks allow about the token of each call (empty
// if there is none) before anything else is done.
func HostServerOptions(allow func(token string) bool) []grpc.ServerOption {
	guard := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		var token string
		if values := metadata.ValueFromIncomingContext(ctx, TokenKey); len(values) == 1 {
			token = values[0]
		}
		if !allow(token) {
			return nil, wire.FromError(sdk.Errorf(sdk.CodePermission, "bad_token", "this token is not valid for this socket"))
		}
		res, err := handler(ctx, req)
		return res, wire.FromError(err)
	}
	return append(wire.ServerOptions(), grpc.ChainUnaryInterceptor(guard))
}

// TokenIs is an allow for HostServerOptions: one token, compared in constant
// time. An empty one lets nobody in.
func TokenIs(token string) func(string) bool {
	return func(shown string) bool {
		return token != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 1
	}
}

// RegisterHost serves host on a server that was made with HostServerOptions.
func RegisterHost(s grpc.ServiceRegistrar, host sdk.Host) {
	hostv1.RegisterHostServiceServer(s, hostServer{impl: host})
}

// DialHost is the plugin's end of RegisterHost.
func DialHost(address, token string) (sdk.Host, io.Closer, error) {
	return sdk.DialHost(address, token)
}

// hostServer is the wire over sdk.Host; HostServerOptions turn its errors into
// statuses.
type hostServer struct {
	hostv1.UnimplementedHostServiceServer
	impl sdk.Host
}

func (s hostServer) RequestFrame(ctx context.Context, req *hostv1.RequestFrameRequest) (*hostv1.RequestFrameResponse, error) {
	if err := frame(req.GetFrameJson()); err != nil {
		return nil, err
	}
	reply, err := s.impl.Request(ctx, sdk.FrameRequest{Mesh: req.GetMesh(), Identity: req.GetIdentity(), Frame: req.GetFrameJson()})
	if err != nil {
		return nil, err
	}
	return &hostv1.RequestFrameResponse{FrameJson: reply}, nil
}

func (s hostServer) NotifyFrame(ctx context.Context, req *hostv1.NotifyFrameRequest) (*hostv1.NotifyFrameResponse, error) {
	if err := frame(req.GetFrameJson()); err != nil {
		return nil, err
	}
	err := s.impl.Notify(ctx, sdk.FrameRequest{Mesh: req.GetMesh(), Identity: req.GetIdentity(), Frame: req.GetFrameJson()})
	if err != nil {
		return nil, err
	}
	return &hostv1.NotifyFrameResponse{}, nil
}

// frame refuses what can't be a frame.
func frame(v jsontext.Value) error {
	if !isObject(v) {
		return sdk.Errorf(sdk.CodeInvalid, "bad_frame", "a frame is a JSON object")
	}
	return nil
}

func (s hostServer) Send(ctx context.Context, req *hostv1.SendRequest) (*hostv1.SendResponse, error) {
	reply, err := s.impl.Send(ctx, sdk.SendRequest{
		Mesh:            req.GetMesh(),
		To:              req.GetTo(),
		Message:         req.GetMessage(),
		Priority:        req.GetPriority(),
		ClientMessageID: req.GetClientMessageId(),
	})
	if err != nil {
		return nil, err
	}
	return &hostv1.SendResponse{Id: reply.ID, ClientMessageId: reply.ClientMessageID, Durable: reply.Durable}, nil
}

func (s hostServer) Peers(ctx context.Context, req *hostv1.PeersRequest) (*hostv1.PeersResponse, error) {
	view, err := s.impl.Peers(ctx, sdk.PeersRequest{Mesh: req.GetMesh(), All: req.GetAll()})
	if err != nil {
		return nil, err
	}
	res := &hostv1.PeersResponse{Peers: peersToProto(view.Peers), Warnings: view.Warnings}
	for _, c := range view.Hidden {
		res.Hidden = append(res.Hidden, &hostv1.HiddenCount{Filter: c.Filter, Reason: c.Reason, Count: int64(c.Count)})
	}
	return res, nil
}

func (s hostServer) Emit(ctx context.Context, req *hostv1.EmitRequest) (*hostv1.EmitResponse, error) {
	data := jsontext.Value(req.GetDataJson())
	if len(data) > 0 && !data.IsValid() {
		return nil, sdk.Errorf(sdk.CodeInvalid, "bad_event", "the data of event %q is not JSON", req.GetKind())
	}
	if err := s.impl.Emit(ctx, req.GetKind(), data); err != nil {
		return nil, err
	}
	return &hostv1.EmitResponse{}, nil
}

func (s hostServer) StoreGet(ctx context.Context, req *hostv1.StoreGetRequest) (*hostv1.StoreGetResponse, error) {
	value, err := s.impl.StoreGet(ctx, req.GetKey())
	if err != nil {
		return nil, err
	}
	return &hostv1.StoreGetResponse{Value: value}, nil
}

func (s hostServer) StorePut(ctx context.Context, req *hostv1.StorePutRequest) (*hostv1.StorePutResponse, error) {
	if err := s.impl.StorePut(ctx, req.GetKey(), req.GetValue()); err != nil {
		return nil, err
	}
	return &hostv1.StorePutResponse{}, nil
}

func (s hostServer) StoreDelete(ctx context.Context, req *hostv1.StoreDeleteRequest) (*hostv1.StoreDeleteResponse, error) {
	if err := s.impl.StoreDelete(ctx, req.GetKey()); err != nil {
		return nil, err
	}
	return &hostv1.StoreDeleteResponse{}, nil
}

func (s hostServer) StoreList(ctx context.Context, req *hostv1.StoreListRequest) (*hostv1.StoreListResponse, error) {
	keys, err := s.impl.StoreList(ctx, req.GetPrefix())
	if err != nil {
		return nil, err
	}
	return &hostv1.StoreListResponse{Keys: keys}, nil
}
