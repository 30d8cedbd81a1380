package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// modeEnv makes this test binary a plugin, or a host, of some mode.
const modeEnv = "MESHHOST_TEST_MODE"

// modes are the programs that the tests start, all of them this binary.
var modes = map[string]func(){
	"good":     func() { sdk.Serve(testPlugin()) },
	"outbox":   func() { p := testPlugin(); p.Outbox, p.PushHandler = deadOutbox{}, nil; sdk.Serve(p) },
	"stophang": func() { p := testPlugin(); p.Stop = func() error { select {} }; sdk.Serve(p) },
	"stopexit": func() { p := testPlugin(); p.Stop = func() error { os.Exit(3); return nil }; sdk.Serve(p) },
	"plain":    servePlain,
	"noisy":    func() { fmt.Println("Loading model…"); fmt.Println(strings.Repeat("#", 100_000)); servePlain() },
	"raw":      serveRaw,
	"nonsense": serveNonsense,
	"exit":     func() { fmt.Fprintln(os.Stderr, "no such database"); os.Exit(3) },
	"words":    func() { fmt.Print("cannot find libfoo.so.3"); os.Exit(127) },
	"silent":   func() { select {} },
	"protocol": func() { fmt.Println("1|9|unix|/tmp/x|grpc"); select {} },
	"netrpc":   func() { fmt.Println("1|1|unix|/tmp/x|netrpc"); select {} },
	"frozen":   serveFrozen,

	"host":       hostOfPlugin,
	"naive-host": hostOfRaw,
	"naive-c1":   naiveStderr,
}

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeEnv); mode != "" {
		// Gone, or a naive host would pass it on and its plugin be a host too.
		_ = os.Unsetenv(modeEnv)
		modes[mode]()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

type doParams struct {
	What string `json:"what"`
	Arg  string `json:"arg,omitempty"`
}

type doResult struct {
	Out string `json:"out"`
}

// testPlugin does what tests tell it, as a feature; it is a handler and a
// filter too.
func testPlugin() sdk.Plugin {
	conn := &doer{}
	return sdk.Plugin{
		Name: "test", Version: "1.2.3", Doc: "does what tests tell it",
		Config:      conn,
		PushHandler: handler{},
		PeerFilter:  handler{},
		Feature: &sdk.Feature{
			Frames: []string{"get_state", "kick"},
			Methods: []sdk.Method{sdk.NewMethod("do", "does it", sdk.CLI{},
				func(ctx context.Context, _ sdk.Call, p doParams) (doResult, error) {
					out, err := conn.do(ctx, p.What, p.Arg)
					return doResult{out}, err
				})},
		},
	}
}

// doer does what tests say, with the services and values that Configure brought.
type doer struct {
	env    sdk.Env
	config string
}

func (h *doer) Schema() sdk.Schema {
	return sdk.Schema{Attributes: []sdk.Attribute{{Name: "greeting", Type: sdk.Type{Name: sdk.TypeString}}, {Name: "fail", Type: sdk.Type{Name: sdk.TypeString}}}}
}

func (h *doer) Validate(_ context.Context, config jsontext.Value) sdk.Diagnostics {
	h.config = string(config)
	if strings.Contains(string(config), `"fail"`) {
		return sdk.Diagnostics{sdk.Invalid([]string{"fail"}, "it must not be set", "Remove it.")}
	}
	return sdk.Diagnostics{{Severity: sdk.SeverityWarning, Summary: "just so"}}
}

func (h *doer) Configure(ctx context.Context, config jsontext.Value, env sdk.Env) (sdk.Diagnostics, error) {
	var values struct {
		Greeting string `json:"greeting"`
	}
	if err := json.Unmarshal(config, &values); err != nil {
		return nil, err
	}
	if path, waits := strings.CutPrefix(values.Greeting, "wait for "); waits {
		if _, err := os.Stat(path); err != nil {
			return nil, sdk.Errorf(sdk.CodeUnavailable, "busy", "hunter2 is in the way").WithNext("Wait.")
		}
	}
	if strings.Contains(string(config), `"die"`) {
		fmt.Fprintln(os.Stderr, "panic: while configuring")
		os.Exit(2)
	}
	diags := h.Validate(ctx, config)
	if !diags.HasErrors() {
		h.env = env
	}
	return diags, nil
}

// do is what tests tell a plugin to do.
func (h *doer) do(ctx context.Context, what, arg string) (string, error) {
	switch what {
	case "pid":
		return strconv.Itoa(os.Getpid()), nil
	case "config":
		return h.config, nil
	case "env":
		return strings.Join(os.Environ(), "\n"), nil
	case "stdin":
		link, err := os.Readlink("/proc/self/fd/0")
		return link, err
	case "stderr": // as a logger made before go-plugin took os.Stderr
		_, err := syscall.Write(2, []byte(arg+"\n"))
		return "", err
	case "os.Stderr":
		fmt.Fprintln(os.Stderr, arg)
		return "", nil
	case "stdout": // what a Go program prints
		fmt.Println(arg)
		return "", nil
	case "fd1": // what a library or a child prints
		_, err := syscall.Write(1, []byte(arg+"\n"))
		return "", err
	case "hang":
		<-ctx.Done()
		return "", ctx.Err()
	case "exit":
		// Where a panic writes too; os.Stderr is go-plugin's detour, which may
		// lose what is written just before the end.
		_, _ = syscall.Write(2, []byte("last words of "+arg+"\n"))
		os.Exit(7)
	case "child": // a child that holds our output open
		cmd := exec.Command("sleep", "300")
		cmd.Stdout, cmd.Stderr = os.NewFile(1, "1"), os.NewFile(2, "2")
		if err := cmd.Start(); err != nil {
			return "", err
		}
		return strconv.Itoa(cmd.Process.Pid), nil
	case "request":
		v, err := h.env.Host.Request(ctx, sdk.FrameRequest{Frame: jsontext.Value(`{"type":"` + arg + `"}`)})
		return strconv.Itoa(len(v)), err
	case "put":
		return "", h.env.Host.StorePut(ctx, arg, []byte("v"))
	}
	return "", sdk.Errorf(sdk.CodeInvalid, "what", "do what?")
}

type handler struct{}

func (handler) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	out := make([]sdk.Outcome, len(pushes))
	for i := range out {
		out[i] = sdk.Outcome{Decision: sdk.Ack, Reason: strconv.Itoa(len(pushes[i].Body))}
	}
	return out, nil
}

func (handler) Filter(_ context.Context, _ sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	return make([]sdk.Verdict, len(rows)), nil
}

// deadOutbox is an outbox that only exists.
type deadOutbox struct{ sdk.Outbox }

func (deadOutbox) Stats(context.Context, sdk.StatsRequest) (sdk.OutboxStats, error) {
	return sdk.OutboxStats{Bytes: 7}, nil
}

// hostOfPlugin is a host process with one plugin of ours: it prints the plugin's
// pid and waits to be killed.
func hostOfPlugin() {
	s := spec(sdk.KindFeature, os.Getenv("TEST_PLUGIN_MODE"), os.Getenv("TEST_DIR"))
	p := Start(context.Background(), s)
	if err := p.Ready(context.Background()); err != nil {
		panic(err)
	}
	fmt.Println("pid", p.Status().Pid)
	signal.Ignore(syscall.SIGTERM)
	select {}
}

// hostOfRaw is hostOfPlugin as go-plugin's examples have it.
func hostOfRaw() {
	c := rawClient("raw")
	if _, err := c.Start(); err != nil {
		panic(err)
	}
	fmt.Println("pid", c.ReattachConfig().Pid)
	select {}
}

// naiveStderr lets go-plugin read a plugin's stderr.
func naiveStderr() {
	c := rawClient("raw")
	if _, err := c.Start(); err != nil {
		panic(err)
	}
	fmt.Println("pid", c.ReattachConfig().Pid) // it will be orphaned by the panic
	if _, err := do(c, "stderr "+`{"@message":5}`); err != nil {
		fmt.Println("call:", err)
	}
	time.Sleep(2 * time.Second) // the panic comes from another goroutine, or does not
	c.Kill()
	fmt.Println("survived")
}

// rawClient is go-plugin's client as its examples have it.
func rawClient(mode string, change ...func(*goplugin.ClientConfig)) *goplugin.Client {
	cmd := exec.Command(self())
	cmd.Env = []string{modeEnv + "=" + mode, "GORACE=atexit_sleep_ms=0"}
	c := &goplugin.ClientConfig{
		HandshakeConfig:  bridge.Handshake(),
		Plugins:          goplugin.PluginSet{bridge.PluginSet: glue{}},
		Cmd:              cmd,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn}),
	}
	for _, f := range change {
		f(c)
	}
	if c.RunnerFunc != nil {
		c.Cmd = nil
	}
	return goplugin.NewClient(c)
}

// do calls /raw/Do.
func do(c *goplugin.Client, what string) (string, error) {
	return doWith(context.Background(), c, what)
}

func doWith(ctx context.Context, c *goplugin.Client, what string) (string, error) {
	p, err := c.Client()
	if err != nil {
		return "", err
	}
	raw, err := p.Dispense(bridge.PluginSet)
	if err != nil {
		return "", err
	}
	var out wrapperspb.BytesValue
	err = raw.(*grpc.ClientConn).Invoke(ctx, "/raw/Do", wrapperspb.Bytes([]byte(what)), &out)
	return string(out.Value), err
}

// self is this binary.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// spec is a Spec of this binary in a mode, with directories below dir.
func spec(kind sdk.Kind, mode, dir string) Spec {
	return Spec{
		Kind: kind, Name: "test", Path: self(), Env: map[string]string{
			modeEnv:  mode,
			"GORACE": "atexit_sleep_ms=0", // the race detector's second at exit
		},
		DataDir: filepath.Join(dir, "d"), RuntimeDir: filepath.Join(dir, "r"),
	}
}

// shortDir is a temporary directory with a short path: sockets go there.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && state(pid) != "Z"
}

// freeze stops a process and waits until it is stopped: the signal alone does
// not say when.
func freeze(t testing.TB, pid int) {
	t.Helper()
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	if !within(2*time.Second, func() bool { return state(pid) == "T" }) {
		t.Fatalf("process %d is not stopped but %q", pid, state(pid))
	}
}

// state is a process's state as /proc says it, empty if it is gone.
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	s, _, _ := strings.Cut(rest, " ")
	return s
}

// within waits until ok, and reports whether that came within d: the state of
// another process can only be polled.
func within(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(d)
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-timeout:
			return false
		}
	}
}
