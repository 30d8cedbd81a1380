package bridge

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
	filterv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/filter/v1"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

// Client calls one plugin process. It holds no state of its own; all methods may
// be called concurrently.
type Client struct {
	conn      grpc.ClientConnInterface
	lifecycle lifecyclev1.LifecycleServiceClient
	health    healthv1.HealthClient
}

// NewClient makes a client on a connection, which stays the caller's. Set
// DialOptions on it.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{
		conn:      conn,
		lifecycle: lifecyclev1.NewLifecycleServiceClient(conn),
		health:    healthv1.NewHealthClient(conn),
	}
}

// ConfigureRequest is what Configure gives to a plugin.
type ConfigureRequest struct {
	// Config is a JSON object that fits the schema.
	Config jsontext.Value
	// Name is the name of the block.
	Name string
	// DataDir is a directory that exists, mode 0700.
	DataDir string
	// HostAddress is the Unix socket of RegisterHost; empty: no host services.
	HostAddress string
	// HostToken is what the plugin shows there.
	HostToken string
}

// Describe asks what the plugin is.
func (c *Client) Describe(ctx context.Context) (sdk.Description, error) {
	res, err := c.lifecycle.Describe(ctx, &lifecyclev1.DescribeRequest{})
	if err != nil {
		return sdk.Description{}, sdk.ErrorFromStatus(err)
	}
	d, err := descriptionFromProto(res)
	if err != nil {
		return sdk.Description{}, fault("Describe", "%v", err)
	}
	return d, nil
}

// Validate asks whether a configuration that fits the schema makes sense.
func (c *Client) Validate(ctx context.Context, config jsontext.Value) (sdk.Diagnostics, error) {
	res, err := c.lifecycle.Validate(ctx, &lifecyclev1.ValidateRequest{ConfigJson: config})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	return diagnosticsFromProto("Validate", res.GetDiagnostics())
}

// Configure applies a configuration. When the diagnostics have errors the
// earlier one stays in force.
func (c *Client) Configure(ctx context.Context, req ConfigureRequest) (sdk.Diagnostics, error) {
	res, err := c.lifecycle.Configure(ctx, &lifecyclev1.ConfigureRequest{
		ConfigJson:  req.Config,
		Name:        req.Name,
		DataDir:     req.DataDir,
		HostAddress: req.HostAddress,
		HostToken:   req.HostToken,
	})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	return diagnosticsFromProto("Configure", res.GetDiagnostics())
}

// Drain asks the plugin to finish what is in flight, within ctx's deadline.
func (c *Client) Drain(ctx context.Context) error {
	_, err := c.lifecycle.Drain(ctx, &lifecyclev1.DrainRequest{})
	return sdk.ErrorFromStatus(err)
}

// Health asks the standard health service. Give ctx a deadline: a frozen process
// answers nothing.
func (c *Client) Health(ctx context.Context) error {
	res, err := c.health.Check(ctx, &healthv1.HealthCheckRequest{Service: wire.HealthName})
	if err != nil {
		return sdk.ErrorFromStatus(err)
	}
	if s := res.GetStatus(); s != healthv1.HealthCheckResponse_SERVING {
		return sdk.Errorf(sdk.CodeUnavailable, "unhealthy", "the plugin reports its health as %s", s)
	}
	return nil
}

// Outbox is the plugin as an outbox; use it if Describe has that kind.
func (c *Client) Outbox() sdk.Outbox {
	return outboxClient{rpc: outboxv1.NewOutboxServiceClient(c.conn)}
}

// PushHandler is the plugin as a push handler; use it if Describe has that kind.
func (c *Client) PushHandler() sdk.PushHandler {
	return pushClient{rpc: pushv1.NewPushServiceClient(c.conn)}
}

// PeerFilter is the plugin as a peer filter; use it if Describe has that kind.
func (c *Client) PeerFilter() sdk.PeerFilter {
	return filterClient{rpc: filterv1.NewFilterServiceClient(c.conn)}
}

// Feature is the plugin as a feature; use it if Describe has that kind.
func (c *Client) Feature() sdk.FeatureCaller {
	return featureClient{rpc: featurev1.NewFeatureServiceClient(c.conn)}
}
