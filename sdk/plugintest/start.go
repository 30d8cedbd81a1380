package plugintest

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// token is what the plugin must show to the fake host.
const token = "plugintest"

// Plugin is a started plugin.
type Plugin struct {
	// Client has the calls of the lifecycle that a test seldom needs.
	Client *bridge.Client
	// Host is what the plugin sees as its host, unless WithHost gave another.
	Host *Host
	// Name and DataDir are what Configure gives to the plugin.
	Name    string
	DataDir string

	t    testing.TB
	logs *logBuffer
	host sdk.Host
}

// Option changes what Start does.
type Option func(*Plugin)

// WithName sets the block's name; the plugin's own name otherwise.
func WithName(name string) Option { return func(p *Plugin) { p.Name = name } }

// WithDataDir sets the data directory, so that a second Start sees what the
// first one left; a fresh directory otherwise.
func WithDataDir(dir string) Option { return func(p *Plugin) { p.DataDir = dir } }

// WithHost sets the host; the Host of the result is then not used.
func WithHost(h sdk.Host) Option { return func(p *Plugin) { p.host = h } }

// Start serves p in memory until the test ends. It fails the test if p has a
// mistake that sdk.Serve would panic with. The plugin is not configured yet.
func Start(t testing.TB, p sdk.Plugin, options ...Option) *Plugin {
	t.Helper()
	started := &Plugin{t: t, Host: NewHost(), logs: &logBuffer{}, Name: p.Name}
	started.host = started.Host
	for _, o := range options {
		o(started)
	}
	if started.DataDir == "" {
		started.DataDir = t.TempDir()
	}
	hostConn := serveHost(t, started.host)
	server, err := sdk.NewServer(p, sdk.ServerConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: started.logs, JSONFormat: true}),
		DialHost: func(address, token string) (sdk.Host, io.Closer, error) {
			return sdk.DialHostWith(address, token, hostConn.DialContext)
		},
	})
	if err != nil {
		t.Fatalf("plugintest.Start: %v", err)
	}
	started.Client = bridge.NewClient(serve(t, server))
	return started
}

// serve runs the plugin's end and returns a connection to it.
func serve(t testing.TB, server *sdk.Server) *grpc.ClientConn {
	t.Helper()
	g := grpc.NewServer(server.Options()...)
	server.Register(g)
	healthy := health.NewServer()
	healthy.SetServingStatus("plugin", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(g, healthy)
	listener := run(g)
	conn, err := grpc.NewClient("passthrough:///plugin", append(bridge.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	)...)
	if err != nil {
		t.Fatalf("plugintest.Start: %v", err)
	}
	t.Cleanup(func() {
		// t.Context is done by now.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := bridge.NewClient(conn).Drain(ctx); err != nil {
			t.Errorf("plugintest: drain: %v", err)
		}
		_ = conn.Close()
		listener.stop()
		if err := server.Close(); err != nil {
			t.Errorf("plugintest: stop: %v", err)
		}
	})
	return conn
}

// serveHost runs the host services.
func serveHost(t testing.TB, host sdk.Host) *bufconn.Listener {
	t.Helper()
	g := grpc.NewServer(bridge.HostServerOptions(bridge.TokenIs(token))...)
	bridge.RegisterHost(g, host)
	listener := run(g)
	t.Cleanup(listener.stop)
	return listener.Listener
}

// running is a listener with the server behind it.
type running struct {
	*bufconn.Listener
	stop func()
}

func run(g *grpc.Server) running {
	listener := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	return running{Listener: listener, stop: func() {
		g.Stop()
		<-done
	}}
}

// Describe is what the plugin says of itself, after crossing the wire.
func (p *Plugin) Describe() sdk.Description {
	p.t.Helper()
	d, err := p.Client.Describe(p.t.Context())
	if err != nil {
		p.t.Fatalf("Describe: %v", err)
	}
	return d
}

// Validate checks a configuration, a JSON object; "" is an empty one.
func (p *Plugin) Validate(config string) sdk.Diagnostics {
	p.t.Helper()
	diags, err := p.Client.Validate(p.t.Context(), jsonOf(config))
	if err != nil {
		p.t.Fatalf("Validate: %v", err)
	}
	return diags
}

// Configure applies a configuration, a JSON object; "" is an empty one.
func (p *Plugin) Configure(config string) sdk.Diagnostics {
	p.t.Helper()
	diags, err := p.Client.Configure(p.t.Context(), bridge.ConfigureRequest{
		Config:      jsonOf(config),
		Name:        p.Name,
		DataDir:     p.DataDir,
		HostAddress: "plugintest",
		HostToken:   token,
	})
	if err != nil {
		p.t.Fatalf("Configure: %v", err)
	}
	return diags
}

// MustConfigure is Configure, and fails the test on an error diagnostic. It
// returns p.
func (p *Plugin) MustConfigure(config string) *Plugin {
	p.t.Helper()
	if diags := p.Configure(config); diags.HasErrors() {
		p.t.Fatalf("Configure: %v", diags)
	}
	return p
}

func jsonOf(config string) jsontext.Value {
	if config == "" {
		return jsontext.Value("{}")
	}
	return jsontext.Value(config)
}

// Outbox is the plugin as an outbox.
func (p *Plugin) Outbox() sdk.Outbox { return p.Client.Outbox() }

// PushHandler is the plugin as a push handler.
func (p *Plugin) PushHandler() sdk.PushHandler { return p.Client.PushHandler() }

// PeerFilter is the plugin as a peer filter.
func (p *Plugin) PeerFilter() sdk.PeerFilter { return p.Client.PeerFilter() }

// Feature is the plugin as a feature.
func (p *Plugin) Feature() sdk.FeatureCaller { return p.Client.Feature() }

// Logs is what the plugin logged so far, one JSON object a line.
func (p *Plugin) Logs() string { return p.logs.String() }

// maxLogs bounds what is kept of a plugin's log.
const maxLogs = 1 << 20

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < maxLogs {
		b.buf.Write(line)
	}
	return len(line), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
