package control

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/sdk"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is every room at once; a nil function is one that the test doesn't expect.
type fake struct {
	t        *testing.T
	send     func(SendRequest) (SendReply, error)
	many     func(n int) // may be nil
	list     func(sdk.ListRequest) (sdk.ListPage, error)
	get      func(string) (*sdk.Entry, bool, error)
	inflight []string
	requeue  func(string) (*sdk.Entry, error)
	cancel   func(string) error
	wait     func(context.Context, string, sdk.EntryState) (*sdk.Entry, error)
	trace    func(string) (*MessageTrace, error)
	peers    func(string, bool) (sdk.PeerView, error)
	features []Feature
	call     func(string, sdk.Call) (jsontext.Value, error)
	callFor  func(context.Context) (jsontext.Value, error) // instead of call
	status   Status
	err      error // of Features, Plugins and Status
}

func (f *fake) Send(_ context.Context, r SendRequest) (SendReply, error) { return f.send(r) }

func (f *fake) SendMany(_ context.Context, reqs []SendRequest) func() []SendOutcome {
	out := make([]SendOutcome, len(reqs))
	for i, r := range reqs {
		out[i].Reply, out[i].Err = f.send(r)
	}
	if f.many != nil {
		f.many(len(reqs))
	}
	return func() []SendOutcome { return out }
}

func (f *fake) List(_ context.Context, r sdk.ListRequest) (sdk.ListPage, error) {
	return f.list(r)
}
func (f *fake) Get(_ context.Context, id string) (*sdk.Entry, bool, error) { return f.get(id) }
func (f *fake) Inflight() []string                                         { return f.inflight }
func (f *fake) Requeue(_ context.Context, id string) (*sdk.Entry, error)   { return f.requeue(id) }
func (f *fake) Cancel(_ context.Context, id string) error                  { return f.cancel(id) }
func (f *fake) Features(context.Context) ([]Feature, error)                { return f.features, f.err }

func (f *fake) Plugins(context.Context) ([]PluginStatus, error) { return f.status.Plugins, f.err }

func (f *fake) Status(context.Context) (Status, error) { return f.status, f.err }

func (f *fake) Reload(context.Context) (ReloadReply, error) {
	return ReloadReply{Changes: []ReloadChange{{`outbox "b"`, "added"}}, Warnings: []string{}}, f.err
}

func (f *fake) Peers(_ context.Context, m string, all bool) (sdk.PeerView, error) {
	return f.peers(m, all)
}

func (f *fake) Wait(ctx context.Context, id string, s sdk.EntryState) (*sdk.Entry, error) {
	return f.wait(ctx, id, s)
}

func (f *fake) Trace(_ context.Context, id string) (*MessageTrace, error) { return f.trace(id) }

func (f *fake) Call(ctx context.Context, feature string, c sdk.Call) (jsontext.Value, error) {
	if f.callFor != nil {
		return f.callFor(ctx)
	}
	return f.call(feature, c)
}

// testServer is a server on a socket of its own.
type testServer struct {
	*Server
	bus    *event.Bus
	socket string
	client *Client
	served chan error
}

// start serves f until the test ends.
func start(t *testing.T, f *fake) *testServer {
	t.Helper()
	f.t = t
	bus := event.New()
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "meshhost_test_total", Help: "For the test."})
	c.Add(3)
	reg.MustRegister(c)
	s, err := New(Options{
		Outbound: f, Outbox: f, Peers: f, Features: f, Plugins: f, Overview: f, Reloader: f, Events: bus, Metrics: reg, Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{Server: s, bus: bus, socket: filepath.Join(shortDir(t), "m.sock"), served: make(chan error, 1)}
	ln, err := Listen(ListenOptions{Path: ts.socket, Locked: true})
	if err != nil {
		t.Fatal(err)
	}
	go func() { ts.served <- s.Serve(ln) }()
	ts.client = NewClient(ts.socket)
	t.Cleanup(func() {
		ts.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-ts.served; err != nil {
			t.Errorf("serve: %v", err)
		}
		bus.Close()
	})
	return ts
}

// raw sends bytes and returns the whole answer of one connection.
func (ts *testServer) raw(t *testing.T, request string) string {
	t.Helper()
	c, err := net.Dial("unix", ts.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
