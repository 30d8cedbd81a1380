package plugin

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// logBuffer is a log that tests can read while plugins write.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) has(s string) func() bool {
	return func() bool { return strings.Contains(l.String(), s) }
}

func (l *logBuffer) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
}

// run starts a plugin and waits until it serves.
func startReady(t testing.TB, s Spec) *Plugin {
	t.Helper()
	p := Start(context.Background(), s)
	t.Cleanup(func() { stopIn(p, 5*time.Second) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

func stopIn(p *Plugin, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	p.Stop(ctx)
}

// ask has the plugin do something.
func ask(p *Plugin, what, arg string) (string, error) {
	params, err := json.Marshal(doParams{what, arg})
	if err != nil {
		return "", err
	}
	out, err := p.Feature().Call(context.Background(), sdk.Call{Method: "do", Params: params})
	if err != nil {
		return "", err
	}
	var res doResult
	err = json.Unmarshal(out, &res)
	return res.Out, err
}

func mustAsk(t testing.TB, p *Plugin, what, arg string) string {
	t.Helper()
	out, err := ask(p, what, arg)
	if err != nil {
		t.Fatalf("%s: %v; %+v", what, err, p.Status())
	}
	return out
}

func TestAPluginLivesFromStartToStopAndLeavesNothing(t *testing.T) {
	dir := shortDir(t)
	s := spec(sdk.KindFeature, "good", dir)
	var log logBuffer
	s.Logger = log.logger()
	s.Config = func(_ context.Context, d sdk.Description) (jsontext.Value, error) {
		if len(d.Schema.Attributes) != 2 {
			t.Errorf("Config was called before the schema was known: %+v", d)
		}
		return jsontext.Value(`{"greeting":"hello"}`), nil
	}
	p := startReady(t, s)
	st := p.Status()
	if st.State != StateReady || st.Description.Version != "1.2.3" || strconv.Itoa(st.Pid) != mustAsk(t, p, "pid", "") {
		t.Fatalf("status %+v", st)
	}
	if got := mustAsk(t, p, "config", ""); got != `{"greeting":"hello"}` {
		t.Fatalf("values %s", got)
	}
	if info, err := os.Stat(s.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("data directory: %v, %v", info, err)
	}
	if got := mustAsk(t, p, "stdin", ""); got != "/dev/null" {
		t.Fatalf("stdin is %s", got)
	}
	if !strings.Contains(log.String(), "configuration: just so") {
		t.Fatalf("the plugin's warning is not in the log:\n%s", log.String())
	}
	child, err := strconv.Atoi(mustAsk(t, p, "child", ""))
	if err != nil {
		t.Fatal(err)
	}
	stopIn(p, 5*time.Second)
	if alive(st.Pid) || !within(time.Second, func() bool { return !alive(child) }) {
		t.Fatal("the plugin or its child is left")
	}
	if left, _ := os.ReadDir(s.RuntimeDir); len(left) > 0 {
		t.Fatalf("left in the runtime directory: %v", left)
	}
	if _, err := ask(p, "pid", ""); !IsDown(err) {
		t.Fatalf("call after Stop: %v", err)
	}
}

func TestAKilledPluginServesAgainWithinThreeSeconds(t *testing.T) {
	s := spec(sdk.KindFeature, "good", shortDir(t))
	p := startReady(t, s)
	first := p.Status().Pid
	begin := time.Now()
	_ = syscall.Kill(first, syscall.SIGKILL)
	if !within(3*time.Second, func() bool { pid, err := ask(p, "pid", ""); return err == nil && pid != strconv.Itoa(first) }) {
		t.Fatalf("down after 3 s: %+v", p.Status())
	}
	t.Logf("serving again after %s", time.Since(begin).Round(time.Millisecond))
	if st := p.Status(); !strings.HasPrefix(st.LastCrash, "signal: killed after ") {
		t.Fatalf("crash report %q", st.LastCrash)
	}
}

func TestTheCrashReportIsOneLineWithCodeUptimeAndLastWords(t *testing.T) {
	var log logBuffer
	s := spec(sdk.KindFeature, "good", shortDir(t))
	s.Logger = log.logger()
	p := startReady(t, s)
	_, err := ask(p, "exit", "mine")
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeUnavailable || e.Reason != ReasonUnknown || !OutcomeUnknown(err) {
		t.Fatalf("the call that killed it: %#v", err)
	}
	if !within(3*time.Second, func() bool { return p.Status().LastCrash != "" }) {
		t.Fatal("no crash report")
	}
	got := p.Status().LastCrash
	if !strings.HasPrefix(got, "exit status 7 after ") || !strings.HasSuffix(got, "last words: last words of mine") || strings.Contains(got, "\n") {
		t.Fatalf("crash report %q", got)
	}
	if !within(time.Second, log.has("plugin crashed: plugin=\"rpc_feature(test)\" report=\"exit status 7")) {
		t.Fatalf("not in the log:\n%s", log.String())
	}
}

func TestFivePluginsStartAtTheSameTime(t *testing.T) {
	dir := shortDir(t)
	var specs []Spec
	for _, k := range []sdk.Kind{sdk.KindFeature, sdk.KindPushHandler, sdk.KindPeerFilter, sdk.KindFeature, sdk.KindOutbox} {
		s := spec(k, "good", dir)
		if k == sdk.KindOutbox {
			s.Env[modeEnv] = "outbox"
		}
		s.Name = "p" + strconv.Itoa(len(specs))
		s.DataDir = filepath.Join(dir, s.Name)
		specs = append(specs, s)
	}
	// Nobody goes on before all have come as far: one start after another would
	// end here.
	var left atomic.Int32
	left.Store(int32(len(specs)))
	together := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var plugins []*Plugin
	for _, s := range specs {
		arrive := sync.OnceFunc(func() {
			if left.Add(-1) == 0 {
				close(together)
			}
		})
		s.Config = func(ctx context.Context, _ sdk.Description) (jsontext.Value, error) {
			arrive()
			select {
			case <-together:
				return jsontext.Value("{}"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		p := Start(ctx, s)
		defer p.Stop(ctx)
		plugins = append(plugins, p)
	}
	pids := map[int]bool{}
	for _, p := range plugins {
		if err := p.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		pids[p.Status().Pid] = true
	}
	if len(pids) != len(specs) {
		t.Fatalf("one process per block: %v", pids)
	}
	if st, err := plugins[4].Outbox().Stats(ctx, sdk.StatsRequest{}); err != nil || st.Bytes != 7 {
		t.Fatalf("%v, %v", st, err)
	}
}

func TestAnEndThatIsNotOrderlyIsLogged(t *testing.T) {
	for mode, want := range map[string]string{
		"good":     "",
		"stophang": `report="signal: killed after `,
		"stopexit": `report="exit status 3 after `,
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			s := spec(sdk.KindFeature, mode, shortDir(t))
			s.Logger = log.logger()
			stopIn(startReady(t, s), 10*time.Second)
			const words = "plugin did not end in order"
			if got := log.String(); strings.Contains(got, words) != (want != "") || !strings.Contains(got, want) {
				t.Errorf("want %q in the log:\n%s", want, got)
			}
		})
	}
}

func TestStopEndsAStartThatHangs(t *testing.T) {
	for _, mode := range []string{"silent", "frozen"} {
		s := spec(sdk.KindFeature, mode, shortDir(t))
		p := Start(context.Background(), s)
		if !within(3*time.Second, func() bool { return p.Status().Starts == 1 }) {
			t.Fatal("it does not start")
		}
		begin := time.Now()
		stopIn(p, 5*time.Second)
		if took := time.Since(begin); took > 2*time.Second {
			t.Fatalf("%s: Stop took %s", mode, took)
		}
	}
}

func TestAPluginReachesTheHostThroughItsOwnSocket(t *testing.T) {
	rec := &recorder{}
	s := spec(sdk.KindFeature, "good", shortDir(t))
	s.Services = rec
	p := startReady(t, s)
	mustAsk(t, p, "request", "get_state")
	if _, err := ask(p, "request", "kick"); !errors.Is(err, sdk.ErrPermission) {
		t.Fatalf("kick without a grant: %v", err)
	}
	if _, err := ask(p, "request", "send"); !errors.Is(err, sdk.ErrPermission) {
		t.Fatalf("send: %v", err)
	}
	if want := `feature-test request {"type":"get_state"}`; len(rec.calls) != 1 || rec.calls[0] != want {
		t.Fatalf("calls %v", rec.calls)
	}
	// The next process has a socket and a token of its own.
	_ = syscall.Kill(p.Status().Pid, syscall.SIGKILL)
	if !within(3*time.Second, func() bool { _, err := ask(p, "put", "k"); return err == nil }) {
		t.Fatal("the restarted plugin does not reach the host")
	}
}

func TestWhatAKilledHostLeftIsCleared(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"p123/h", "keep/x", "p"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := ClearRuntimeDir(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 2 {
		t.Fatalf("left: %v", left)
	}
}
