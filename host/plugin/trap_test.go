package plugin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshhost/meshhost/sdk"
)

// Each trap of go-plugin has two arms: go-plugin used as its examples do falls
// into it, and this package does not. If a naive arm fails, the library has
// changed and the guard may go.

// naiveHang is how long a naive arm is watched before it counts as hanging.
const naiveHang = 1500 * time.Millisecond

// hangs reports whether f does not return in time; free must make it return.
func hangs(t *testing.T, f func(), free func()) bool {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		free()
		return false
	case <-time.After(naiveHang):
		free()
		<-done
		return true
	}
}

// killRaw ends a naive plugin so that nothing of it is left.
func killRaw(c *goplugin.Client) {
	if r := c.ReattachConfig(); r != nil && !c.Exited() { // else the number may be another's
		_ = syscall.Kill(r.Pid, syscall.SIGKILL)
	}
	c.Kill()
}

func startRaw(t *testing.T, c *goplugin.Client) int {
	t.Helper()
	if _, err := c.Client(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killRaw(c) })
	return c.ReattachConfig().Pid
}

// hostProcess starts this binary as a host of some mode and returns it with the
// pid of its plugin.
func hostProcess(t *testing.T, mode, pluginMode string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(self())
	cmd.Env = append(os.Environ(), modeEnv+"="+mode, "TEST_PLUGIN_MODE="+pluginMode, "TEST_DIR="+shortDir(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, perr := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil || perr != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("host said %q: %v", line, err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return cmd, pid
}

func TestTrapC1ALineOfStderrPanicsTheHost(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		out, err := exec.CommandContext(t.Context(), "env", modeEnv+"=naive-c1", self()).CombinedOutput()
		if pid := pidIn(string(out)); pid != 0 { // orphaned by the panic
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), "interface conversion") || strings.Contains(string(out), "survived") {
			t.Fatalf("the host lives: %v\n%s", err, out)
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		var log logBuffer
		s := spec(sdk.KindFeature, "plain", shortDir(t))
		s.Logger = log.logger()
		p := startReady(t, s)
		for _, line := range []string{`{"@message":5}`, `{"@message":"x","@level":7}`, `{"@message":"x","@timestamp":1}`, `[`, `{"a":`, "\x00\x1b[31m", strings.Repeat("x", 200_000)} {
			mustAsk(t, p, "stderr", line)
		}
		mustAsk(t, p, "stderr", "the end")
		if !within(2*time.Second, log.has("the end")) || !strings.Contains(log.String(), `{"@message":5}`) {
			t.Fatalf("lines are missing:\n%s", clip(log.String(), 2000))
		}
	})
}

func pidIn(out string) int {
	_, rest, _ := strings.Cut(out, "pid ")
	rest, _, _ = strings.Cut(rest, "\n")
	pid, _ := strconv.Atoi(rest)
	return pid
}

func TestTrapC2PluginsOutliveAKilledHost(t *testing.T) {
	kill := func(t *testing.T, mode, pluginMode string, d time.Duration) (died bool) {
		cmd, pid := hostProcess(t, mode, pluginMode)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return within(d, func() bool { return !alive(pid) })
	}
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		if kill(t, "naive-host", "", naiveHang) {
			t.Fatal("the plugin died with its host")
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		if !kill(t, "host", "good", 3*time.Second) {
			t.Fatal("the plugin outlives its host")
		}
	})
	if runtime.GOOS != "linux" {
		return
	}
	t.Run("ours, a plugin that does not watch its host", func(t *testing.T) {
		t.Parallel()
		if !kill(t, "host", "plain", 3*time.Second) {
			t.Fatal("the plugin outlives its host")
		}
	})
}

func TestTrapC3KillBlocksOnAFrozenPlugin(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw")
		pid := startRaw(t, c)
		freeze(t, pid)
		if !hangs(t, c.Kill, func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) {
			t.Fatal("Kill returned")
		}
	})
	t.Run("naive, while it starts", func(t *testing.T) {
		t.Parallel()
		c := rawClient("silent", func(c *goplugin.ClientConfig) {
			c.StartTimeout = naiveHang + time.Second
			c.Cmd.Env = append(c.Cmd.Env, "TEST_TAG=c3")
		})
		started := make(chan error, 1)
		go func() { _, err := c.Start(); started <- err }()
		if !within(5*time.Second, func() bool { return tagged("c3") }) {
			t.Fatal("it does not start")
		}
		begin := time.Now()
		c.Kill()
		if time.Since(begin) < naiveHang/2 {
			t.Fatal("Kill returned before the start's own timeout")
		}
		<-started
		c.Kill()
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		p := startReady(t, spec(sdk.KindFeature, "good", shortDir(t)))
		pid := p.Status().Pid
		freeze(t, pid)
		begin := time.Now()
		stopIn(p, 300*time.Millisecond)
		if took := time.Since(begin); took > 1300*time.Millisecond || alive(pid) {
			t.Fatalf("Stop took %s; alive: %v", took, alive(pid))
		}
	})
}

// tagged reports whether a process with TEST_TAG=tag runs.
func tagged(tag string) bool {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	return slices.ContainsFunc(environs, func(path string) bool {
		env, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(env), "TEST_TAG="+tag+"\x00")
	})
}

func TestTrapC4PingHasNoDeadline(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw")
		pid := startRaw(t, c)
		proto, err := c.Client()
		if err != nil {
			t.Fatal(err)
		}
		freeze(t, pid)
		if !hangs(t, func() { _ = proto.Ping() }, func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) {
			t.Fatal("Ping returned")
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		s := spec(sdk.KindFeature, "good", shortDir(t))
		s.Health = Health{Interval: 50 * time.Millisecond, Timeout: 300 * time.Millisecond, Misses: 2}
		p := startReady(t, s)
		pid := p.Status().Pid
		freeze(t, pid)
		if !within(4*time.Second, func() bool { st := p.Status(); return st.State == StateReady && st.Pid != pid }) {
			t.Fatalf("not replaced: %+v", p.Status())
		}
		if alive(pid) || !strings.Contains(p.Status().LastCrash, "alive but silent: 2 health checks") {
			t.Fatalf("alive: %v, report %q", alive(pid), p.Status().LastCrash)
		}
	})
}

func TestTrapC6AClientIsSingleUse(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw")
		pid := startRaw(t, c)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		if !within(2*time.Second, c.Exited) {
			t.Fatal("it lives")
		}
		if _, err := c.Client(); err != nil {
			t.Fatalf("Client admits that it is dead: %v", err)
		}
		if _, err := do(c, "pid"); status.Code(err) != codes.Unavailable {
			t.Fatalf("the dead client answers: %v", err)
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		s := spec(sdk.KindOutbox, "outbox", shortDir(t))
		s.Restart = Restart{Initial: time.Millisecond, Max: 10 * time.Millisecond}
		p := startReady(t, s)
		for range 6 {
			_ = syscall.Kill(p.Status().Pid, syscall.SIGKILL)
			n := p.Status().Starts
			if !within(5*time.Second, func() bool {
				_, err := p.Outbox().Stats(context.Background(), sdk.StatsRequest{})
				return err == nil && p.Status().Starts > n
			}) {
				t.Fatalf("down: %+v", p.Status())
			}
		}
	})
}

func TestTrapC7SecureConfigIsStateful(t *testing.T) {
	sum, err := fileSHA256(t.Context(), self())
	if err != nil {
		t.Fatal(err)
	}
	secure := func() *goplugin.SecureConfig {
		raw := make([]byte, sha256.Size)
		_, _ = fmt.Sscanf(sum, "%x", &raw)
		return &goplugin.SecureConfig{Checksum: raw, Hash: sha256.New()}
	}
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		shared := secure()
		for i, want := range []error{nil, goplugin.ErrChecksumsDoNotMatch} {
			c := rawClient("raw", func(c *goplugin.ClientConfig) { c.SecureConfig = shared })
			_, err := c.Start()
			killRaw(c)
			if !errors.Is(err, want) {
				t.Fatalf("start %d: %v, want %v", i+1, err, want)
			}
		}
	})
	t.Run("naive, with a runner", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw", func(c *goplugin.ClientConfig) {
			c.SecureConfig = secure()
			c.RunnerFunc = func(hclog.Logger, *exec.Cmd, string) (runner.Runner, error) {
				return nil, errors.New("the runner was asked")
			}
		})
		if _, err := c.Start(); err == nil || !strings.Contains(err.Error(), "error verifying checksum") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		s := spec(sdk.KindFeature, "good", shortDir(t))
		s.SHA256 = strings.ToUpper(sum)
		p := startReady(t, s)
		for range 2 {
			pid := mustAsk(t, p, "pid", "")
			_ = syscall.Kill(p.Status().Pid, syscall.SIGKILL)
			if !within(5*time.Second, func() bool { now, err := ask(p, "pid", ""); return err == nil && now != pid }) {
				t.Fatalf("down: %+v", p.Status())
			}
		}
	})
	t.Run("ours, a binary that changes", func(t *testing.T) {
		t.Parallel()
		bin := copyOfSelf(t)
		s := spec(sdk.KindFeature, "good", shortDir(t))
		s.Path, s.SHA256 = bin, sum
		p := startReady(t, s)
		if err := os.Rename(bin, bin+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(p.Status().Pid, syscall.SIGKILL)
		if !within(5*time.Second, func() bool { return p.Status().Reason == ReasonPermanent }) {
			t.Fatalf("status %+v", p.Status())
		}
	})
}

func copyOfSelf(t *testing.T) string {
	t.Helper()
	in, err := os.Open(self())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(t.TempDir(), "x")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
