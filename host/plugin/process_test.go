package plugin

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
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
	if st, err := plugins[4].Outbox().Stats(ctx); err != nil || st.Bytes != 7 {
		t.Fatalf("%v, %v", st, err)
	}
}

func TestStartsThatCannotWorkSayWhyAndAreNotRepeated(t *testing.T) {
	other := t.TempDir()
	script := filepath.Join(other, "script")
	if err := os.WriteFile(script, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(other, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(other, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self(), filepath.Join(other, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(open, "x"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	sticky := filepath.Join(other, "sticky")
	if err := os.Mkdir(sticky, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sticky, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, mode string
		change     func(*Spec)
		want       string
	}{
		{"relative path", "good", func(s *Spec) { s.Path = "meshhost-push-inbox" }, "is not absolute"},
		{"no file", "good", func(s *Spec) { s.Path = "/nonexistent/meshhost-push-inbox" }, "no plugin at /nonexistent/meshhost-push-inbox; build or install it"},
		{"not executable", "good", func(s *Spec) { s.Path = plain }, "is not executable; run chmod +x"},
		{"a directory", "good", func(s *Spec) { s.Path = other }, "is not a file"},
		{"not a program", "good", func(s *Spec) { s.Path = script }, "exec format error"},
		{"writable directory", "good", func(s *Spec) { s.Path = filepath.Join(open, "x") }, "writable by everyone"},
		{"bad checksum", "good", func(s *Spec) { s.SHA256 = strings.Repeat("0", 64) }, "if the new file is right, correct sha256"},
		{"odd checksum", "good", func(s *Spec) { s.SHA256 = "abc" }, "is not 64 hex digits"},
		{"other protocol", "protocol", nil, "speaks plugin protocol 9, this host speaks 1"},
		{"net/rpc", "netrpc", nil, `speaks "netrpc"`},
		{"another go-plugin program", "raw", nil, "but no meshhost plugin"},
		{"nonsense", "nonsense", nil, "against its contract: it is of no kind"},
		{"wrong kind", "outbox", func(s *Spec) { s.Kind = sdk.KindPushHandler }, "is no push_handler but"},
		{"refused values", "good", func(s *Spec) {
			s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
				return jsontext.Value(`{"fail":"x"}`), nil
			}
		}, "configuration fail: it must not be set: Remove it."},
		{"undecodable values", "good", func(s *Spec) {
			s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
				return nil, errors.New("mesh.hcl:3: typo")
			}
		}, "mesh.hcl:3: typo"},
		{"long runtime dir", "good", func(s *Spec) { s.RuntimeDir = "/tmp/" + strings.Repeat("x", 90) }, "is too long"},
		{"PLUGIN_ variable", "good", func(s *Spec) { s.Env["PLUGIN_MIN_PORT"] = "1" }, "belongs to the plugin protocol"},
		{"shared data dir", "good", func(s *Spec) { s.DataDir = open }, "is writable by group or others"},
		{"sticky data dir", "good", func(s *Spec) { s.DataDir = sticky }, "is writable by group or others"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := shortDir(t)
			s := spec(sdk.KindFeature, c.mode, dir)
			if c.change != nil {
				c.change(&s)
			}
			p := Start(context.Background(), s)
			defer stopIn(p, 5*time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			err := p.Ready(ctx)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "(test): ") {
				t.Fatalf("Ready says %v", err)
			}
			if st := p.Status(); st.State != StateQuarantined || st.Reason != ReasonPermanent || st.Starts > 1 {
				t.Fatalf("status %+v", st)
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "r")); len(left) > 0 {
				t.Fatalf("left in the runtime directory: %v", left)
			}
			if _, err := ask(p, "pid", ""); !IsDown(err) {
				t.Fatalf("a call says %v", err)
			}
		})
	}
}

func TestWhatAPluginRefusesIsExplainedBeforeAnybodySeesIt(t *testing.T) {
	var log logBuffer
	s := spec(sdk.KindFeature, "good", shortDir(t))
	s.Logger = log.logger()
	values := `{"fail":"hunter2"}`
	s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) { return jsontext.Value(values), nil }
	s.Explain = func(d sdk.Description, said sdk.Diagnostics) sdk.Diagnostics {
		if d.Name != "test" || len(said) != 1 {
			t.Errorf("%+v said %+v", d, said)
		}
		said[0].Path, said[0].Summary = nil, "mesh.hcl:7:3: so it is"
		return said
	}
	p := Start(context.Background(), s)
	defer stopIn(p, 5*time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if err := p.Ready(ctx); err == nil || !strings.Contains(err.Error(), "configuration: mesh.hcl:7:3: so it is") || strings.Contains(err.Error(), "must not be set") {
		t.Errorf("Ready says %v", err)
	}
	values = `{}` // only a warning
	if err := p.Replace(ctx, s); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]bool{"quarantined": true, "configuration: mesh.hcl:7:3: so it is": true, "must not be set": false, "just so": false} {
		if strings.Contains(log.String(), said) != want {
			t.Errorf("%q in the log: %v, want %v:\n%s", said, !want, want, log.String())
		}
	}
}

func TestStartsThatMayWorkLaterAreRepeated(t *testing.T) {
	for mode, want := range map[string]string{
		"exit":   "ended before the handshake: exit status 3",
		"words":  "last words: cannot find libfoo.so.3", // on stdout, without a newline
		"silent": "no handshake within 300ms",
		"frozen": "no ",
		"good":   "configure: ended: exit status 2", // by its values
	} {
		t.Run(mode, func(t *testing.T) {
			dir := shortDir(t)
			s := spec(sdk.KindFeature, mode, dir)
			s.StartTimeout = 300 * time.Millisecond
			if mode == "good" {
				s.StartTimeout = 0
				s.Config = func(context.Context, sdk.Description) (jsontext.Value, error) {
					return jsontext.Value(`{"greeting":"die"}`), nil
				}
			}
			s.Restart = Restart{Initial: time.Millisecond, Max: time.Millisecond, Crashes: 3}
			p := Start(context.Background(), s)
			defer stopIn(p, 5*time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			err := p.Ready(ctx)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "3 crashes within") {
				t.Fatalf("Ready says %v", err)
			}
			if st := p.Status(); st.Reason != ReasonCrashes || st.Starts != 3 {
				t.Fatalf("status %+v", st)
			}
			if left, _ := os.ReadDir(s.RuntimeDir); len(left) > 0 {
				t.Fatalf("left in the runtime directory: %v", left)
			}
		})
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
