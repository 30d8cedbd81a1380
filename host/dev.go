package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// devConfig is mesh.hcl of `meshhost -dev`.
const devConfig = `
data_dir = %q
mesh "dev" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = %q
  member_id       = %q
  secret_key_file = %q
  display_name    = "you"
}
outbox "sqlite" {}
push_handler "inbox" {}
peer_filter "role" {}
rpc_feature "state" {}
rpc_feature "peers" {}
log { level = "warn" }
`

// devWords tell what to type; the socket is added where it is not the default.
const devWords = `
meshhost is up: a mesh of its own, with a peer that echoes.
The broker is in this process and everything is kept in %[1]s until you stop it.

In another terminal:

  %[2]s send echo "hello" -wait delivered
  %[2]s inbox
  %[2]s peer list
  %[2]s peer list -all
  %[2]s state set color '"green"'
  %[2]s state get color
  %[2]s status

Stop with Ctrl-C.
`

// listedTimeout bounds the wait for the peers of -dev.
const listedTimeout = 15 * time.Second

// runDev runs a broker, an echo peer and a daemon in this process, in a
// directory that goes with it.
func runDev(ctx context.Context, opts Options) (err error) {
	dir, err := os.MkdirTemp("", "meshhost-dev-")
	if err != nil {
		return fmt.Errorf("make a directory for -dev: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	seed := devbroker.GenerateSeed("dev", "you", "echo")
	cfg, err := loadDev(dir, seed.Meshes[0])
	if err != nil {
		return err
	}
	logger := newLogger(cfg.Log, opts.Stderr)
	b, err := devbroker.New(devbroker.Options{Seed: seed, Logger: logger.Named("broker")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	dialer := b.Dialer()
	dial := func(ctx context.Context) (net.Conn, error) { return dialer(ctx, "tcp", "127.0.0.1:7900") }

	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	if err := startEcho(life, &wg, seed.Meshes[0], dial, logger.Named("echo")); err != nil {
		return err
	}
	h, err := New(ctx, cfg, settings{
		logger: logger, dial: dial,
		beforeServe: func(ctx context.Context, h *Host) error { return awaitListed(ctx, h, "dev") },
		served:      func() { sayDev(opts.Stderr, dir) },
	})
	if err != nil {
		return explain(err)
	}
	if err = h.Run(ctx); errors.Is(err, control.ErrInUse) {
		return fmt.Errorf("%s: %w; stop it, or set XDG_RUNTIME_DIR to another directory, for this daemon and for the verbs", cfg.Control.Socket, control.ErrInUse)
	}
	return err
}

// loadDev writes the member's key and reads devConfig.
func loadDev(dir string, mesh devbroker.SeedMesh) (*config.Config, error) {
	you := mesh.Members[0]
	key, err := identity.ParseSecret(you.SecretKey)
	if err != nil {
		return nil, fmt.Errorf("key of the dev mesh: %w", err)
	}
	keyFile := filepath.Join(dir, "you.key")
	if err := identity.WriteKeyFile(keyFile, key); err != nil {
		return nil, err
	}
	src := fmt.Sprintf(devConfig, filepath.Join(dir, "data"), mesh.MeshID, you.MemberID, keyFile)
	cfg, diags := config.Parse(filepath.Join(dir, "dev.hcl"), []byte(src))
	if diags.HasErrors() {
		return nil, &ConfigError{diags}
	}
	return cfg, nil
}

// awaitListed returns once the mesh lists a session and a control-plane row
// that are not ours.
func awaitListed(ctx context.Context, h *Host, mesh string) error {
	ctx, cancel := context.WithTimeout(ctx, listedTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	own := h.meshes[mesh].cfg.Key.Public().String()
	for {
		session, control := false, false
		rows, err := h.roster.Refresh(ctx, mesh)
		for i := range rows {
			session = session || rows[i].Role == sdk.RoleSession
			control = control || rows[i].Role == sdk.RoleControlPlane && rows[i].PubKey != own
		}
		if session && control {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the peers of -dev did not appear: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func sayDev(w io.Writer, dir string) {
	self, err := os.Executable()
	if err != nil {
		self = "meshhost"
	} else if rel, err := filepath.Rel(workingDir(), self); err == nil && len(rel) < len(self) {
		self = rel
	}
	fmt.Fprintf(w, devWords, dir, self)
}

func workingDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
