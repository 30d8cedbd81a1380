package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
	filterv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/filter/v1"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

// Server is the plugin's end of the boundary. Serve runs one; test kits do too.
// Authors don't need it.
type Server struct {
	plugin  Plugin
	logger  hclog.Logger
	connect func(address, token string) (Host, io.Closer, error)
	first   func()
	once    sync.Once
	gate    gate

	// host is the connection of the configuration in force, configured says that
	// there is one. Configure, Drain and Close own them; the gate keeps those apart.
	host       io.Closer
	configured bool
}

// ServerConfig says how a Server is wired; each field has a default.
type ServerConfig struct {
	// Logger is what Env.Logger writes to; nil: nowhere.
	Logger hclog.Logger
	// DialHost reaches the host services; nil: package function DialHost.
	DialHost func(address, token string) (Host, io.Closer, error)
}

// NewServer checks the plugin and makes its server. The error names what the
// author has to mend.
func NewServer(p Plugin, cfg ServerConfig) (*Server, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	s := &Server{plugin: p, logger: cfg.Logger, connect: cfg.DialHost, first: func() {}}
	if s.logger == nil {
		s.logger = hclog.NewNullLogger()
	}
	if s.connect == nil {
		s.connect = DialHost
	}
	return s, nil
}

// Options are the limits and the interceptors without which the server does not
// keep its promises.
func (s *Server) Options() []grpc.ServerOption {
	return append(wire.ServerOptions(), grpc.UnaryInterceptor(s.intercept), grpc.StreamInterceptor(s.interceptStream))
}

// Register adds the services to a server that was made with Options.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	lifecyclev1.RegisterLifecycleServiceServer(r, lifecycleServer{s: s})
	if s.plugin.Outbox != nil {
		outboxv1.RegisterOutboxServiceServer(r, outboxServer{impl: s.plugin.Outbox})
	}
	if s.plugin.PushHandler != nil {
		pushv1.RegisterPushServiceServer(r, pushServer{impl: s.plugin.PushHandler})
	}
	if s.plugin.PeerFilter != nil {
		filterv1.RegisterFilterServiceServer(r, filterServer{impl: s.plugin.PeerFilter})
	}
	if s.plugin.Feature != nil {
		featurev1.RegisterFeatureServiceServer(r, featureServer{impl: s.plugin.Feature})
	}
}

// Close releases what Configure opened, if it ever did. No call may be in
// flight.
func (s *Server) Close() error {
	var err error
	if s.plugin.Stop != nil && s.configured {
		err = s.plugin.Stop()
	}
	if s.host != nil {
		_ = s.host.Close()
		s.host = nil
	}
	return err
}

const (
	pluginPrefix    = "/meshhost.plugin."
	lifecyclePrefix = "/meshhost.plugin.lifecycle."
)

// intercept stands around each call of ours: gRPC recovers no panic by itself,
// and one bad item must not end the process that holds the others.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	if !strings.HasPrefix(info.FullMethod, pluginPrefix) {
		return handler(ctx, req)
	}
	if strings.HasPrefix(info.FullMethod, lifecyclePrefix) {
		s.once.Do(s.first)
	} else {
		if err := s.gate.enter(); err != nil {
			return nil, wire.FromError(err)
		}
		defer s.gate.leave()
	}
	defer func() {
		if r := recover(); r != nil {
			res, err = nil, s.panicked(info.FullMethod, r)
		}
	}()
	res, err = handler(ctx, req)
	return res, wire.FromError(err)
}

// panicked tells the log of a panic and makes the call's error.
func (s *Server) panicked(method string, r any) error {
	s.logger.Error("panic in a call", "method", method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	return wire.FromError(Errorf(CodeInternal, "panic",
		"the plugin panicked in %s", method).WithNext("its log has the stack; report it to the plugin's author"))
}

// interceptStream is intercept for calls that answer a stream. They end when the
// plugin is configured anew or drained: their callers begin again.
func (s *Server) interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if !strings.HasPrefix(info.FullMethod, pluginPrefix) {
		return handler(srv, ss)
	}
	ctx, leave, err := s.gate.enterStream(ss.Context())
	if err != nil {
		return wire.FromError(err)
	}
	defer leave()
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(info.FullMethod, r)
		}
	}()
	err = handler(srv, stream{ss, ctx})
	if err != nil && errors.Is(context.Cause(ctx), errShut) {
		err = errShut
	}
	return wire.FromError(err)
}

// stream is a stream with a context of ours.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }
