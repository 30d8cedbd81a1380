package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

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

// A feature knows the connections that are up, whichever came first, it or they.
func TestAFeatureThatComesBackHearsOfTheConnections(t *testing.T) {
	s := newSite(t, "a")
	s.build(t, "feature-witness", "./testdata/feature-witness")
	s.up(t)
	a := s.launch(t, s.config(t, 0, `rpc_feature "witness" {}`))
	a.open(t)
	presence := a.meshes["team"].broker.Member().State().PresenceID()
	heard := func() error {
		raw, err := rooms{a.Host}.Call(t.Context(), "witness", sdk.Call{Method: "list"})
		if err != nil || !strings.Contains(string(raw), presence) {
			return fmt.Errorf("no %s in %s, %w", presence, raw, err)
		}
		return nil
	}
	witness := a.now().use("rpc_feature.witness").plugin
	first := witness.Status().Pid
	eventually(t, "the first process heard of it", heard)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := 0
	eventually(t, "there is a second process", func() error {
		st := witness.Status()
		if second = st.Pid; st.State != plugin.StateReady || second == first {
			return fmt.Errorf("%s, pid %d", st.State, st.Pid)
		}
		return nil
	})
	eventually(t, "the second process heard of it too", heard)
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
		for _, name := range []string{path, path + "-mark"} { // the mark tells of the store that was there
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
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

// Promise 9: a handler that hangs in a call takes its part of the one deadline, not the rest of it from those behind.
func TestAHandlerThatHangsLeavesTimeForTheRestOfTheStop(t *testing.T) {
	s := newSite(t, "a", "b")
	s.up(t)
	a, b := s.launch(t, s.config(t, 0)), s.launch(t, s.config(t, 1))
	a.open(t)
	b.open(t)
	for _, u := range b.now().uses {
		if u.cfg.Kind == sdk.KindPushHandler {
			if err := unix.Kill(u.plugin.Status().Pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := services{a.Host}.Send(t.Context(), plugin.Caller{}, sdk.SendRequest{To: s.seed.Members[1].PublicKey, Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has it in its journal", func() error {
		if st := b.inbound.Stats(); st.Waiting["inbox"] != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	begun := time.Now()
	b.end()
	b.end = nil
	err = <-b.ended
	if took := time.Since(begun); took > closeTimeout-time.Second {
		t.Errorf("the stop took %s of %s", took, closeTimeout)
	}
	if err == nil || !strings.Contains(err.Error(), "inbound") || strings.Contains(err.Error(), "roster") {
		t.Errorf("it ended with: %v", err)
	}
	again := s.launch(t, s.config(t, 1))
	eventually(t, "the inbox has it after the restart", func() error {
		raw, err := rooms{again.Host}.Call(t.Context(), "inbox", sdk.Call{Method: "list"})
		if err != nil || strings.Count(string(raw), `"body":"m"`) != 1 {
			return fmt.Errorf("%s, %w", raw, err)
		}
		return nil
	})
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

func TestWhatAPluginRefusesIsLedToItsLineWithoutSecrets(t *testing.T) {
	s := newSite(t, "a")
	s.config(t, 0) // its key file
	m := s.seed.Members[0]
	cfg, diags := config.Parse(filepath.Join(s.dir, "0", "mesh.hcl"), fmt.Appendf(nil, `plugin_dir = %q
data_dir = "data"
control { socket = "s" }
mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = %q
  member_id       = %q
  secret_key_file = "key"
}
outbox "memory" {}
push_handler "inbox" {
  config {
    token = "hunter2-hunter2"
  }
}
`, s.plugins, s.seed.MeshID, m.MemberID))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	schema := sdk.Schema{Attributes: []sdk.Attribute{{Name: "token", Type: sdk.Type{Name: sdk.TypeSecret}}}}
	got := specOf(cfg.Of(sdk.KindPushHandler)[0]).Explain(sdk.Description{Schema: schema}, sdk.Diagnostics{
		sdk.Invalid([]string{"token"}, "hunter2-hunter2 is no token", "Not hunter2-hunter2."),
		{Severity: sdk.SeverityWarning, Summary: "slow"},
	})
	if len(got) != 2 || !got.HasErrors() || strings.Contains(got.Error(), "hunter2") {
		t.Fatalf("%+v", got)
	}
	for i, want := range []string{"mesh.hcl:12:3: slow", "mesh.hcl:13:13: *** is no token Not ***."} {
		if !strings.Contains(got[i].Error(), want) {
			t.Errorf("%q, want %q", got[i].Error(), want)
		}
	}
}
