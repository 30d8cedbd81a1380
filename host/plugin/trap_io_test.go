package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshhost/meshhost/sdk"
)

const fiveMiB = 5 << 20

// bigReplies answers requests with five MiB.
type bigReplies struct{ recorder }

func (*bigReplies) Request(context.Context, Caller, sdk.FrameRequest) (jsontext.Value, error) {
	return jsontext.Value(`"` + strings.Repeat("x", fiveMiB) + `"`), nil
}

func TestTrapC9MessagesAreLimitedToFourMiBOnOneSide(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw")
		startRaw(t, c)
		if _, err := do(c, "stderr "+strings.Repeat("x", fiveMiB)); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("5 MiB to a plugin: %v", err)
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		s := spec(sdk.KindPushHandler, "good", shortDir(t))
		s.Services = &bigReplies{}
		p := startReady(t, s)
		handle := func(n int) error {
			out, err := p.PushHandler().Handle(t.Context(), []sdk.Push{{ID: "1", Kind: sdk.PushDirect, Body: make([]byte, n)}})
			if err == nil && out[0].Reason != strconv.Itoa(n) {
				t.Errorf("%d bytes arrived as %s", n, out[0].Reason)
			}
			return err
		}
		if err := handle(fiveMiB); err != nil {
			t.Fatalf("5 MiB to a plugin: %v", err)
		}
		if got := mustAsk(t, p, "request", "get_state"); got != strconv.Itoa(fiveMiB+2) {
			t.Fatalf("5 MiB to a plugin that asked the host: %s bytes", got)
		}
		if err := handle(17 << 20); !errors.Is(err, sdk.ErrFull) {
			t.Fatalf("17 MiB: %v", err)
		}
		if err := handle(1); err != nil || p.Status().Crashes > 0 {
			t.Fatalf("after a message that was too large: %v", err)
		}
	})
}

func TestTrapC10OutputBlocksOrBreaksThePlugin(t *testing.T) {
	noise := strings.Repeat("#", 200_000)
	t.Run("naive, a long line on fd 1", func(t *testing.T) {
		t.Parallel()
		c := rawClient("raw")
		startRaw(t, c)
		var err error
		blocked := hangs(t, func() {
			for range 3 { // the first may fit into the pipe
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				_, err = doWith(ctx, c, "fd1 "+noise)
				cancel()
				if err != nil {
					return
				}
			}
		}, func() { killRaw(c) })
		// Blocked, or the pipe was closed under it: either way it can't write.
		if !blocked && err == nil {
			t.Fatal("the plugin goes on writing")
		}
	})
	t.Run("naive, a word before the handshake", func(t *testing.T) {
		t.Parallel()
		c := rawClient("noisy")
		_, err := c.Start()
		c.Kill()
		if err == nil || !strings.Contains(err.Error(), "Unrecognized remote plugin message") {
			t.Fatalf("got %v", err)
		}
	})
	for _, mode := range []string{"plain", "noisy", "good"} {
		t.Run("ours, "+mode, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			s := spec(sdk.KindFeature, mode, shortDir(t))
			s.Logger = log.logger()
			p := startReady(t, s)
			for range 5 {
				mustAsk(t, p, "fd1", noise)
			}
			mustAsk(t, p, "fd1", "short after long")
			mustAsk(t, p, "stdout", "printed by fmt")
			mustAsk(t, p, "os.Stderr", "complained by fmt")
			if !within(2*time.Second, func() bool {
				return log.has("short after long")() && log.has("printed by fmt")() && log.has("complained by fmt")()
			}) {
				t.Fatalf("output is lost:\n%s", clip(log.String(), 3000))
			}
			if mode == "noisy" && !strings.Contains(log.String(), "Loading model") {
				t.Fatal("what came before the handshake is not in the log")
			}
		})
	}
}

func TestTrapC11TheHostsEnvironmentLeaks(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv("COLOR", "host")
	t.Run("naive", func(t *testing.T) {
		// The host's value wins over the one set for the plugin, too.
		c := rawClient("raw", func(c *goplugin.ClientConfig) { c.Cmd.Env = append(c.Cmd.Env, "COLOR=plugin") })
		startRaw(t, c)
		env, err := do(c, "env")
		if err != nil || !strings.Contains(env, "hunter2") || !strings.Contains(env, "COLOR=host") {
			t.Fatalf("%v\n%s", err, env)
		}
	})
	t.Run("ours", func(t *testing.T) {
		s := spec(sdk.KindFeature, "good", shortDir(t))
		s.Env["COLOR"] = "plugin"
		p := startReady(t, s)
		env := mustAsk(t, p, "env", "")
		if strings.Contains(env, "hunter2") || !strings.Contains(env, "COLOR=plugin") || !strings.Contains(env, "PATH="+os.Getenv("PATH")) {
			t.Fatalf("environment:\n%s", env)
		}
		for kv := range strings.SplitSeq(env, "\n") {
			name, _, _ := strings.Cut(kv, "=")
			switch {
			case name == "COLOR", name == modeEnv, name == "GORACE", strings.HasPrefix(name, "PLUGIN_"), strings.HasPrefix(name, "MESHHOST_"):
			case strings.Contains(" "+strings.Join(inheritedEnv, " ")+" ", " "+name+" "):
			default:
				t.Errorf("unexpected variable %s", name)
			}
		}
	})
}

func TestTrapC12AKilledPluginLeavesItsSocket(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		t.Parallel()
		tmp, other := shortDir(t), shortDir(t)
		c := rawClient("raw", func(c *goplugin.ClientConfig) {
			c.Cmd.Env = append(c.Cmd.Env, "TMPDIR="+tmp)
			c.SkipHostEnv = true
			c.UnixSocketConfig = &goplugin.UnixSocketConfig{TempDir: other} // ignored with Cmd
		})
		pid := startRaw(t, c)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		if !within(2*time.Second, c.Exited) {
			t.Fatal("it lives")
		}
		c.Kill()
		left, _ := filepath.Glob(filepath.Join(tmp, "plugin*"))
		elsewhere, _ := filepath.Glob(filepath.Join(other, "*"))
		if len(left) != 1 || len(elsewhere) != 0 {
			t.Fatalf("left %v, in TempDir %v", left, elsewhere)
		}
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		s := spec(sdk.KindFeature, "good", shortDir(t))
		tmp := shortDir(t)
		s.Env["TMPDIR"] = tmp
		s.Restart = Restart{Initial: time.Millisecond, Max: 10 * time.Millisecond}
		p := startReady(t, s)
		for range 4 {
			st := p.Status()
			sockets, _ := filepath.Glob(filepath.Join(s.RuntimeDir, "*", "*"))
			if len(sockets) < 2 { // the plugin's and ours
				t.Fatalf("sockets %v", sockets)
			}
			for _, f := range sockets {
				if len(f) > maxSocketPath {
					t.Fatalf("%s has %d bytes", f, len(f))
				}
			}
			if dirs, _ := os.ReadDir(s.RuntimeDir); len(dirs) != 1 {
				t.Fatalf("%d directories for one process", len(dirs))
			}
			_ = syscall.Kill(st.Pid, syscall.SIGKILL)
			if !within(5*time.Second, func() bool { now := p.Status(); return now.State == StateReady && now.Pid != st.Pid }) {
				t.Fatalf("down: %+v", p.Status())
			}
		}
		_ = syscall.Kill(p.Status().Pid, syscall.SIGKILL)
		stopIn(p, 5*time.Second)
		for _, d := range []string{s.RuntimeDir, tmp} {
			if left, _ := os.ReadDir(d); len(left) > 0 {
				t.Fatalf("left in %s: %v", d, left)
			}
		}
	})
}
