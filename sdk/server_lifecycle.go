package sdk

import (
	"context"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
)

type lifecycleServer struct {
	lifecyclev1.UnimplementedLifecycleServiceServer
	s *Server
}

func (l lifecycleServer) Describe(context.Context, *lifecyclev1.DescribeRequest) (*lifecyclev1.DescribeResponse, error) {
	return descriptionToProto(l.s.plugin.Describe()), nil
}

func (l lifecycleServer) Validate(ctx context.Context, req *lifecyclev1.ValidateRequest) (*lifecyclev1.ValidateResponse, error) {
	if l.s.plugin.Config == nil {
		return &lifecyclev1.ValidateResponse{Diagnostics: diagnosticsToProto(noOptions(req.GetConfigJson()))}, nil
	}
	diags := l.s.plugin.Config.Validate(ctx, req.GetConfigJson())
	return &lifecyclev1.ValidateResponse{Diagnostics: diagnosticsToProto(diags)}, nil
}

func (l lifecycleServer) Configure(ctx context.Context, req *lifecyclev1.ConfigureRequest) (*lifecyclev1.ConfigureResponse, error) {
	if err := l.s.gate.shut(ctx); err != nil {
		return nil, err
	}
	next := gateSame
	defer func() { l.s.gate.open(next) }()
	diags, err := l.s.configure(ctx, req)
	if err != nil {
		return nil, err
	}
	if !diags.HasErrors() {
		next = gateServing
	}
	return &lifecyclev1.ConfigureResponse{Diagnostics: diagnosticsToProto(diags)}, nil
}

// configure runs with the gate shut.
func (s *Server) configure(ctx context.Context, req *lifecyclev1.ConfigureRequest) (Diagnostics, error) {
	host, closer, err := s.dial(req)
	if err != nil {
		return nil, err
	}
	applied := false
	defer func() {
		if !applied {
			_ = closer.Close()
		}
	}()
	env := Env{Name: req.GetName(), DataDir: req.GetDataDir(), Host: host, Logger: s.logger.Named(req.GetName())}
	var diags Diagnostics
	if s.plugin.Config == nil {
		diags = noOptions(req.GetConfigJson())
	} else {
		if diags, err = s.plugin.Config.Configure(ctx, req.GetConfigJson(), env); err != nil {
			return nil, err
		}
	}
	if diags.HasErrors() {
		return diags, nil
	}
	applied = true
	if s.host != nil {
		_ = s.host.Close()
	}
	s.host = closer
	s.configured = true
	return diags, nil
}

func (s *Server) dial(req *lifecyclev1.ConfigureRequest) (Host, io.Closer, error) {
	if req.GetHostAddress() == "" {
		return noHost{}, nopCloser{}, nil
	}
	return s.connect(req.GetHostAddress(), req.GetHostToken())
}

func (l lifecycleServer) Drain(ctx context.Context, _ *lifecyclev1.DrainRequest) (*lifecyclev1.DrainResponse, error) {
	if err := l.s.drain(ctx); err != nil {
		return nil, err
	}
	return &lifecyclev1.DrainResponse{}, nil
}

// drain finishes what is in flight. A repeated one does nothing: the host may
// not have seen the answer to the first.
func (s *Server) drain(ctx context.Context) error {
	if s.gate.drained() {
		return nil
	}
	if err := s.gate.shut(ctx); err != nil {
		return err
	}
	// Even where the plugin's Drain fails no call may come after it.
	defer s.gate.open(gateDrained)
	if s.plugin.Drain == nil || !s.configured {
		return nil
	}
	return s.plugin.Drain(ctx)
}

// noOptions checks the configuration of a plugin that has none.
func noOptions(config []byte) Diagnostics {
	members, err := objectMembers(config)
	if err != nil {
		return Diagnostics{Invalid(nil, "The configuration is not a JSON object.", err.Error())}
	}
	var diags Diagnostics
	for _, m := range members {
		diags = append(diags, Invalid([]string{m.name}, "This plugin takes no options.", "Remove the config block."))
	}
	return diags
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// noHost answers where the host offers no services.
type noHost struct{}

var errNoHost = Errorf(CodeUnavailable, "no_host_services", "this host offers no host services")

func (noHost) Request(context.Context, FrameRequest) (jsontext.Value, error) {
	return nil, errNoHost
}
func (noHost) Notify(context.Context, FrameRequest) error           { return errNoHost }
func (noHost) Send(context.Context, SendRequest) (SendReply, error) { return SendReply{}, errNoHost }

func (noHost) Peers(context.Context, PeersRequest) (PeerView, error) { return PeerView{}, errNoHost }
func (noHost) Emit(context.Context, string, jsontext.Value) error    { return errNoHost }
func (noHost) StoreGet(context.Context, string) ([]byte, error)      { return nil, errNoHost }
func (noHost) StorePut(context.Context, string, []byte) error        { return errNoHost }
func (noHost) StoreDelete(context.Context, string) error             { return errNoHost }
func (noHost) StoreList(context.Context, string) ([]string, error)   { return nil, errNoHost }
