package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// site is a broker in this process and a place for the daemons of its members.
type site struct {
	dir     string
	plugins string
	seed    devbroker.SeedMesh
	broker  atomic.Pointer[devbroker.Broker] // nil: nobody answers

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
	deaf  bool       // no new connections; guarded by mu
}

// newSite builds the plugins that the tests use and seeds a mesh.
func newSite(t *testing.T, members ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "mh") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, plugins: filepath.Join(dir, "plugins"), seed: devbroker.GenerateSeed("team", members...).Meshes[0]}
	t.Cleanup(func() {
		s.down(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"outbox-memory", "push-inbox", "feature-peers"} {
		s.build(t, name, "../plugins/"+name)
	}
	return s
}

func (s *site) build(t *testing.T, name, dir string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", filepath.Join(s.plugins, "meshhost-"+name), dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
}

func (s *site) up(t *testing.T) {
	t.Helper()
	b, err := devbroker.New(devbroker.Options{Seed: devbroker.Seed{Meshes: []devbroker.SeedMesh{s.seed}}})
	if err != nil {
		t.Fatal(err)
	}
	s.broker.Store(b)
}

func (s *site) down(t *testing.T) {
	t.Helper()
	if b := s.broker.Swap(nil); b != nil {
		if err := b.Abort(); err != nil {
			t.Error(err)
		}
	}
}

func (s *site) dial(ctx context.Context) (net.Conn, error) {
	b := s.broker.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if b == nil || s.deaf {
		return nil, errors.New("nobody answers")
	}
	c, err := b.Dialer()(ctx, "tcp", "broker")
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

// cut ends all connections and lets no new ones in until it is called with
// false; the broker goes on.
func (s *site) cut(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// config is mesh.hcl of a member, with further blocks.
func (s *site) config(t *testing.T, member int, blocks ...string) *config.Config {
	t.Helper()
	path, src := s.source(t, member, blocks...)
	cfg, diags := config.Parse(path, []byte(src))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// source is the text of config and where it would stand.
func (s *site) source(t *testing.T, member int, blocks ...string) (path, src string) {
	t.Helper()
	m := s.seed.Members[member]
	dir := filepath.Join(s.dir, fmt.Sprint(member))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParseSecret(m.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key")
	if _, err := os.Stat(keyFile); err != nil {
		if err := identity.WriteKeyFile(keyFile, key); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "mesh.hcl"), fmt.Sprintf(`
data_dir   = "data"
plugin_dir = %q
control { socket = "s" }
mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = %q
  member_id       = %q
  secret_key_file = "key"
  display_name    = %q
}
outbox "memory" {}
push_handler "inbox" {}
rpc_feature "peers" {}
%s
`, s.plugins, s.seed.MeshID, m.MemberID, m.DisplayName, strings.Join(blocks, "\n"))
}

// running is a daemon in this process.
type running struct {
	*Host
	end   context.CancelFunc
	ended chan error
}

// launch runs a daemon and returns when its socket is open.
func (s *site) launch(t *testing.T, cfg *config.Config) *running {
	t.Helper()
	return s.launchFrom(t, cfg, "")
}

// launchFrom is launch with a file to read again.
func (s *site) launchFrom(t *testing.T, cfg *config.Config, path string) *running {
	t.Helper()
	served := make(chan struct{})
	h, err := New(t.Context(), cfg, settings{
		logger: hclog.NewNullLogger(), dial: s.dial, served: func() { close(served) }, configPath: path,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Host: h, end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- h.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	<-served
	return r
}

// stop ends it in order; a second call does nothing.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.end == nil {
		return
	}
	r.end()
	r.end = nil
	if err := <-r.ended; err != nil {
		t.Errorf("the daemon ended with: %v", err)
	}
}

// open waits until the mesh is connected and every plugin serves.
func (r *running) open(t *testing.T) {
	t.Helper()
	eventually(t, "the daemon is connected", func() error {
		for _, u := range r.now().uses {
			if st := u.plugin.Status(); st.State != plugin.StateReady {
				return fmt.Errorf("%s is %s: %v", u.plugin.ID(), st.State, st.Err)
			}
		}
		if st := r.meshes["team"].status(); st.State != control.MeshOpen {
			return fmt.Errorf("the mesh is %s: %s", st.State, st.Detail)
		}
		return nil
	})
}

func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// seenBy is the row of a member as another daemon lists it.
func seenBy(t *testing.T, h *Host, key string) (sdk.Peer, error) {
	t.Helper()
	view, err := rooms{h}.Peers(t.Context(), "team", true)
	if err != nil {
		return sdk.Peer{}, err
	}
	for _, p := range view.Peers {
		if p.PubKey == key {
			return p, nil
		}
	}
	return sdk.Peer{}, fmt.Errorf("%d rows, none of %s", len(view.Peers), key[:8])
}

// code is what a caller may decide by.
func code(err error) (sdk.Code, string) {
	var e *sdk.Error
	if errors.As(err, &e) {
		return e.Code, e.Reason
	}
	return "", ""
}
