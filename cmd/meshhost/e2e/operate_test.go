package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// shell runs verbs: the binary, an environment, and flags that stand before
// each verb.
type shell struct {
	t     testing.TB
	bin   string
	env   []string
	flags []string
}

// at is a shell beside a daemon, which it finds by -socket.
func (d *daemon) at(t testing.TB) shell {
	return shell{t: t, bin: d.w.bin.meshhost, env: os.Environ(), flags: []string{"-socket", d.socket}}
}

// said is what one run of a verb came to.
type said struct {
	t          testing.TB
	line       string
	out, words string
	code       int
}

func (s shell) run(args ...string) said { s.t.Helper(); return s.feed("", args...) }

// feed is run with something on stdin.
func (s shell) feed(stdin string, args ...string) said {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, slices.Concat(s.flags, args)...)
	cmd.Env = s.env
	cmd.Stdin = strings.NewReader(stdin)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	if cmd.ProcessState == nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return said{s.t, strings.Join(args, " "), out.String(), words.String(), cmd.ProcessState.ExitCode()}
}

// exits checks the exit code and that stderr has each of the words.
func (r said) exits(code int, words ...string) said {
	r.t.Helper()
	missing := slices.DeleteFunc(words, func(w string) bool { return strings.Contains(r.words, w) })
	if r.code != code || len(missing) > 0 {
		r.t.Errorf("%s: exit %d, want %d; words missing: %q\nstdout: %s\nstderr: %s", r.line, r.code, code, missing, r.out, r.words)
	}
	return r
}

// prints checks stdout.
func (r said) prints(want string) said {
	r.t.Helper()
	if r.out != want {
		r.t.Errorf("%s: printed %q, want %q\nstderr: %s", r.line, r.out, want, r.words)
	}
	return r
}

// into decodes stdout, which must be one JSON object of a schema.
func (r said) into(schema string, v any) said {
	r.t.Helper()
	r.exits(0)
	var s struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.Schema != schema || strings.Count(r.out, "\n") != 1 {
		r.t.Fatalf("%s: %v, schema %q, want %q: %s", r.line, err, s.Schema, schema, r.out)
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		r.t.Fatalf("%s: %v: %s", r.line, err, r.out)
	}
	return r
}

// has is nil when stdout contains all of these.
func (r said) has(parts ...string) error {
	for _, p := range parts {
		if r.code != 0 || !strings.Contains(r.out, p) {
			return fmt.Errorf("%s: exit %d, without %q:\n%s%s", r.line, r.code, p, r.out, r.words)
		}
	}
	return nil
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// edit changes a daemon's configuration.
func (d *daemon) edit(pairs ...string) {
	d.w.t.Helper()
	src, err := os.ReadFile(d.config)
	must(d.w.t, err)
	text := string(src)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			d.w.t.Fatalf("the configuration has no %q", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	must(d.w.t, os.WriteFile(d.config, []byte(text), 0o600))
}

// text is what a process has written.
func (p *process) text() string {
	p.t.Helper()
	raw, err := os.ReadFile(p.log)
	must(p.t, err)
	return string(raw)
}

// without are the variables of the environment but some, and then more.
func without(names []string, more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
	return append(env, more...)
}

func mode(t testing.TB, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Mode().Perm()
}

var socketVariables = []string{"MESHHOST_SOCKET", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"}

func TestVerbsFindTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	pid := func(d *daemon) string { return fmt.Sprintf(`{"schema":"status/v1","pid":%d}`+"\n", d.proc.pid()) }
	bare := shell{t: t, bin: w.bin.meshhost, env: without(socketVariables, "HOME="+w.dir)}
	both := bare
	both.env = append(slices.Clone(bare.env), "MESHHOST_SOCKET="+b.socket)
	bare.run("-socket", a.socket, "status", "-json=pid").exits(0).prints(pid(a))
	bare.run("--config", a.config, "status", "--json=pid").exits(0).prints(pid(a))
	bare.run("status", "-config="+a.config, "-json=pid").exits(0).prints(pid(a))
	both.run("status", "-json=pid").exits(0).prints(pid(b))
	both.run("-socket", a.socket, "-config", b.config, "status", "-json=pid").exits(0).prints(pid(a))
	both.run("-config", a.config, "status", "-json=pid").exits(0).prints(pid(b))
	bare.run("status").exits(4, filepath.Join(w.dir, ".local/state/meshhost/run/meshhost.sock"))
	bare.run("-socket", filepath.Join(w.dir, "none"), "inbox").exits(4, "none")
	bare.run("-config", filepath.Join(w.dir, "none.hcl"), "status").exits(3, "none.hcl")
	if got := mode(t, a.socket); got != 0o600 {
		t.Errorf("the socket has mode %04o", got)
	}

	// One daemon for each data_dir, whatever its socket.
	a.edit(`control { socket = "s" }`, `control { socket = "s2" }`)
	second := start(t, "second", nil, w.bin.meshhost, "-config", a.config)
	select {
	case <-second.done:
	case <-time.After(10 * time.Second):
		t.Fatal("a second daemon runs on one data_dir")
	}
	said := second.text()
	if second.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, fmt.Sprintf("pid %d, socket %s", a.proc.pid(), a.socket)) || !strings.Contains(said, "data_dir") {
		t.Errorf("exit %d: %s", second.cmd.ProcessState.ExitCode(), said)
	}
	// One socket for each daemon, whatever its data_dir; and without a control
	// block it is the default.
	for _, c := range []struct {
		env    []string
		socket string
	}{
		{[]string{"XDG_RUNTIME_DIR=" + w.dir + "/xr", "HOME=" + w.dir}, w.dir + "/xr/meshhost/meshhost.sock"},
		{[]string{"HOME=" + w.dir}, w.dir + "/.local/state/meshhost/run/meshhost.sock"},
		{[]string{"HOME=" + w.dir, "XDG_STATE_HOME=" + w.dir + "/xs"}, w.dir + "/xs/meshhost/run/meshhost.sock"},
	} {
		b.proc.signal(syscall.SIGTERM, 10*time.Second)
		src, err := os.ReadFile(b.config)
		must(t, err)
		must(t, os.WriteFile(b.config, bytes.Replace(src, []byte(`control { socket = "s" }`), nil, 1), 0o600))
		env := without(socketVariables, c.env...)
		b.proc = start(t, "default socket", env, w.bin.meshhost, "-config", b.config)
		b.socket = c.socket
		b.ready()
		beside := shell{t: t, bin: w.bin.meshhost, env: env}
		beside.run("status", "-json=pid").exits(0).prints(pid(b))
		if got := mode(t, filepath.Dir(c.socket)); got != 0o700 {
			t.Errorf("the directory of %s has mode %04o", c.socket, got)
		}
		if got := mode(t, c.socket); got != 0o600 {
			t.Errorf("%s has mode %04o", c.socket, got)
		}
	}
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	a.edit(`control { socket = "s2" }`, fmt.Sprintf("control { socket = %q }", b.socket))
	third := start(t, "third", nil, w.bin.meshhost, "-config", a.config)
	<-third.done
	if third.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(third.text(), "another daemon answers on this socket") {
		t.Errorf("a taken socket: exit %d: %s", third.cmd.ProcessState.ExitCode(), third.text())
	}
	if _, err := os.Stat(a.socket); !os.IsNotExist(err) {
		t.Errorf("the stopped daemon's socket: %v", err)
	}
}

func TestASecondSignalEndsTheDaemonAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, nil)
	a.up()
	var st status
	_, err := a.call("GET", "/v1/status", nil, &st)
	must(t, err)
	must(t, syscall.Kill(a.pluginPID("rpc_feature", "state"), syscall.SIGSTOP))
	must(t, a.proc.cmd.Process.Signal(syscall.SIGTERM))
	await(t, 5*time.Second, "it is stopping", func() error {
		if !strings.Contains(a.proc.text(), "stopping") {
			return errors.New("not yet")
		}
		return nil
	})
	took := a.proc.signal(syscall.SIGTERM, 2*time.Second)
	ws, ok := a.proc.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		t.Errorf("it ended by itself: %v", a.proc.cmd.ProcessState)
	}
	for _, p := range st.Plugins {
		await(t, 5*time.Second, p.Name+" is gone", func() error { return gone(p.PID) })
	}
	fmt.Printf("RESULT second_signal ms=%d plugins_left=0\n", took.Milliseconds())
}

// One frozen plugin takes its time of the stop and no more; the rest ends in
// order.
func TestAFrozenPluginDoesNotHoldTheStopForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, nil)
	a.up()
	pid := a.pluginPID("rpc_feature", "state")
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	took := a.proc.signal(syscall.SIGTERM, 12*time.Second)
	if err := gone(pid); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(a.socket); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
	fmt.Printf("RESULT frozen_stop ms=%d\n", took.Milliseconds())
}

// pluginRow is one of `plugin list -json`.
type pluginRow struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	State     string `json:"state"`
	Version   string `json:"version"`
	PID       int    `json:"pid"`
	Restarts  int    `json:"restarts"`
	LastError string `json:"last_error"`
}

func (s shell) plugin(name string) pluginRow {
	s.t.Helper()
	var list struct {
		Plugins []pluginRow `json:"plugins"`
	}
	s.run("plugin", "list", "-json").into("plugin_list/v1", &list)
	for _, p := range list.Plugins {
		if p.Name == name {
			return p
		}
	}
	s.t.Fatalf("no plugin %s in %+v", name, list.Plugins)
	return pluginRow{}
}

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
	must(t, syscall.Kill(special.PID, syscall.SIGSTOP))
	begin := time.Now()
	sh.run("shared", "get", "k").exits(8)
	if took := time.Since(begin); took < 600*time.Millisecond || took > 5*time.Second {
		t.Errorf("call = 700ms took %v", took)
	}
	must(t, syscall.Kill(special.PID, syscall.SIGCONT))

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
		must(t, syscall.Kill(pid, syscall.SIGKILL))
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
	must(t, syscall.Kill(sh.plugin("role").PID, syscall.SIGKILL))
	await(t, 10*time.Second, "lists fail", func() error {
		if r := sh.run("peer", "list"); r.code == 0 || !strings.Contains(r.words, "role") {
			return fmt.Errorf("exit %d: %s", r.code, r.words)
		}
		return nil
	})
}

func TestTheLogIsWhatTheLogBlockSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, nil)
	for _, c := range []struct {
		block       string
		json, debug bool
	}{
		{`log { format = "text" }`, false, false},
		{"log {\n level = \"debug\"\n format = \"json\"\n}", true, true},
	} {
		if c.json {
			a.edit(`log { format = "text" }`, c.block)
		}
		a.up()
		a.proc.signal(syscall.SIGTERM, 10*time.Second)
		said := a.proc.text()
		debug := strings.Contains(said, "[DEBUG]") || strings.Contains(said, `"@level":"debug"`)
		if debug != c.debug || !strings.Contains(said, "stopping") {
			t.Errorf("%s: debug lines %v:\n%s", c.block, debug, said)
		}
		for line := range strings.Lines(said) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); (err == nil) != c.json {
				t.Errorf("%s: a line is %s", c.block, line)
				break
			}
		}
		if code := a.proc.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("an orderly stop exits %d", code)
		}
		key, err := os.ReadFile(filepath.Join(w.dir, a.name+".key"))
		must(t, err)
		if strings.Contains(said, strings.TrimSpace(string(key))[:64]) {
			t.Error("the log has the secret key")
		}
	}
	a.edit(`level = "debug"`, `level = "error"`)
	a.up()
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	if said := a.proc.text(); said != "" {
		t.Errorf("at level error a quiet life says:\n%s", said)
	}
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
	must(t, syscall.Kill(a.pluginPID("outbox", "memory"), syscall.SIGKILL))
	a.ready()
	if r := sh.run("outbox", "list"); strings.Contains(r.out, absent[:16]) {
		t.Errorf("it remembers after its end:\n%s", r.out)
	}
}

// Two meshes on two brokers, in one daemon with two outboxes.
func TestTwoMeshesInOneDaemon(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	w1, w2 := newWorld(t, bin, 2), newWorld(t, bin, 2)
	a := w1.newDaemon(0, nil)
	m := w2.members[0]
	a.edit(`outbox "sqlite" {`, fmt.Sprintf("mesh \"other\" {\n broker_url = \"ws://%s/ws\"\n mesh_id = %q\n member_id = %q\n secret_key_file = %q\n outbox = \"second\"\n}\noutbox \"sqlite\" {\n name = \"second\"\n}\noutbox \"sqlite\" {",
		w2.addr, m.meshID, m.MemberID, filepath.Join(w2.dir, m.DisplayName+".key")),
		"mesh \"team\" {", "mesh \"team\" {\n outbox = \"sqlite\"")
	b1, b2 := w1.newDaemon(1, nil), w2.newDaemon(1, nil)
	for _, d := range []*daemon{a, b1, b2} {
		d.up()
	}
	sh := a.at(t)
	for _, args := range [][]string{{"send", b1.member.PublicKey, "m"}, {"state", "get", "k"}, {"state", "list"}, {"peers", "summary", "s"}} {
		sh.run(args...).exits(2, "-mesh")
		sh.run(append(args, "-mesh", "nowhere")...).exits(5, "nowhere")
	}
	sh.run("peer", "list", "-mesh", "nowhere").exits(5, "nowhere")
	for mesh, to := range map[string]*daemon{"team": b1, "other": b2} {
		sh.run("send", to.member.PublicKey, "for "+mesh, "-mesh", mesh, "-wait", "delivered").exits(0)
		await(t, 10*time.Second, "it arrives in "+mesh, func() error { return to.at(t).run("inbox").has("for " + mesh) })
		var l peerList
		sh.run("peer", "list", "-all", "-mesh", mesh, "-json").into("peer_list/v1", &l)
		for _, p := range l.Peers {
			if p["mesh"] != mesh {
				t.Errorf("-mesh %s lists %v", mesh, p)
			}
		}
		sh.run("state", "set", "k", `"`+mesh+`"`, "-mesh", mesh).exits(0)
		to.at(t).run("state", "get", "k").exits(0).prints(mesh + "\n")
		var page struct {
			Items []struct {
				Mesh string `json:"mesh"`
			} `json:"items"`
		}
		sh.run("outbox", "list", "-mesh", mesh, "-json").into("outbox_list/v1", &page)
		if len(page.Items) != 1 || page.Items[0].Mesh != mesh {
			t.Errorf("outbox -mesh %s: %+v", mesh, page)
		}
	}
	var l peerList
	sh.run("peer", "list", "-all", "-json").into("peer_list/v1", &l)
	seen := map[any]bool{}
	for _, p := range l.Peers {
		seen[p["mesh"]] = true
	}
	if len(seen) != 2 {
		t.Errorf("without -mesh: rows of %v", seen)
	}
	for _, path := range []string{"outbox-sqlite", "outbox-second"} {
		if _, err := os.Stat(filepath.Join(a.dir, "data", "plugins", path, "outbox.db")); err != nil {
			t.Error(err)
		}
	}
	w1.broker.kill() // one dead mesh leaves the other working
	sh.run("send", b2.member.PublicKey, "still", "-mesh", "other", "-wait", "delivered").exits(0)
	sh.run("peer", "list", "-all").exits(0, "team")
}

// raw makes one request as it is and returns the answer's status and body.
func (d *daemon) raw(t testing.TB, method, path, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := d.http.Do(req)
	must(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(raw)
}

// Who is not let in learns so, from the status and by the exit code; what is
// sent meanwhile is kept.
func TestARejectedMemberIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	w.broker.kill()
	seed := filepath.Join(w.dir, "seed.json")
	raw, err := os.ReadFile(seed)
	must(t, err)
	var s map[string]any
	must(t, json.Unmarshal(raw, &s))
	s["meshes"].([]any)[0].(map[string]any)["members"].([]any)[0].(map[string]any)["revoked"] = true
	raw, err = json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(seed, raw, 0o600))
	w.startBroker()
	a := w.newDaemon(0, nil)
	a.launch()
	sh := a.at(t)
	await(t, 20*time.Second, "the status says so", func() error { return sh.run("status").has("rejected", "revoked") })
	sh.run("status").exits(0)
	sh.run("peer", "list").exits(9, "rejected")
	sh.run("state", "get", "k").exits(9, "rejected")
	id := strings.TrimSpace(sh.run("send", w.members[1].PublicKey, "kept").exits(0).out)
	if row := sh.outboxRow(id); row.State != "pending" {
		t.Errorf("%+v", row)
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
