package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// cli is the CLI beside a daemon.
type cli struct {
	t   testing.TB
	bin string
	env []string
}

// run returns stdout and the exit code; stderr goes to the test's log.
func (c cli) run(args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.Command(c.bin, args...)
	cmd.Env = c.env
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	if words.Len() > 0 {
		c.t.Logf("%s: %s", strings.Join(args, " "), strings.TrimSpace(words.String()))
	}
	if cmd.ProcessState == nil {
		c.t.Fatalf("%v: %v", args, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must is run for what has to succeed and decodes the answer.
func (c cli) must(v any, args ...string) {
	c.t.Helper()
	out, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("%v: exit %d: %s", args, code, out)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		c.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// peerList is `peer list -json`.
type peerList struct {
	Schema string           `json:"schema"`
	Peers  []map[string]any `json:"peers"`
	Hidden []struct {
		Filter string `json:"filter"`
		Reason string `json:"reason"`
		Count  int    `json:"count"`
	} `json:"hidden"`
	Warnings []string `json:"warnings"`
}

func (l peerList) hidden() (n int) {
	for _, h := range l.Hidden {
		n += h.Count
	}
	return n
}

func (l peerList) has(role string) (n int) {
	for _, p := range l.Peers {
		if p["role"] == role {
			n++
		}
	}
	return n
}

// dev starts `meshhost -dev` in a home of its own, without XDG_RUNTIME_DIR, the
// default plugin directory beside the executable.
func dev(t *testing.T) (*process, cli, string) {
	bin := binaries(t)
	home := shortDir(t)
	tmp := filepath.Join(home, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"HOME=" + home, "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
	p := start(t, "dev", env, bin.meshhost, "-dev")
	c := cli{t, bin.meshhost, env}
	begin := time.Now()
	await(t, 30*time.Second, "-dev is up", func() error {
		if _, code := c.run("status"); code != 0 {
			return fmt.Errorf("status exits %d", code)
		}
		return nil
	})
	t.Logf("-dev was up after %v", time.Since(begin))
	return p, c, home
}

func TestDevSendsFiltersSurvivesAndLeavesNothing(t *testing.T) {
	p, c, home := dev(t)

	text := uuid.NewString()
	if out, code := c.run("send", "echo", text, "-wait", "delivered"); code != 0 {
		t.Fatalf("send exits %d: %s", code, out)
	}
	var answered time.Duration
	begin := time.Now()
	await(t, 2*time.Second, "echo answers", func() error {
		var in struct {
			Messages []struct {
				Body string `json:"body"`
			} `json:"messages"`
		}
		c.must(&in, "inbox", "-json")
		for _, m := range in.Messages {
			if m.Body == text {
				answered = time.Since(begin)
				return nil
			}
		}
		return fmt.Errorf("%d messages, none of them is it", len(in.Messages))
	})

	var st status
	c.must(&st, "status", "-json")
	children := childrenOf(t, p.pid())
	if len(children) != len(st.Plugins) || len(children) != 5 {
		t.Errorf("%d processes for %d plugins, want 5", len(children), len(st.Plugins))
	}

	var all, shown peerList
	c.must(&all, "peer", "list", "-all", "-json")
	c.must(&shown, "peer", "list", "-json")
	if len(all.Peers)-len(shown.Peers) != shown.hidden() || all.has("control-plane") == 0 || shown.has("control-plane") != 0 {
		t.Errorf("%d rows of -all, %d without, %d hidden; control-plane rows %d and %d",
			len(all.Peers), len(shown.Peers), shown.hidden(), all.has("control-plane"), shown.has("control-plane"))
	}
	fmt.Printf("RESULT dev echoed_ms=%d plugins=%d processes=%d rows_all=%d rows=%d hidden=%d control_plane=%d\n",
		answered.Milliseconds(), len(st.Plugins), len(children), len(all.Peers), len(shown.Peers), shown.hidden(), all.has("control-plane"))

	frozen(t, c)
	killed(t, c)

	took := p.signal(syscall.SIGINT, 2*time.Second)
	for _, pid := range children {
		if err := gone(pid); err != nil {
			t.Error(err)
		}
	}
	left := leftovers(t, home)
	fmt.Printf("RESULT dev_stop ms=%d left=%d\n", took.Milliseconds(), len(left))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func filterPID(t *testing.T, c cli) int {
	t.Helper()
	var st status
	c.must(&st, "status", "-json")
	for _, p := range st.Plugins {
		if p.Kind == "peer_filter" {
			return p.PID
		}
	}
	t.Fatal("no peer filter is listed")
	return 0
}

// frozen: while the filter does not answer, lists warn and still answer.
func frozen(t *testing.T, c cli) {
	t.Helper()
	pid := filterPID(t, c)
	signalPID(t, pid, syscall.SIGSTOP)
	var l peerList
	c.must(&l, "peer", "list", "-json")
	warned := len(l.Warnings)
	signalPID(t, pid, syscall.SIGCONT)
	if warned == 0 || len(l.Peers) == 0 {
		t.Errorf("frozen filter: %d warnings, %d rows", warned, len(l.Peers))
	}
	var after peerList
	await(t, 5*time.Second, "the filter filters again", func() error {
		c.must(&after, "peer", "list", "-json")
		if after.hidden() == 0 || len(after.Warnings) > 0 {
			return fmt.Errorf("hidden %d, warnings %v", after.hidden(), after.Warnings)
		}
		return nil
	})
	fmt.Printf("RESULT filter_stopped warnings=%d rows=%d then_hidden=%d\n", warned, len(l.Peers), after.hidden())
}

// killed: each list after a kill -9 filters or warns.
func killed(t *testing.T, c cli) {
	t.Helper()
	signalPID(t, filterPID(t, c), syscall.SIGKILL)
	begin := time.Now()
	filtered, warned, neither := 0, 0, 0
	var back time.Duration
	for time.Since(begin) < 4*time.Second && filtered < 10 {
		var l peerList
		c.must(&l, "peer", "list", "-json")
		switch {
		case l.hidden() > 0:
			filtered++
			if back == 0 {
				back = time.Since(begin)
			}
		case len(l.Warnings) > 0:
			warned++
		default:
			neither++
		}
	}
	fmt.Printf("RESULT filter_killed filtered=%d warned=%d neither=%d back_ms=%d\n", filtered, warned, neither, back.Milliseconds())
	if neither > 0 || filtered == 0 || back > 3*time.Second {
		t.Errorf("filtered %d, warned %d, neither %d, back after %v", filtered, warned, neither, back)
	}
}

// childrenOf lists the direct children of a process.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	var out []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, child)
		}
	}
	return out
}

// leftovers are sockets and files below a home, and whatever is in its tmp.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if !info.IsDir() || filepath.Dir(path) == filepath.Join(dir, "tmp") {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A behaviour without its process is absent: the daemon links no plugin.
func TestTheDaemonLinksNoPlugin(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/meshhost")
	cmd.Dir = repo(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	n := strings.Count(string(out), "github.com/meshhost/meshhost/plugins/")
	fmt.Printf("RESULT deps plugins_linked=%d packages=%d\n", n, strings.Count(string(out), "\n"))
	if n > 0 {
		t.Errorf("the daemon links %d packages of plugins", n)
	}
}
