package plugin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
)

// servePlain serves the test plugin without what sdk.Serve adds, as a plugin in
// another language would: it keeps its stdout and does not notice the host's end.
func servePlain() {
	s, err := sdk.NewServer(testPlugin(), sdk.ServerConfig{})
	if err != nil {
		panic(err)
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: bridge.Handshake(),
		Plugins:         goplugin.PluginSet{bridge.PluginSet: glue{register: s.Register}},
		GRPCServer:      func(o []grpc.ServerOption) *grpc.Server { return grpc.NewServer(append(o, s.Options()...)...) },
		Logger:          hclog.NewNullLogger(),
	})
}

// glue is a go-plugin plugin around a function.
type glue struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(grpc.ServiceRegistrar)
}

func (g glue) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error { g.register(s); return nil }
func (glue) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

// serveRaw is go-plugin used as its examples do; the one method is /raw/Do.
func serveRaw() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: bridge.Handshake(),
		Plugins:         goplugin.PluginSet{bridge.PluginSet: glue{register: registerRaw}},
		GRPCServer:      goplugin.DefaultGRPCServer,
		Logger:          hclog.NewNullLogger(),
	})
}

func registerRaw(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: "raw", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := dec(&in); err != nil {
				return nil, err
			}
			what, arg, _ := strings.Cut(string(in.Value), " ")
			out, err := (&doer{}).do(ctx, what, arg)
			return wrapperspb.Bytes([]byte(out)), err
		}}},
	}, nil)
}

// serveNonsense describes itself against the contract.
func serveNonsense() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: bridge.Handshake(),
		Plugins: goplugin.PluginSet{bridge.PluginSet: glue{register: func(r grpc.ServiceRegistrar) {
			lifecyclev1.RegisterLifecycleServiceServer(r, nonsense{})
		}}},
		GRPCServer: goplugin.DefaultGRPCServer,
		Logger:     hclog.NewNullLogger(),
	})
}

type nonsense struct {
	lifecyclev1.UnimplementedLifecycleServiceServer
}

func (nonsense) Describe(context.Context, *lifecyclev1.DescribeRequest) (*lifecyclev1.DescribeResponse, error) {
	return &lifecyclev1.DescribeResponse{Name: "x"}, nil // of no kind
}

// serveFrozen shakes hands and then never answers.
func serveFrozen() {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	if _, err := net.Listen("unix", path); err != nil {
		panic(err)
	}
	fmt.Println("1|1|unix|" + path + "|grpc|")
	select {}
}
