package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

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
	signalPID(t, a.pluginPID("rpc_feature", "state"), syscall.SIGSTOP)
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
	signalPID(t, pid, syscall.SIGSTOP)
	took := a.proc.signal(syscall.SIGTERM, 12*time.Second)
	if err := gone(pid); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(a.socket); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
	fmt.Printf("RESULT frozen_stop ms=%d\n", took.Milliseconds())
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
	sh.run("peer", "list", "-json").into("peer_list/v1", &l)
	if len(l.Peers) != 0 || len(l.Hidden) != 1 || l.Hidden[0].Count != 4 {
		t.Errorf("what is hidden in two meshes: %+v", l)
	}
	for _, path := range []string{"outbox-sqlite", "outbox-second"} {
		if _, err := os.Stat(filepath.Join(a.dir, "data", "plugins", path, "outbox.db")); err != nil {
			t.Error(err)
		}
	}
	w1.broker.kill9() // one dead mesh leaves the other working
	sh.run("send", b2.member.PublicKey, "still", "-mesh", "other", "-wait", "delivered").exits(0)
	sh.run("peer", "list", "-all").exits(0, "team")
	w2.broker.kill()
	await(t, 10*time.Second, "the loss is noticed", func() error {
		if r := sh.run("peer", "list", "-all"); r.code != 1 || r.words == "" {
			return fmt.Errorf("without any broker a list exits %d: %s", r.code, r.words)
		}
		return nil
	})
}

// Who is not let in learns so, from the status and by the exit code; what is
// sent meanwhile is kept.
func TestARejectedMemberIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	w.broker.kill9()
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
