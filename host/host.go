package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/host/feature"
	"github.com/meshhost/meshhost/host/inbound"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/host/roster"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// closeTimeout is the one deadline for an orderly stop.
	closeTimeout = 8 * time.Second
	// requestsTimeout, wireTimeout, handlersTimeout and pluginTimeout are the
	// most of it that requests, messages on the wire, calls of push handlers and
	// one plugin may take: what hangs leaves something for the rest.
	requestsTimeout = 2 * time.Second
	wireTimeout     = 3 * time.Second
	handlersTimeout = 2 * time.Second
	pluginTimeout   = 3 * time.Second
	// settleTimeout bounds the wait for the push handlers before the connections
	// start: one that has not said what it wants would get everything.
	// othersTimeout is for the other plugins, which a mesh can do without.
	settleTimeout = 12 * time.Second
	othersTimeout = 2 * time.Second
)

// settings are what Run and the tests choose beyond mesh.hcl.
type settings struct {
	logger hclog.Logger
	// dial replaces the network to the brokers.
	dial func(context.Context) (net.Conn, error)
	// beforeServe runs after the connections have started and before the
	// socket opens; nil: the socket opens at once.
	beforeServe func(ctx context.Context, h *Host) error
	// served runs when the socket is open; may be nil.
	served func()
	// configPath is what a reload reads; empty: there is nothing to read.
	configPath string
	// hangup asks for a reload; may be nil.
	hangup <-chan os.Signal
}

// Host is one daemon. Make it with New, then Run it; Close is part of Run.
type Host struct {
	setup     atomic.Pointer[setup]
	opts      settings
	logger    hclog.Logger
	startedAt time.Time

	lock      *lock
	store     *store.Store
	bus       *event.Bus
	presences *presences
	metrics   *metrics
	runtime   string

	meshes   map[string]*mesh
	outbound *outbound.Outbound
	inbound  *inbound.Receiver
	roster   *roster.Roster
	features *feature.Registry
	server   *control.Server

	pluginsChanged chan struct{}
	pluginsCtx     context.Context // the life of all plugins
	cancelPlugins  context.CancelFunc
	// reloading is held by who changes the setup.
	reloading turn
	// life is the context of Run, nil before the socket is open.
	life atomic.Pointer[context.Context]
	// wired is closed when every room stands: plugins start before, and may ask
	// for a room as soon as they are configured.
	wired chan struct{}
}

// New takes the data directory and prepares every room; nothing runs yet but
// the plugins. On an error all is given back.
func New(ctx context.Context, cfg *config.Config, opts settings) (_ *Host, err error) {
	h := &Host{
		opts: opts, logger: opts.logger, startedAt: time.Now(), bus: event.New(),
		meshes: map[string]*mesh{}, pluginsChanged: make(chan struct{}, 1), metrics: newMetrics(), wired: make(chan struct{}), reloading: make(turn, 1),
	}
	defer func() {
		if err != nil {
			h.abandon()
		}
	}()
	if err = makeDir("data_dir", cfg.DataDir); err != nil {
		return nil, err
	}
	if h.lock, err = takeLock(cfg.DataDir, cfg.Control.Socket); err != nil {
		return nil, err
	}
	if h.runtime, err = runtimeDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if h.store, err = store.Open(ctx, cfg.DataDir, store.Options{Logger: h.logger.Named("store")}); err != nil {
		return nil, err
	}
	if h.presences, err = loadPresences(ctx, h.store); err != nil {
		return nil, err
	}
	h.startPlugins(cfg)
	for _, m := range cfg.Meshes {
		if h.meshes[m.Name], err = h.newMesh(ctx, m); err != nil {
			return nil, err
		}
	}
	if err = h.wire(ctx); err != nil {
		return nil, err
	}
	close(h.wired)
	return h, nil
}

// wire makes the rooms that stand on meshes and plugins.
func (h *Host) wire(ctx context.Context) (err error) {
	var entries []feature.Entry
	for _, kind := range []sdk.Kind{sdk.KindFeature, sdk.KindPushHandler, sdk.KindPeerFilter, sdk.KindOutbox} {
		for _, u := range h.now().of(kind) {
			entries = append(entries, feature.Entry{Name: u.cfg.Name, Plugin: blockOf(u.cfg), Source: u.plugin})
		}
	}
	h.features = feature.New(entries, h.logger.Named("feature"))
	if h.roster, err = h.newRoster(ctx); err != nil {
		return err
	}
	if h.outbound, err = h.newOutbound(); err != nil {
		return err
	}
	h.inbound, err = inbound.New(ctx, inbound.Options{
		Journal: h.store, Keys: h, Acker: h, Names: names{h}, Events: h.bus, Logger: h.logger.Named("inbound"),
		Handlers: h.handlers(),
		NeedNudge: func(mesh string, receiving keyOf) {
			if m := h.meshes[mesh]; m != nil {
				if c := m.broker.Conn(receiving); c != nil {
					c.Nudge()
				}
			}
		},
	})
	if err != nil {
		return err
	}
	h.metrics.watch(h)
	r := rooms{h}
	h.server, err = control.New(control.Options{
		Outbound: r, Outbox: r, Peers: r, Features: r, Plugins: r, Overview: r, Reloader: h, Events: h.bus,
		Metrics: h.metrics.registry, Version: Version(), Logger: h.logger.Named("control"),
	})
	return err
}

func (h *Host) newOutbound() (*outbound.Outbound, error) {
	opts := outbound.Options{
		Outboxes: map[string]outbound.Backend{}, Owner: h.store.InstallID(), Incarnation: randomID(),
		Names: targets{h}, Logger: h.logger.Named("outbound"), Publish: h.bus.Publish, Relist: h.relist,
	}
	for _, u := range h.now().of(sdk.KindOutbox) {
		opts.Outboxes[u.cfg.Name] = backendOf(u)
	}
	for _, m := range h.now().cfg.Meshes {
		opts.Meshes = append(opts.Meshes, outbound.Mesh{Name: m.Name, Key: m.Key, Link: h.meshes[m.Name], Outbox: m.Outbox})
	}
	return outbound.New(opts)
}

// backendOf is an outbox block as the way out sees it.
func backendOf(u *use) outbound.Backend {
	return outbound.Backend{Outbox: u.plugin.Outbox(), Durable: func() bool { return u.plugin.Description().Durable }}
}

// randomID is 128 random bits in hex.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: the process ends instead
	return hex.EncodeToString(b[:])
}

// abandon gives back what New took before it failed.
func (h *Host) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if h.inbound != nil {
		_ = h.inbound.Close(ctx) // nothing came in
	}
	if h.roster != nil {
		_ = h.roster.Close(ctx) // nothing was learned
	}
	h.stopPlugins(ctx)
	h.giveBack()
}

// giveBack lets go of files, last of all.
func (h *Host) giveBack() error {
	var errs []error
	h.bus.Close()
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	if h.runtime != "" {
		errs = append(errs, os.RemoveAll(h.runtime))
	}
	if h.lock != nil {
		errs = append(errs, h.lock.release())
	}
	return errors.Join(errs...)
}

// Run keeps the daemon up until ctx ends and then stops it in order. Listen
// errors end it too.
func (h *Host) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg, hangups sync.WaitGroup
	h.outbound.Start(work)
	h.features.Start(work)
	wg.Go(func() { h.followPlugins(work) })
	wg.Go(func() {
		h.awaitPlugins(work)
		for _, m := range h.meshes {
			wg.Go(func() { m.run(work) })
		}
	})
	ended, err := h.serve(ctx)
	life, endLife := context.WithCancel(ctx)
	defer endLife()
	if err == nil {
		h.life.Store(&life)
		hangups.Go(func() { h.followHangups(life) })
		select {
		case <-ctx.Done():
			h.logger.Info("stopping")
		case err = <-ended:
		}
	}
	endLife()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	errs := []error{
		err, within(stop, requestsTimeout, h.server.Shutdown), within(stop, wireTimeout, h.outbound.Close),
		within(stop, handlersTimeout, h.inbound.Close), h.roster.Close(stop),
	}
	if ended != nil {
		<-ended // its socket is gone
	}
	cancel()
	wg.Wait()
	h.features.Wait()
	h.stopPlugins(stop)
	errs = append(errs, h.endReload(stop)) // one that waited for a plugin has heard now
	hangups.Wait()
	errs = append(errs, h.giveBack())
	return errors.Join(errs...)
}

// within runs a step of the stop in a part of its time.
func within(ctx context.Context, part time.Duration, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, part)
	defer cancel()
	return step(ctx)
}

// serve opens the socket, when all that must come before it has. The channel
// has the error of the listener, if any, and is closed when it is gone.
func (h *Host) serve(ctx context.Context) (<-chan error, error) {
	if h.opts.beforeServe != nil {
		if err := h.opts.beforeServe(ctx, h); err != nil {
			return nil, err
		}
	}
	ln, err := control.Listen(control.ListenOptions{Path: h.now().cfg.Control.Socket, Locked: true})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { // ends with Shutdown; Run waits for it
		defer close(ended)
		if err := h.server.Serve(ln); err != nil {
			ended <- err
		}
	}()
	h.logger.Info("ready", "socket", h.now().cfg.Control.Socket, "after", time.Since(h.startedAt).Round(time.Millisecond).String())
	if h.opts.served != nil {
		h.opts.served()
	}
	return ended, nil
}

// runtimeDir makes an empty directory with a short path for the plugins'
// sockets. What an earlier run left there is nobody's: the lock is ours.
func runtimeDir(dataDir string) (string, error) {
	dir := filepath.Join(dataDir, "ipc")
	if len(dir) > 64 { // sockets below it must stay under 100 bytes
		tmp, err := os.MkdirTemp("", "meshhost-")
		if err != nil {
			return "", fmt.Errorf("make a runtime directory: %w", err)
		}
		return tmp, nil
	}
	if err := makeDir("runtime directory", dir); err != nil {
		return "", err
	}
	if err := plugin.ClearRuntimeDir(dir); err != nil {
		return "", fmt.Errorf("clear the runtime directory: %w", err)
	}
	return dir, nil
}

// meshNames are the meshes in the order of mesh.hcl.
func (h *Host) meshNames() []string {
	out := make([]string, len(h.now().cfg.Meshes))
	for i, m := range h.now().cfg.Meshes {
		out[i] = m.Name
	}
	return out
}
