package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

const (
	// killGrace is what a plugin that was asked to go gets before SIGKILL.
	killGrace = 2 * time.Second
	// reapTimeout bounds the wait for a process that SIGKILL did not end: one
	// that hangs in the kernel must not hang us.
	reapTimeout = 5 * time.Second
)

// run is one incarnation: a process, its client, its host services and its
// runtime directory.
type run struct {
	spec    *Spec
	log     hclog.Logger
	dir     string
	proc    *process
	lib     *goplugin.Client
	client  *bridge.Client
	offers  calls
	desc    sdk.Description
	host    *hostServer
	endOnce sync.Once
}

var _ incarnation = (*run)(nil)

// launchProcess starts a process for s and takes it to the point where it can be
// called. On an error nothing is left of it.
func launchProcess(ctx context.Context, s *Spec) (incarnation, error) {
	r, err := connect(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := r.setUp(ctx); err != nil {
		r.discard()
		return nil, err
	}
	return r, nil
}

// setUp gives the process its directory, its services and its values.
func (r *run) setUp(ctx context.Context) error {
	if err := ensureDir(r.spec.DataDir); err != nil {
		return permanent(fmt.Errorf("%s: data directory: %w", r.spec.id(), err))
	}
	host, err := startHostServer(r.dir, newGranted(r.spec, r.desc), r.log)
	if err != nil {
		return fmt.Errorf("%s: %w", r.spec.id(), err)
	}
	r.host = host
	return r.configure(ctx, r.spec)
}

// connect starts a process and has it describe itself.
func connect(ctx context.Context, s *Spec) (*run, error) {
	if err := s.Check(); err != nil {
		return nil, permanent(err)
	}
	if err := verifyBinary(ctx, s); err != nil {
		return nil, err
	}
	dir, err := runtimeDir(s.RuntimeDir)
	if err != nil {
		return nil, fmt.Errorf("%s: runtime directory: %w", s.id(), err)
	}
	r := &run{spec: s, dir: dir, log: s.Logger.Named(s.id())}
	// One time for everything up to the description: a plugin that freezes in
	// any step is killed.
	sctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	defer cancel()
	if err := r.handshake(sctx); err != nil {
		r.discard()
		return nil, err
	}
	if err := r.describe(sctx); err != nil {
		r.discard()
		return nil, err
	}
	r.proc.disarm()
	return r, nil
}

// handshake starts the process by go-plugin and connects to it. Everything that
// go-plugin uses once only is made here.
func (r *run) handshake(ctx context.Context) error {
	s := r.spec
	stderr := newLineWriter(r.log, stderrLog(r.log))
	stdout := newLineWriter(r.log, stdoutLog(r.log))
	r.lib = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  bridge.Handshake(),
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: bridge.Plugins()},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			r.proc = newProcess(ctx, s, cmd.Env, r.dir, stdout, stderr)
			return r.proc, nil
		},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		StartTimeout:     s.StartTimeout + time.Second, // ctx ends first and says what was late
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: r.dir},
		SyncStdout:       stdout,
		SyncStderr:       stderr,
		Logger:           newLibraryLogger(),
		GRPCDialOptions:  bridge.DialOptions(),
	})
	// go-plugin takes no context here; the end of ctx kills the process, which
	// ends its waiting.
	conn, err := r.lib.Client()
	if err != nil {
		return r.startFailed(ctx, err)
	}
	raw, err := conn.Dispense(bridge.PluginSet)
	if err != nil {
		return fmt.Errorf("%s: %w", s.id(), err)
	}
	client, ok := raw.(*bridge.Client)
	if !ok {
		return fmt.Errorf("%s: go-plugin dispensed a %T", s.id(), raw)
	}
	r.client = client
	return nil
}

// startFailed says why there is no connection, in our words.
func (r *run) startFailed(ctx context.Context, err error) error {
	id := r.spec.id()
	if r.proc == nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	if problem := r.proc.hello.wrong(); problem != nil {
		return permanent(fmt.Errorf("%s: %w", id, problem))
	}
	if r.proc.pid() == 0 {
		err = fmt.Errorf("%s: %w", id, err)
		if errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.EACCES) {
			return permanent(fmt.Errorf("%w; is it built for this machine?", err))
		}
		return err
	}
	if ctx.Err() != nil {
		return r.late(ctx, "handshake")
	}
	return fmt.Errorf("%s: ended before the handshake: %s (is it a meshhost plugin?)", id, r.ending())
}

// late says that a step of the start took too long, or was given up.
func (r *run) late(ctx context.Context, step string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: no %s within %s: %w", r.spec.id(), step, r.spec.StartTimeout, context.DeadlineExceeded)
	}
	return fmt.Errorf("%s: start given up: %w", r.spec.id(), ctx.Err())
}

// ending kills what may be left of the process and reports how it ended.
func (r *run) ending() string {
	select {
	case <-r.proc.gone:
	case <-time.After(pipeGrace): // it was about to end by itself, or not
		r.proc.kill()
		r.awaitGone()
	}
	return r.proc.report()
}

// describe asks the process what it is and refuses what does not fit.
func (r *run) describe(ctx context.Context) error {
	id := r.spec.id()
	dctx, cancel := context.WithTimeout(ctx, r.spec.timeout(MethodDescribe))
	defer cancel()
	d, err := r.client.Describe(dctx)
	var e *sdk.Error
	var wrong *bridge.Fault
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return r.late(ctx, "description")
	case errors.As(err, &wrong): // it would say the same again
		return permanent(fmt.Errorf("%s: %w; report it to the plugin's author", id, err))
	case errors.As(err, &e) && e.Reason == "unimplemented":
		return permanent(fmt.Errorf("%s: %s is a go-plugin process, but no meshhost plugin", id, r.spec.Path))
	default:
		return r.explain("describe", err)
	}
	r.desc = d
	switch {
	case d.Protocol != sdk.ProtocolVersion:
		return permanent(fmt.Errorf("%s: it speaks plugin protocol %d, this host speaks %d; rebuild it with a current sdk", id, d.Protocol, sdk.ProtocolVersion))
	case len(d.Kinds) == 0:
		return permanent(fmt.Errorf("%s: it describes no kind", id))
	case r.spec.Kind != "" && !d.Has(r.spec.Kind):
		return permanent(fmt.Errorf("%s: %s is no %s but %v; use a block of that kind", id, r.spec.Path, r.spec.Kind, d.Kinds))
	}
	if d.Has(sdk.KindOutbox) {
		r.offers.outbox = r.client.Outbox()
	}
	if d.Has(sdk.KindPushHandler) {
		r.offers.push = r.client.PushHandler()
	}
	if d.Has(sdk.KindPeerFilter) {
		r.offers.filter = r.client.PeerFilter()
	}
	if d.Has(sdk.KindFeature) {
		r.offers.feature = r.client.Feature()
	}
	return nil
}

// explain adds the process's end to an error that it caused.
func (r *run) explain(step string, err error) error {
	if broken(err) {
		return fmt.Errorf("%s: %s: ended: %s", r.spec.id(), step, r.ending())
	}
	return fmt.Errorf("%s: %s: %w", r.spec.id(), step, err)
}

// values are what Configure and Validate take, decoded by the plugin's schema.
func (r *run) values(ctx context.Context, s *Spec) (jsontext.Value, error) {
	if s.Config == nil {
		return jsontext.Value("{}"), nil
	}
	v, err := s.Config(ctx, r.desc)
	if err != nil {
		return nil, permanent(&ConfigError{Plugin: s.id(), Err: err})
	}
	return v, nil
}

// said is what a plugin that can't be configured now says, fit to be shown: led
// to its block and without secrets. The code stays.
func (s *Spec) said(desc sdk.Description, err error) error {
	var e *sdk.Error
	if s.Explain == nil || !errors.As(err, &e) {
		return err
	}
	shown := *e
	for _, d := range s.Explain(desc, sdk.Diagnostics{{Severity: sdk.SeverityError, Summary: e.Error(), Detail: e.Next}}) {
		shown.Message, shown.Next = d.Summary, d.Detail
	}
	return &shown
}

func (r *run) configure(ctx context.Context, s *Spec) error {
	v, err := r.values(ctx, s)
	if err != nil {
		return err
	}
	cctx, cancel := context.WithTimeout(ctx, s.timeout(MethodConfigure))
	defer cancel()
	diags, err := r.client.Configure(cctx, bridge.ConfigureRequest{
		Config: v, Name: s.Name, DataDir: s.DataDir,
		HostAddress: r.host.address, HostToken: r.host.token,
	})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return r.late(ctx, "configuration")
	default:
		return r.explain("configure", s.said(r.desc, err))
	}
	if s.Explain != nil && len(diags) > 0 {
		diags = s.Explain(r.desc, diags)
	}
	for _, d := range diags {
		if d.Severity == sdk.SeverityWarning {
			r.log.Warn("configuration: "+d.Summary, "detail", d.Detail, "path", d.Path)
		}
	}
	if diags.HasErrors() {
		return permanent(&ConfigError{Plugin: s.id(), Diagnostics: diags})
	}
	return nil
}

func (r *run) calls() *calls                { return &r.offers }
func (r *run) description() sdk.Description { return r.desc }
func (r *run) pid() int                     { return r.proc.pid() }
func (r *run) startedAt() time.Time         { return r.proc.started }
func (r *run) exited() <-chan struct{}      { return r.proc.gone }
func (r *run) report() string               { return r.proc.report() }
func (r *run) kill()                        { r.proc.kill() }

func (r *run) health(ctx context.Context) error { return r.client.Health(ctx) }
func (r *run) drain(ctx context.Context) error  { return r.client.Drain(ctx) }

// end asks the process to go and waits; then it kills it and clears up. What
// go-plugin calls Kill blocks for ever on a frozen process, so it runs beside a
// deadline, and the process's death frees it.
func (r *run) end(ctx context.Context) {
	r.endOnce.Do(func() {
		asked := !errors.Is(ctx.Err(), context.Canceled) // not by discard
		killed := make(chan struct{})
		go func() { defer close(killed); r.lib.Kill() }()
		grace := time.NewTimer(killGrace)
		defer grace.Stop()
		select {
		case <-killed:
		case <-grace.C:
		case <-ctx.Done():
		}
		if r.proc != nil {
			r.proc.kill()
			r.awaitGone()
		}
		select {
		case <-killed:
		case <-time.After(reapTimeout): // only if awaitGone gave up
		}
		if asked && !r.proc.orderly() {
			r.log.Warn("plugin did not end in order", "report", r.proc.report())
		}
		if r.host != nil {
			r.host.stop()
		}
		if err := os.RemoveAll(r.dir); err != nil {
			r.log.Warn("runtime directory not removed", "error", err)
		}
	})
}

// discard ends the process without asking.
func (r *run) discard() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.end(ctx)
}

// awaitGone waits for a process that was killed.
func (r *run) awaitGone() {
	if r.proc.pid() == 0 {
		return
	}
	select {
	case <-r.proc.gone:
	case <-time.After(reapTimeout):
		r.log.Error("the process does not end; it hangs in the kernel", "pid", r.proc.pid())
	}
}
