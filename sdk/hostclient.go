package sdk

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	hostv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/host/v1"
)

// DialHost reaches the host services on a Unix socket with the token of
// Configure. It connects with the first call. Serve does this for Env.Host;
// authors don't need it.
func DialHost(address, token string) (Host, io.Closer, error) {
	return DialHostWith(address, token, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	})
}

// DialHostWith is DialHost over connections that dial makes.
func DialHostWith(address, token string, dial func(context.Context) (net.Conn, error)) (Host, io.Closer, error) {
	conn, err := grpc.NewClient("passthrough:///meshhost", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		// The socket is there as long as this process is; what fails is brief.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, wire.TokenKey, token), method, req, reply, cc, opts...)
		}))...,
	)
	if err != nil {
		return nil, nil, fmt.Errorf("host services at %s: %w", address, err)
	}
	return hostClient{rpc: hostv1.NewHostServiceClient(conn)}, conn, nil
}

// hostClient is Host over the wire.
type hostClient struct {
	rpc hostv1.HostServiceClient
}

func (h hostClient) Request(ctx context.Context, req FrameRequest) (jsontext.Value, error) {
	res, err := h.rpc.RequestFrame(ctx, &hostv1.RequestFrameRequest{Mesh: req.Mesh, Identity: req.Identity, FrameJson: req.Frame})
	if err != nil {
		return nil, ErrorFromStatus(err)
	}
	return res.GetFrameJson(), nil
}

func (h hostClient) Notify(ctx context.Context, req FrameRequest) error {
	_, err := h.rpc.NotifyFrame(ctx, &hostv1.NotifyFrameRequest{Mesh: req.Mesh, Identity: req.Identity, FrameJson: req.Frame})
	return ErrorFromStatus(err)
}

func (h hostClient) Send(ctx context.Context, req SendRequest) (SendReply, error) {
	res, err := h.rpc.Send(ctx, &hostv1.SendRequest{
		Mesh:            req.Mesh,
		To:              req.To,
		Message:         req.Message,
		Priority:        req.Priority,
		ClientMessageId: req.ClientMessageID,
	})
	if err != nil {
		return SendReply{}, ErrorFromStatus(err)
	}
	return SendReply{ID: res.GetId(), ClientMessageID: res.GetClientMessageId(), Durable: res.GetDurable()}, nil
}

func (h hostClient) Peers(ctx context.Context, req PeersRequest) (PeerView, error) {
	res, err := h.rpc.Peers(ctx, &hostv1.PeersRequest{Mesh: req.Mesh, All: req.All})
	if err != nil {
		return PeerView{}, ErrorFromStatus(err)
	}
	view := PeerView{Peers: peersFromProto(res.GetPeers()), Warnings: res.GetWarnings()}
	for _, c := range res.GetHidden() {
		view.Hidden = append(view.Hidden, HiddenCount{Filter: c.GetFilter(), Reason: c.GetReason(), Count: int(c.GetCount())})
	}
	return view, nil
}

func (h hostClient) Emit(ctx context.Context, kind string, data jsontext.Value) error {
	_, err := h.rpc.Emit(ctx, &hostv1.EmitRequest{Kind: kind, DataJson: data})
	return ErrorFromStatus(err)
}

func (h hostClient) StoreGet(ctx context.Context, key string) ([]byte, error) {
	res, err := h.rpc.StoreGet(ctx, &hostv1.StoreGetRequest{Key: key})
	if err != nil {
		return nil, ErrorFromStatus(err)
	}
	return res.GetValue(), nil
}

func (h hostClient) StorePut(ctx context.Context, key string, value []byte) error {
	_, err := h.rpc.StorePut(ctx, &hostv1.StorePutRequest{Key: key, Value: value})
	return ErrorFromStatus(err)
}

func (h hostClient) StoreDelete(ctx context.Context, key string) error {
	_, err := h.rpc.StoreDelete(ctx, &hostv1.StoreDeleteRequest{Key: key})
	return ErrorFromStatus(err)
}

func (h hostClient) StoreList(ctx context.Context, prefix string) ([]string, error) {
	res, err := h.rpc.StoreList(ctx, &hostv1.StoreListRequest{Prefix: prefix})
	if err != nil {
		return nil, ErrorFromStatus(err)
	}
	return res.GetKeys(), nil
}
