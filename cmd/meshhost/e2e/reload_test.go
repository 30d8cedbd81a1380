package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bareOutbox is the outbox block as newDaemon writes it.
const bareOutbox = "outbox \"sqlite\" {\n\n}"

// limit is the outbox block with room for n messages.
func limit(n int) string { return fmt.Sprintf("outbox \"sqlite\" {\n  config { max_rows = %d }\n}", n) }

// sendTo makes one send and returns its status.
func (d *daemon) sendTo(to, text string) int {
	d.w.t.Helper()
	code, _ := d.raw(d.w.t, "POST", "/v1/send", fmt.Sprintf(`{"to":%q,"message":%q}`, to, text))
	return code
}

// waits is how many messages the daemon says it still has to send.
func (d *daemon) waits(t testing.TB, name string) (n int64) {
	t.Helper()
	var st struct {
		Outboxes []struct {
			Name   string           `json:"name"`
			States map[string]int64 `json:"states"`
		} `json:"outboxes"`
	}
	if _, err := d.call("GET", "/v1/status", nil, &st); err != nil {
		t.Fatal(err)
	}
	for _, o := range st.Outboxes {
		if o.Name == name {
			n += o.States["pending"] + o.States["waiting"]
		}
	}
	return n
}

// New limits of an outbox are in force in the process that runs, by the verb and
// by SIGHUP alike, and seen by what is refused.
func TestReloadChangesTheLimitsOfAnOutbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a := w.newDaemon(0, nil)
	a.up()
	sh, absent := a.at(t), w.members[1].PublicKey
	pid := a.pluginPID("outbox", "sqlite")
	a.edit(bareOutbox, limit(2))
	sh.run("reload").exits(0).prints("outbox \"sqlite\": new options in force\n")
	sh.run("reload").exits(0).prints("nothing has changed\n")
	first := []int{a.sendTo(absent, "1"), a.sendTo(absent, "2"), a.sendTo(absent, "3")}
	a.edit(limit(2), limit(3))
	must(t, a.proc.cmd.Process.Signal(syscall.SIGHUP))
	await(t, 20*time.Second, "the log tells of the reload", func() error {
		if n := strings.Count(a.proc.text(), "reload: outbox \"sqlite\": new options in force"); n != 2 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	second := []int{a.sendTo(absent, "3"), a.sendTo(absent, "4")}
	same := a.pluginPID("outbox", "sqlite") == pid
	fmt.Printf("RESULT reload_limits two_rows=%v by_sighup_three_rows=%v same_process=%v\n", first, second, same)
	if fmt.Sprint(first) != "[202 202 503]" || fmt.Sprint(second) != "[202 503]" || !same || a.waits(t, "sqlite") != 3 {
		t.Errorf("answers %v and %v, same process %v, %d messages wait", first, second, same, a.waits(t, "sqlite"))
	}
}

// A file with mistakes changes nothing, and they are shown as validate shows
// them: those that the daemon sees, those that the plugin sees, and by SIGHUP in
// the log.
func TestReloadKeepsTheOldConfigurationWhenTheFileIsBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	sh := a.at(t)
	good, err := os.ReadFile(a.config)
	must(t, err)
	pid := a.pluginPID("outbox", "sqlite")
	shown := 0
	for name, broken := range map[string]string{
		"syntax":           "outbox \"sqlite\" {",
		"unknown block":    bareOutbox + "\noutbax \"x\" {}",
		"no such plugin":   bareOutbox + "\noutbox \"sqlte\" {}",
		"a plugin's typo":  "outbox \"sqlite\" {\n  config { max_row = 3 }\n}",
		"a plugin's limit": "outbox \"sqlite\" {\n  config { max_rows = 0 }\n}",
		"not decided":      bareOutbox + "\noutbox \"memory\" {}",
	} {
		a.edit(bareOutbox, broken)
		asked := shell{t: t, bin: sh.bin, env: sh.env}.run("validate", a.config).exits(3, "mesh.hcl:", "^")
		told := sh.run("reload").exits(3, "the old configuration is kept").prints("")
		if !strings.HasPrefix(told.words, asked.words) {
			t.Errorf("%s: reload says\n%s\nvalidate says\n%s", name, told.words, asked.words)
		} else {
			shown++
		}
		if code := a.sendTo(b.member.PublicKey, name); code != http.StatusAccepted {
			t.Errorf("%s: a send is answered %d", name, code)
		}
		must(t, os.WriteFile(a.config, good, 0o600))
	}
	a.edit(bareOutbox, "outbox \"sqlite\" {")
	must(t, a.proc.cmd.Process.Signal(syscall.SIGHUP))
	await(t, 20*time.Second, "the log tells why", func() error {
		if log := a.proc.text(); strings.Count(log, "the old configuration is kept") != 7 {
			return fmt.Errorf("%d times", strings.Count(log, "the old configuration is kept"))
		}
		return nil
	})
	must(t, os.WriteFile(a.config, good, 0o600))
	sh.run("reload").exits(0).prints("nothing has changed\n")
	await(t, 20*time.Second, "all arrive", func() error {
		if n := len(b.inbox()); n != 6 {
			return fmt.Errorf("%d of 6", n)
		}
		return nil
	})
	same := a.pluginPID("outbox", "sqlite") == pid
	fmt.Printf("RESULT reload_broken files=6 shown_as_validate_shows=%d sends_accepted=6 same_process=%v\n", shown, same)
	if shown != 6 || !same {
		t.Errorf("%d of 6 shown, same process %v", shown, same)
	}
}

// What only a start can do is refused as a whole, with a sentence for each.
func TestReloadRefusesWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a := w.newDaemon(0, nil)
	a.up()
	a.edit(
		bareOutbox, "outbox \"sqlite\" {\n  config { max_rows = 1 }\n}", "data_dir   = \"data\"", "data_dir   = \"data2\"",
		"rpc_feature \"state\" {", "rpc_feature \"state\" {\n  name = \"other\"",
	)
	r := a.at(t).run("reload").exits(10, "data_dir", `rpc_feature "state" is gone`, `rpc_feature "other" is new`, "the old configuration is kept", "start it again")
	absent := w.members[1].PublicKey
	if codes := []int{a.sendTo(absent, "1"), a.sendTo(absent, "2")}; fmt.Sprint(codes) != "[202 202]" {
		t.Errorf("part of the refused file is in force: %v\n%s", codes, r.words)
	}
	if _, err := os.Stat(filepath.Join(a.dir, "data2")); !os.IsNotExist(err) {
		t.Errorf("data2: %v", err)
	}
}

// A plugin that does not start, or would leave messages behind, is not put in
// place of the one that serves; what waits is neither lost nor sent twice.
func TestReloadGoesBackToThePluginThatWorks(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	w := newWorld(t, bin, 2, "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	sh := a.at(t)
	v := newDriver(t, a, b.member.PublicKey)
	v.must(20)
	good, err := os.ReadFile(a.config)
	must(t, err)
	sqlite := filepath.Join(bin.plugins, "meshhost-outbox-sqlite")
	program := fmt.Sprintf("plugin \"alt\" {\n  path = %q\n  env = { ANY = \"1\" }\n}\n", sqlite)
	cases := []struct {
		name, block string
		code        int
		words       []string
	}{
		{"in the same process", "outbox \"sqlite\" {\n  config { path = \"/proc/none/outbox.db\" }\n}", 1, []string{"does not take its new options"}},
		{"in a new process", program + "outbox \"sqlite\" {\n  plugin = \"alt\"\n  config { path = \"/proc/none/outbox.db\" }\n}", 1, []string{"does not take its new options", "the old one runs again"}},
		{"beside it", bareOutbox + "\noutbox \"sqlite\" {\n  name = \"two\"\n  config { path = \"/proc/none/outbox.db\" }\n}\n", 1, []string{`outbox "two" does not start`}},
		{"to another store", "outbox \"sqlite\" {\n  config { path = \"other.db\" }\n}", 1, []string{"another store", "migrate"}},
		{"to another store in a new process", program + "outbox \"sqlite\" {\n  plugin = \"alt\"\n  config { path = \"other.db\" }\n}", 1, []string{"another store"}},
		{"to another plugin", "outbox \"memory\" {\n  name = \"sqlite\"\n}", 10, []string{"memory instead of sqlite"}},
		{"away", "outbox \"memory\" {}", 10, []string{"messages", "migrate sqlite memory"}},
		{"away once more, with what is taken back", limit(1) + "\noutbox \"memory\" {}", 10, []string{"messages", "migrate sqlite memory"}},
	}
	back := 0
	for _, c := range cases {
		a.edit(bareOutbox, c.block)
		switch {
		case c.name == "beside it":
			a.edit("mesh \"team\" {", "mesh \"team\" {\n  outbox = \"sqlite\"")
		case strings.HasPrefix(c.name, "away once more"):
			a.edit("mesh \"team\" {", "mesh \"team\" {\n  outbox = \"memory\"")
		}
		r := sh.run("reload").exits(c.code, append(c.words, "the old configuration is kept")...).prints("")
		if v.send() && r.code == c.code && a.waits(t, "sqlite") == int64(len(v.acceptedIDs())) {
			back++
		} else {
			t.Errorf("%s: %d messages wait, %d were accepted, last error %v", c.name, a.waits(t, "sqlite"), len(v.acceptedIDs()), v.lastError)
		}
		must(t, os.WriteFile(a.config, good, 0o600))
		sh.run("reload").exits(0).prints("nothing has changed\n")
	}
	b.up()
	await(t, 60*time.Second, "all arrive", func() error {
		if n := len(b.inbox()); n < len(v.acceptedIDs()) {
			return fmt.Errorf("%d of %d", n, len(v.acceptedIDs()))
		}
		return nil
	})
	lost, ghost, wrong, err := v.check(b.inbox())
	twice := sentTwice(t, filepath.Join(w.dir, "frames.log"))
	fmt.Printf("RESULT reload_rollback refused=%d of %d accepted=%d lost=%d ghost=%d wrong=%d stored_twice=%d\n",
		back, len(cases), len(v.acceptedIDs()), lost, ghost, wrong, twice)
	if err != nil || twice != 0 || back != len(cases) {
		t.Errorf("stored twice: %d; %v", twice, err)
	}
}

// sentTwice counts the messages that the broker has stored more than once.
func sentTwice(t testing.TB, log string) (n int) {
	t.Helper()
	client, stored := map[string]string{}, map[string]int{}
	for _, l := range frames(t, log) {
		switch {
		case l.Dir == "in" && l.Frame.Type == "send":
			client[l.Frame.ID] = l.Frame.ClientMessageID
		case l.Dir == "out" && l.Frame.Type == "ack" && l.Frame.Queued:
			stored[client[l.Frame.ID]]++
		}
	}
	for _, times := range stored {
		if times > 1 {
			n++
		}
	}
	return n
}

// A plugin that was put out of service for its crashes comes back by a reload.
func TestReloadLiftsAQuarantine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, func(kind, _ string) string {
		if kind == "rpc_feature" {
			return "  restart {\n    initial = \"10ms\"\n    crashes = 2\n  }"
		}
		return ""
	})
	a.up()
	sh := a.at(t)
	crashes := 0
	await(t, 20*time.Second, "it is quarantined", func() error {
		row := sh.plugin("state")
		if row.State == "ready" && row.PID > 0 && kill9(row.PID) {
			crashes++
		}
		if row.State != "quarantined" {
			return fmt.Errorf("it is %s", row.State)
		}
		return nil
	})
	sh.run("state", "list").exits(1)
	sh.run("reload").exits(0).prints("rpc_feature \"state\": out of quarantine\n")
	after := sh.plugin("state").State
	sh.run("state", "list").exits(0)
	fmt.Printf("RESULT reload_quarantine crashes=%d after=%s\n", crashes, after)
	if after != "ready" || crashes < 2 {
		t.Errorf("after %d crashes and a reload it is %s", crashes, after)
	}
}

// A daemon that is told to stop during a reload stops as it would without one,
// and nothing of the reload is left.
func TestADaemonStopsDuringAReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, nil)
	a.up()
	script, pidFile := filepath.Join(a.dir, "slow"), filepath.Join(a.dir, "pid")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\necho $$ > "+pidFile+".tmp\nmv "+pidFile+".tmp "+pidFile+"\nexec sleep 60\n"), 0o700))
	a.edit(bareOutbox, fmt.Sprintf("plugin \"slow\" {\n  path = %q\n}\n%s\noutbox \"slow\" {\n  plugin = \"slow\"\n}", script, bareOutbox),
		"mesh \"team\" {", "mesh \"team\" {\n  outbox = \"sqlite\"")
	told := make(chan said, 1)
	go func() { told <- a.at(t).run("reload") }()
	pid := 0
	await(t, 20*time.Second, "the new plugin starts", func() error {
		raw, err := os.ReadFile(pidFile)
		if err != nil {
			return err
		}
		_, err = fmt.Sscan(string(raw), &pid)
		return err
	})
	took := a.proc.signal(syscall.SIGTERM, 10*time.Second)
	(<-told).exits(4)
	left := gone(pid)
	fmt.Printf("RESULT reload_stop seconds=%.1f exit=%v plugin_gone=%v\n", took.Seconds(), a.proc.cmd.ProcessState.ExitCode(), left == nil)
	if left != nil || a.proc.cmd.ProcessState.ExitCode() != 0 || took > 8*time.Second {
		t.Errorf("stopped in %v with %v; %v", took, a.proc.cmd.ProcessState, left)
	}
}
