package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBlocksOfPluginsDoWhatTheySay(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	w := newWorld(t, bin, 2)
	path := filepath.Join(bin.plugins, "meshhost-feature-state")
	raw, err := os.ReadFile(path)
	must(t, err)
	sum := fmt.Sprintf("%x", sha256.Sum256(raw))
	a := w.newDaemon(0, func(kind, label string) string {
		switch kind + " " + label {
		case "rpc_feature state":
			return `name = "shared"` + "\n" + `plugin = "special"`
		case "rpc_feature peers":
			return `plugin = "wrong"`
		case "peer_filter role":
			return `on_error = "hide"` + "\nrestart {\n initial = \"50ms\"\n max = \"60ms\"\n crashes = 2\n window = \"1m\"\n}"
		}
		return ""
	})
	a.edit("log {", fmt.Sprintf(`plugin "special" {
  path = %q
  sha256 = %q
  args = ["-note", "for ps"]
  env = { SPECIAL = env("NOT_SET", "yes") }
  timeouts {
    start = "8s"
    call = "700ms"
  }
}
plugin "wrong" {
  path = %q
  sha256 = %q
}
log {`, path, sum, filepath.Join(bin.plugins, "meshhost-feature-peers"), sum))
	a.launch()
	sh := a.at(t)
	await(t, 20*time.Second, "status exits 0", func() error {
		if r := sh.run("status"); r.code != 0 {
			return fmt.Errorf("%d: %s", r.code, r.words)
		}
		return nil
	})
	await(t, 20*time.Second, "the mesh is open", func() error { return sh.run("status").has("open") })

	// A known broken plugin is no reason to wait, and says what is wrong.
	if p := sh.plugin("peers"); p.State != "quarantined" || !strings.Contains(p.LastError, "sha256") && !strings.Contains(p.LastError, "checksum") {
		t.Errorf("a wrong checksum: %+v", p)
	}
	sh.run("status").exits(0, "rpc_feature(peers)", "out of service")
	sh.run("peers", "summary", "x").exits(1, "peers")

	// args, env, name, data dir.
	special := sh.plugin("shared")
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", special.PID))
	must(t, err)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", special.PID))
	must(t, err)
	if !strings.Contains(string(cmdline), "-note\x00for ps") || !strings.Contains(string(environ), "SPECIAL=yes\x00") {
		t.Errorf("args %q, env %q", cmdline, environ)
	}
	if strings.Contains(string(environ), "HOME=") && os.Getenv("HOME") != "" && strings.Contains(string(environ), "MESHHOST_SOCKET") {
		t.Errorf("the host's environment went along: %q", environ)
	}
	if got := mode(t, filepath.Join(a.dir, "data", "plugins", "feature-shared")); got != 0o700 {
		t.Errorf("the data directory has mode %04o", got)
	}
	sh.run("shared", "set", "k", "1").exits(0).prints("1\n")
	sh.run("state", "get", "k").exits(2, "state")

	// timeouts: a frozen plugin is given up after its own time.
	signalPID(t, special.PID, syscall.SIGSTOP)
	begin := time.Now()
	sh.run("shared", "get", "k").exits(8)
	if took := time.Since(begin); took < 600*time.Millisecond || took > 5*time.Second {
		t.Errorf("call = 700ms took %v", took)
	}
	signalPID(t, special.PID, syscall.SIGCONT)

	// on_error = "hide": while the filter is broken nothing is shown, and the
	// list says so. crashes = 2: the second kill is the last.
	for range 2 {
		pid := 0
		await(t, 10*time.Second, "the filter is up", func() error {
			if p := sh.plugin("role"); p.State != "ready" || p.PID == 0 {
				return fmt.Errorf("%+v", p)
			} else {
				pid = p.PID
			}
			return nil
		})
		signalPID(t, pid, syscall.SIGKILL)
		await(t, 10*time.Second, "the kill is noticed", func() error {
			if p := sh.plugin("role"); p.PID == pid {
				return errors.New("it is listed")
			}
			return nil
		})
	}
	await(t, 10*time.Second, "the filter is quarantined", func() error {
		if p := sh.plugin("role"); p.State != "quarantined" || p.LastError == "" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	var l peerList
	sh.run("peer", "list", "-json").into("peer_list/v1", &l).exits(0, "role")
	if len(l.Peers) != 0 || len(l.Warnings) == 0 {
		t.Errorf("on_error = hide showed %d rows, warnings %v", len(l.Peers), l.Warnings)
	}
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	// "fail" is an error instead of a list.
	a.edit(`on_error = "hide"`, `on_error = "fail"`, "crashes = 2", "crashes = 1")
	a.launch()
	await(t, 20*time.Second, "the daemon is up again", func() error { return sh.run("status").has("open") })
	await(t, 10*time.Second, "the filter is up", func() error {
		if p := sh.plugin("role"); p.State != "ready" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	signalPID(t, sh.plugin("role").PID, syscall.SIGKILL)
	await(t, 10*time.Second, "lists fail", func() error {
		if r := sh.run("peer", "list"); r.code == 0 || !strings.Contains(r.words, "role") {
			return fmt.Errorf("exit %d: %s", r.code, r.words)
		}
		return nil
	})
}

func TestAnOutboxInMemorySaysThatItForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a := w.newDaemon(0, nil)
	a.edit(`outbox "sqlite"`, `outbox "memory"`)
	a.up()
	sh := a.at(t)
	var reply struct {
		Durable *bool `json:"durable"`
	}
	absent := w.members[1].PublicKey
	code, err := a.call("POST", "/v1/send", sendBody{To: absent, Message: "m"}, &reply)
	if code != http.StatusAccepted || reply.Durable == nil || *reply.Durable {
		t.Errorf("%d, %+v, %v", code, reply, err)
	}
	sh.run("send", absent, "m").exits(0, "memory only")
	sh.run("status").exits(0, "not durable")
	if err := sh.run("outbox", "list").has(absent[:16]); err != nil {
		t.Error(err)
	}
	pid := a.pluginPID("outbox", "memory")
	signalPID(t, pid, syscall.SIGKILL)
	await(t, 10*time.Second, "another process is the outbox", func() error {
		if now := a.pluginPID("outbox", "memory"); now == pid || now == 0 {
			return fmt.Errorf("pid %d", now)
		}
		return nil
	})
	a.ready()
	if r := sh.run("outbox", "list").exits(0); strings.Contains(r.out, absent[:16]) {
		t.Errorf("it remembers after its end:\n%s", r.out)
	}
}

// A program that never says hello is given its start timeout, and no more
// starts than its restart block allows.
func TestAPluginThatDoesNotStartIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	sleep, err = filepath.EvalSymlinks(sleep)
	must(t, err)
	a := w.newDaemon(0, func(kind, label string) string {
		if label == "peers" {
			return `plugin = "silent"`
		}
		return ""
	})
	a.edit("log {", fmt.Sprintf("plugin \"silent\" {\n path = %q\n args = [\"60\"]\n timeouts {\n start = \"300ms\"\n }\n restart {\n initial = \"50ms\"\n max = \"100ms\"\n crashes = 2\n window = \"1m\"\n }\n}\nlog {", sleep))
	a.launch()
	sh := a.at(t)
	await(t, 20*time.Second, "it is given up", func() error {
		r := sh.run("status")
		if r.code != 0 {
			return fmt.Errorf("exit %d: %s", r.code, r.words)
		}
		if p := sh.plugin("peers"); p.State != "quarantined" || !strings.Contains(p.LastError, "300ms") || p.Restarts > 2 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	// The mesh did not wait for it longer than for any feature.
	await(t, 5*time.Second, "the mesh is open", func() error { return sh.run("status").has("open") })
	sh.run("peers", "summary", "x").exits(1, "quarantined")
}
