package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
		cmd := exec.Command("go", "build", "-o", filepath.Join(s.plugins, "meshhost-"+name), "../plugins/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return s
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

// config is mesh.hcl of a member.
func (s *site) config(t *testing.T, member int) *config.Config {
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
	cfg, diags := config.Parse(filepath.Join(dir, "mesh.hcl"), fmt.Appendf(nil, `
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
`, s.plugins, s.seed.MeshID, m.MemberID, m.DisplayName))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	return cfg
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
	served := make(chan struct{})
	h, err := New(t.Context(), cfg, settings{logger: hclog.NewNullLogger(), dial: s.dial, served: func() { close(served) }})
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
		for _, u := range r.uses {
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

func TestADaemonOverItsBroker(t *testing.T) {
	s := newSite(t, "a", "b", "twin", "twin")
	s.up(t)
	a, b := s.launch(t, s.config(t, 0)), s.launch(t, s.config(t, 1))
	a.open(t)
	b.open(t)
	t.Run("plugins ask the mesh", func(t *testing.T) { askMesh(t, s, a) })
	t.Run("plugins send", func(t *testing.T) { sendAsPlugin(t, s, a, b) })
	t.Run("plugins keep things and tell things", func(t *testing.T) { keepAndTell(t, a) })
	t.Run("wishes outlive connections", func(t *testing.T) { presenceOverBrokers(t, s, a, b) })
}

func askMesh(t *testing.T, s *site, a *running) {
	svc, caller := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "state"}
	if err := svc.Notify(t.Context(), caller, sdk.FrameRequest{Mesh: "team", Frame: jsontext.Value(`{"type":"set_state","key":"k","value":[1]}`)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the state is there", func() error {
		reply, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"get_state","key":"k"}`)})
		if err != nil || !strings.Contains(string(reply), `"value":[1]`) {
			return fmt.Errorf("%s, %w", reply, err)
		}
		return nil
	})
	me := s.seed.Members[0].PublicKey
	if _, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Identity: me, Frame: jsontext.Value(`{"type":"list_state"}`)}); err != nil {
		t.Errorf("as the member: %v", err)
	}
	for _, c := range []struct {
		req    sdk.FrameRequest
		reason string
	}{
		{sdk.FrameRequest{Mesh: "other"}, "mesh_not_attached"},
		{sdk.FrameRequest{Identity: "short"}, "bad_identity"},
		{sdk.FrameRequest{Identity: s.seed.Members[1].PublicKey}, "no_identity"},
	} {
		c.req.Frame = jsontext.Value(`{"type":"list_state"}`)
		if _, err := svc.Request(t.Context(), caller, c.req); err == nil {
			t.Errorf("%+v: no error", c.req)
		} else if _, reason := code(err); reason != c.reason {
			t.Errorf("%+v: %v", c.req, err)
		}
		if err := svc.Notify(t.Context(), caller, c.req); err == nil {
			t.Errorf("notify %+v: no error", c.req)
		}
	}
	view, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{})
	if err != nil || len(view.Peers) == 0 {
		t.Errorf("peers: %+v, %v", view, err)
	}
	if _, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{Mesh: "other"}); err == nil {
		t.Error("peers of a mesh that is not there: no error")
	}
}

func sendAsPlugin(t *testing.T, s *site, a, b *running) {
	svc, caller := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "x"}
	req := sdk.SendRequest{To: s.seed.Members[1].PublicKey, Message: "from a plugin", Priority: "now", ClientMessageID: "once"}
	rep, err := svc.Send(t.Context(), caller, req)
	if err != nil || rep.ClientMessageID != "once" || rep.Durable {
		t.Fatalf("%+v, %v", rep, err)
	}
	eventually(t, "b has it", func() error {
		raw, err := rooms{b.Host}.Call(t.Context(), "inbox", sdk.Call{Method: "list"})
		if err != nil || strings.Count(string(raw), "from a plugin") != 1 {
			return fmt.Errorf("%s, %w", raw, err)
		}
		return nil
	})
	req.Message = "something else"
	if _, err := svc.Send(t.Context(), caller, req); err == nil {
		t.Error("one id for two messages: no error")
	} else if c, _ := code(err); c != sdk.CodeConflict {
		t.Errorf("one id for two messages: %v", err)
	}
	for to, want := range map[string]string{s.seed.Members[0].PublicKey: "own_key", "nobody": "peer_not_found"} {
		_, err := svc.Send(t.Context(), caller, sdk.SendRequest{To: to, Message: "m"})
		if _, reason := code(err); reason != want {
			t.Errorf("to %s: %v", to, err)
		}
	}
	// Two members of one name: a plugin learns that it has to choose.
	for _, member := range []int{2, 3} {
		twin := s.launch(t, s.config(t, member))
		twin.open(t)
		defer twin.stop(t)
	}
	eventually(t, "both twins are listed", func() error {
		for _, member := range []int{2, 3} {
			if _, err := seenBy(t, a.Host, s.seed.Members[member].PublicKey); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = svc.Send(t.Context(), caller, sdk.SendRequest{To: "twin", Message: "m"})
	if c, reason := code(err); c != sdk.CodeConflict || reason != "ambiguous_target" {
		t.Errorf("to one of two: %v", err)
	}
}

func keepAndTell(t *testing.T, a *running) {
	svc := services{a.Host}
	mine, other := plugin.Caller{Kind: sdk.KindFeature, Name: "x"}, plugin.Caller{Kind: sdk.KindPushHandler, Name: "x"}
	if err := svc.StorePut(t.Context(), mine, "key/1", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := svc.StoreGet(t.Context(), mine, "key/1"); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := svc.StoreGet(t.Context(), other, "key/1"); err == nil {
		t.Errorf("another plugin of that name reads %q", v)
	}
	if keys, err := svc.StoreList(t.Context(), mine, "key/"); err != nil || len(keys) != 1 || keys[0] != "key/1" {
		t.Errorf("%v, %v", keys, err)
	}
	if err := svc.StoreDelete(t.Context(), mine, "key/1"); err != nil {
		t.Error(err)
	}
	if keys, err := svc.StoreList(t.Context(), mine, ""); err != nil || len(keys) != 0 {
		t.Errorf("after the delete: %v, %v", keys, err)
	}
	sub := a.bus.Subscribe(64)
	defer sub.Close()
	if err := svc.Emit(t.Context(), mine, "happened", jsontext.Value(`{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	if ev := <-sub.C; ev.Kind != "x.happened" || string(ev.Data) != `{"n":1}` {
		t.Errorf("the event is %s %s", ev.Kind, ev.Data)
	}
}

// presenceOverBrokers: what is set while nobody listens is told when somebody
// does, and again to a broker that forgot.
func presenceOverBrokers(t *testing.T, s *site, a, b *running) {
	svc, caller, me := services{a.Host}, plugin.Caller{Kind: sdk.KindFeature, Name: "peers"}, s.seed.Members[0].PublicKey
	notify := func(frame string) {
		t.Helper()
		if err := svc.Notify(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(frame)}); err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
	}
	is := func(what, summary, group string) {
		t.Helper()
		eventually(t, what, func() error {
			p, err := seenBy(t, b.Host, me)
			if err != nil {
				return err
			}
			if p.Summary != summary || len(p.Groups) != 1 || p.Groups[0].Name != group {
				return fmt.Errorf("summary %q, groups %v", p.Summary, p.Groups)
			}
			return nil
		})
	}
	notify(`{"type":"set_summary","summary":"online"}`)
	notify(`{"type":"join_group","name":"first"}`)
	is("set while connected", "online", "first")

	s.down(t)
	eventually(t, "a noticed", func() error {
		if a.meshes["team"].Ready() {
			return errors.New("it is connected")
		}
		return nil
	})
	notify(`{"type":"set_summary","summary":"offline"}`)
	notify(`{"type":"leave_group","name":"first"}`)
	notify(`{"type":"join_group","name":"second"}`)
	reply, err := svc.Request(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"set_visible","visible":true}`)})
	if err != nil || !strings.Contains(string(reply), "deferred") {
		t.Errorf("a wish with a reply: %s, %v", reply, err)
	}
	err = svc.Notify(t.Context(), caller, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"set_state","key":"k","value":1}`)})
	if c, reason := code(err); c != sdk.CodeUnavailable || reason != "mesh_not_connected" {
		t.Errorf("another frame while nobody listens: %v", err)
	}
	if _, err := svc.Peers(t.Context(), caller, sdk.PeersRequest{}); err == nil {
		t.Error("peers while nobody listens: no error")
	}
	s.up(t)
	is("set while disconnected", "offline", "second")

	s.cut(true)
	eventually(t, "a noticed the cut", func() error {
		if a.meshes["team"].Ready() {
			return errors.New("it is connected")
		}
		return nil
	})
	notify(`{"type":"set_summary","summary":"in the grace"}`)
	notify(`{"type":"leave_group","name":"second"}`)
	notify(`{"type":"join_group","name":"third"}`)
	s.cut(false)
	is("told to a presence that was found again", "in the grace", "third")
	notify(`{"type":"set_summary","summary":"offline"}`)
	notify(`{"type":"leave_group","name":"third"}`)
	notify(`{"type":"join_group","name":"second"}`)
	s.down(t)
	s.up(t)
	is("told to a broker that knows nothing", "offline", "second")
}

func TestARejectedMemberIsSaidToBeOne(t *testing.T) {
	s := newSite(t, "a", "b")
	s.seed.Members[0].Revoked = true
	s.up(t)
	a := s.launch(t, s.config(t, 0))
	eventually(t, "the mesh is rejected", func() error {
		st, err := rooms{a.Host}.Status(t.Context())
		if err != nil {
			return err
		}
		if m := st.Meshes[0]; m.State != control.MeshRejected || m.Detail == "" {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	_, err := services{a.Host}.Request(t.Context(), plugin.Caller{}, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"list_state"}`)})
	if c, reason := code(err); c != sdk.CodePermission || reason != "identity_rejected" {
		t.Errorf("request: %v", err)
	}
	if _, err = (rooms{a.Host}).Peers(t.Context(), "", false); err == nil {
		t.Error("peers: no error")
	} else if _, reason := code(err); reason != "identity_rejected" {
		t.Errorf("peers: %v", err)
	}
}

// A plugin that can't start leaves the rest working, and the status says which
// it is.
func TestADaemonRunsWithoutABrokenPlugin(t *testing.T) {
	s := newSite(t, "a", "b")
	s.up(t)
	cfg := s.config(t, 0)
	for _, u := range cfg.Of(sdk.KindFeature) {
		u.Process.SHA256 = strings.Repeat("0", 64)
	}
	a := s.launch(t, cfg)
	eventually(t, "the mesh is open all the same", func() error {
		if st := a.meshes["team"].status(); st.State != control.MeshOpen {
			return fmt.Errorf("it is %s", st.State)
		}
		return nil
	})
	st, err := rooms{a.Host}.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	warned := strings.Join(st.Warnings, "\n")
	if !strings.Contains(warned, "rpc_feature(peers) is out of service") || !strings.Contains(warned, "outbox(memory) is not durable") {
		t.Errorf("warnings %q", st.Warnings)
	}
	for _, p := range st.Plugins {
		broken := p.Name == "peers"
		if broken != (p.State == string(plugin.StateQuarantined)) || broken != (p.LastError != "") {
			t.Errorf("%s is %s: %s", p.Name, p.State, p.LastError)
		}
	}
	if _, err := (rooms{a.Host}).Call(t.Context(), "peers", sdk.Call{Method: "summary"}); err == nil {
		t.Error("a method of the broken plugin: no error")
	} else if c, _ := code(err); c != sdk.CodeUnavailable {
		t.Errorf("a method of the broken plugin: %v", err)
	}
}

// Whatever fails on the way up, everything is given back.
func TestAFailedStartLeavesNothing(t *testing.T) {
	s := newSite(t, "a")
	free := func(t *testing.T, cfg *config.Config) {
		t.Helper()
		l, err := takeLock(cfg.DataDir, "s")
		if err != nil {
			t.Fatalf("the data directory: %v", err)
		}
		if err := l.release(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "ipc")); !os.IsNotExist(err) {
			t.Errorf("the runtime directory is there: %v", err)
		}
	}
	opts := settings{logger: hclog.NewNullLogger(), dial: s.dial}
	t.Run("behind the plugins", func(t *testing.T) {
		cfg := s.config(t, 0)
		cfg.Meshes[0].BrokerURL = "nonsense://"
		if h, err := New(t.Context(), cfg, opts); err == nil || h != nil || !strings.Contains(err.Error(), "team") {
			t.Errorf("%v, %v", h, err)
		}
		free(t, cfg)
	})
	t.Run("at the store", func(t *testing.T) {
		cfg := s.config(t, 0)
		path := filepath.Join(cfg.DataDir, "host.db")
		if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 500), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), cfg, opts); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
		free(t, cfg)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("at the socket", func(t *testing.T) {
		cfg := s.config(t, 0)
		ln, err := net.Listen("unix", cfg.Control.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		h, err := New(t.Context(), cfg, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Run(t.Context()); !errors.Is(err, control.ErrInUse) {
			t.Errorf("%v", err)
		}
		free(t, cfg)
		if _, err := os.Stat(cfg.Control.Socket); err != nil {
			t.Errorf("the other's socket: %v", err)
		}
	})
	t.Run("stopped before it was up", func(t *testing.T) {
		cfg := s.config(t, 0)
		h, err := New(t.Context(), cfg, opts)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Run(ctx); err != nil {
			t.Errorf("%v", err)
		}
		free(t, cfg)
		if _, err := os.Stat(cfg.Control.Socket); !os.IsNotExist(err) {
			t.Errorf("the socket: %v", err)
		}
	})
}

// Plugins start before the rooms stand; what they ask then waits.
func TestAPluginThatAsksTooEarlyWaits(t *testing.T) {
	svc := services{&Host{wired: make(chan struct{})}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	frame := sdk.FrameRequest{Frame: jsontext.Value(`{"type":"list_state"}`)}
	for name, ask := range map[string]func() error{
		"request": func() error { _, err := svc.Request(ctx, plugin.Caller{}, frame); return err },
		"notify":  func() error { return svc.Notify(ctx, plugin.Caller{}, frame) },
		"send":    func() error { _, err := svc.Send(ctx, plugin.Caller{}, sdk.SendRequest{}); return err },
		"peers":   func() error { _, err := svc.Peers(ctx, plugin.Caller{}, sdk.PeersRequest{}); return err },
	} {
		if c, reason := code(ask()); c != sdk.CodeUnavailable || reason != "starting" {
			t.Errorf("%s: %s %s", name, c, reason)
		}
	}
	close(svc.h.wired)
	if err := svc.await(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheLogBlockDecidesWhatALineIs(t *testing.T) {
	for _, c := range []struct {
		log         config.Log
		json, debug bool
	}{
		{config.Log{Level: "info", Format: "auto"}, true, false}, // a buffer is no terminal
		{config.Log{Level: "debug", Format: "json"}, true, true},
		{config.Log{Level: "debug", Format: "text"}, false, true},
		{config.Log{Level: "error", Format: "text"}, false, false},
	} {
		var out bytes.Buffer
		l := newLogger(c.log, &out)
		l.Debug("quiet words")
		l.Error("loud words", "key", "value")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		last := lines[len(lines)-1]
		if jsontext.Value(last).IsValid() != c.json || !strings.Contains(last, "loud words") || strings.Contains(out.String(), "quiet words") != c.debug {
			t.Errorf("%+v:\n%s", c.log, out.String())
		}
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is a terminal")
	}
}

// What stands in a block reaches the process that it is about.
func TestASpecSaysWhatItsBlocksSay(t *testing.T) {
	s := newSite(t, "a")
	s.config(t, 0) // its key file
	m := s.seed.Members[0]
	sum := strings.Repeat("5a", 32)
	cfg, diags := config.Parse(filepath.Join(s.dir, "0", "mesh.hcl"), fmt.Appendf(nil, `
data_dir   = "data"
plugin_dir = %q
control { socket = "s" }
mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = %q
  member_id       = %q
  secret_key_file = "key"
}
outbox "memory" {}
push_handler "inbox" {}
rpc_feature "peers" {
  name   = "mine"
  plugin = "p"
  allow  = ["send", "vault_get"]
}
plugin "p" {
  sha256 = %q
  args   = ["x", "-y"]
  env    = { K = "v" }
  timeouts {
    start = "3s"
    call  = "4s"
  }
  restart {
    initial = "100ms"
    max     = "5s"
    crashes = 7
    window  = "2m"
  }
}
`, s.plugins, s.seed.MeshID, m.MemberID, sum))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	got := specOf(cfg.Of(sdk.KindFeature)[0])
	if got.Kind != sdk.KindFeature || got.Name != "mine" || got.SHA256 != sum || !slices.Equal(got.Args, []string{"x", "-y"}) ||
		!maps.Equal(got.Env, map[string]string{"K": "v"}) || !slices.Equal(got.Allow, []string{"send", "vault_get"}) ||
		got.StartTimeout != 3*time.Second || got.CallTimeout[plugin.MethodCall] != 4*time.Second ||
		got.Restart != (plugin.Restart{Initial: 100 * time.Millisecond, Max: 5 * time.Second, Crashes: 7, Window: 2 * time.Minute}) ||
		got.Path != filepath.Join(s.plugins, "meshhost-feature-peers") {
		t.Errorf("%+v", got)
	}
	if plain := specOf(cfg.Of(sdk.KindOutbox)[0]); plain.CallTimeout != nil || plain.SHA256 != "" || len(plain.Allow) != 0 || plain.Restart.Crashes != 5 {
		t.Errorf("without a plugin block: %+v", plain)
	}
}
