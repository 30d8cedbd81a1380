package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// alone is a shell in a directory of its own, far from any daemon.
func alone(t *testing.T, bin built) (shell, string) {
	t.Helper()
	dir := shortDir(t)
	return shell{t: t, bin: bin.meshhost, env: without(socketVariables, "HOME="+dir)}, dir
}

func TestUsageMistakesExitTwoOnStderr(t *testing.T) {
	t.Parallel()
	s, _ := alone(t, binaries(t))
	for _, args := range [][]string{
		{},
		{"-frob"},
		{"--frob"},
		{"status", "-frob"},
		{"peer", "frob"},
		{"peer"},
		{"outbox", "list", "x"},
		{"plugin", "info"},
		{"-dev", "-config", "x"},
		{"-dev", "-socket", "x"},
		{"-config"},
		{"-dev", "stray"},
		{"version", "x"},
		{"validate", "a", "b"},
		{"fmt", "-check", "-w"},
		{"fmt", "-json"},
		{"devbroker"},
		{"devbroker", "-seed", "a", "-new", "b"},
		{"devbroker", "-members", "0", "-new", "x"},
		{"devbroker", "-seed", "x", "-members", "3"},
		{"devbroker", "-new", "x", "-capacity", "3"},
		{"devbroker", "-seed", "x", "-capacity", "-1"},
		{"status", "-json=a,,b"},
		{"outbox", "frob", "x"},
		{"send", "to"},
	} {
		if r := s.run(args...).exits(2); r.out != "" || r.words == "" {
			t.Errorf("%q: stdout %q, stderr %q", args, r.out, r.words)
		}
	}
	if r := s.run("frobnicate").exits(4, "frobnicate"); r.out != "" {
		t.Errorf("stdout %q", r.out)
	}
}

func TestVersionSaysWhatTheBinarySpeaks(t *testing.T) {
	t.Parallel()
	s, _ := alone(t, binaries(t))
	must(t, s.run("version").has("meshhost ", "API v1", "plugin protocol 1", "go1."))
	var v struct {
		API      string `json:"api"`
		Protocol int    `json:"plugin_protocol"`
		Version  string `json:"version"`
		SDK      string `json:"sdk"`
	}
	s.run("--json", "version").into("version/v1", &v)
	if v.API != "v1" || v.Protocol != 1 || v.Version == "" || v.SDK == "" {
		t.Errorf("%+v", v)
	}
}

func TestValidateTakesFilesDirectoriesAndFlags(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	dir := stage(t, bin, filepath.Join(repo(t), "examples", "configs", "minimal.hcl"), 0o600)
	s := shell{t: t, bin: bin.meshhost, env: without(socketVariables, "HOME="+dir)}
	file := filepath.Join(dir, "mesh.hcl")
	s.run("validate", file).exits(0).prints(file + " is valid\n")
	s.run("validate", "-config", file).exits(0).prints(file + " is valid\n")
	s.run("-config", "elsewhere", "validate", file).exits(0)
	s.run("validate", dir).exits(0)
	var ok struct {
		Valid       bool             `json:"valid"`
		Diagnostics []map[string]any `json:"diagnostics"`
	}
	s.run("validate", file, "-json").into("validate/v1", &ok)
	if !ok.Valid || len(ok.Diagnostics) != 0 {
		t.Errorf("%+v", ok)
	}
	s.run("validate", filepath.Join(dir, "none.hcl")).exits(3, "none.hcl")

	src, err := os.ReadFile(file)
	must(t, err)
	bad := filepath.Join(shortDir(t), "bad.hcl")
	text := string(src) + "rpc_feature \"state\" {\n  config {\n    frob = 1\n  }\n}\n"
	text = strings.ReplaceAll(text, `"team.key"`, fmt.Sprintf("%q", filepath.Join(dir, "team.key")))
	text = strings.ReplaceAll(text, `"./bin/plugins"`, fmt.Sprintf("%q", filepath.Join(dir, "plugins")))
	must(t, os.WriteFile(bad, []byte(text), 0o600))
	r := s.run("validate", bad, "-json")
	if err := json.Unmarshal([]byte(r.out), &ok); r.code != 3 || err != nil || ok.Valid || len(ok.Diagnostics) != 1 || !strings.Contains(fmt.Sprint(ok.Diagnostics[0]), "frob") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.words)
	}
	s.run("validate", bad, "-no-plugins").exits(0) // options of plugins stay unchecked
	s.run("-config", bad, "validate").exits(3, "frob", "bad.hcl")
	// The default is mesh.hcl here.
	missing := s.run("validate")
	missing.exits(3, "mesh.hcl")
}

func TestFmtFormats(t *testing.T) {
	t.Parallel()
	s, dir := alone(t, binaries(t))
	const ugly, neat = "mesh \"a\" {\nx=1\n  long = 2\n}\n", "mesh \"a\" {\n  x    = 1\n  long = 2\n}\n"
	file := filepath.Join(dir, "a.hcl")
	must(t, os.WriteFile(file, []byte(ugly), 0o640))
	s.run("fmt", file).exits(0).prints(neat)
	s.feed(ugly, "fmt", "-").exits(0).prints(neat)
	s.run("fmt", "-check", file).exits(1, "not formatted").prints(file + "\n")
	s.run("fmt", "--w", dir).exits(0).prints("")
	if got, err := os.ReadFile(file); err != nil || string(got) != neat || mode(t, file) != 0o640 {
		t.Errorf("%q, mode %04o, %v", got, mode(t, file), err)
	}
	s.run("fmt", "-check", dir).exits(0).prints("")
	s.run("-config", file, "fmt").exits(0).prints(neat)
	s.feed("mesh \"a\" {", "fmt", "-").exits(3)
	s.feed(ugly, "fmt", "-w", "-").exits(2)
	s.run("fmt", filepath.Join(dir, "none.hcl")).exits(5)
}

// The broker's limits are felt, and the outbox learns the pace: nothing dies
// of it.
func TestTheBrokersRateIsLearned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2, "-send-burst", "10", "-send-per-minute", "60", "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	v := newDriver(t, a, b.member.PublicKey)
	begin := time.Now()
	v.must(15)
	await(t, 40*time.Second, "all 15 arrive", func() error {
		if n := len(b.inbox()); n < 15 {
			return fmt.Errorf("%d did", n)
		}
		return nil
	})
	took := time.Since(begin)
	limited := 0
	for _, f := range frames(t, filepath.Join(w.dir, "frames.log")) {
		if f.Dir == "out" && strings.Contains(f.text, "rate") && strings.Contains(f.text, "limit") {
			limited++
		}
	}
	sh := a.at(t)
	if r := sh.run("outbox", "list", "-status", "dead", "-json=id").exits(0); !strings.Contains(r.out, `"items":[]`) {
		t.Errorf("dead rows: %s", r.out)
	}
	if limited == 0 || took < 3*time.Second {
		t.Errorf("15 messages in %v, %d answers of the limit: there was none", took, limited)
	}
	fmt.Printf("RESULT paced messages=15 seconds=%.1f limit_answers=%d dead=0\n", took.Seconds(), limited)
}

// logged is a line of the broker's log with its text.
type logged struct {
	frame
	text string
}

func frames(t testing.TB, path string) []logged {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	var out []logged
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		l := logged{text: lines.Text()}
		if json.Unmarshal(lines.Bytes(), &l.frame) == nil {
			out = append(out, l)
		}
	}
	must(t, lines.Err())
	return out
}

func TestFlagsOfTheBroker(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	s, dir := alone(t, bin)
	seed := filepath.Join(dir, "seed.json")
	must(t, s.run("devbroker", "-new", seed, "--members", "3", "-listen", "127.0.0.1:7999").has("ws://127.0.0.1:7999/ws", "mesh "))
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 3 || mode(t, keys[0]) != 0o600 || mode(t, seed) != 0o600 {
		t.Errorf("%v, %v", keys, err)
	}
	s.run("devbroker", "-new", seed).exits(1, "seed.json")
	s.run("devbroker", "-seed", filepath.Join(dir, "none.json")).exits(5, "none.json")

	// -capacity: the second connection finds no room, says so, and gets in
	// when there is some. -data keeps state over a kill.
	w := newWorld(t, bin, 2, "-capacity", "1", "-data", "DIR/data", "-log", "DIR/log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	a.at(t).run("state", "set", "k", "1").exits(0)
	b.launch()
	await(t, 20*time.Second, "b finds no room", func() error { return b.at(t).run("status").has("reconnecting", "capacity") })
	w.broker.kill9()
	await(t, 10*time.Second, "a notices", func() error {
		if r := a.at(t).run("state", "get", "k"); r.code == 0 {
			return fmt.Errorf("it answers %s", r.out)
		}
		return nil
	})
	w.startBroker()
	a.ready()
	a.at(t).run("state", "get", "k").exits(0).prints("1\n")
	if all := frames(t, filepath.Join(w.dir, "log")); len(all) == 0 || all[0].MonoNS == 0 || all[0].Dir == "" {
		t.Errorf("the log has %d lines", len(all))
	}
	// A second one on the same address or the same data changes nothing for the first.
	data := filepath.Join(w.dir, "data")
	before, err := os.Stat(data)
	must(t, err)
	own := []string{"devbroker", "-seed", filepath.Join(w.dir, "seed.json"), "-data", data}
	s.run(append(own, "-listen", w.addr)...).exits(1, "-listen")
	s.run(append(own, "-listen", "127.0.0.1:0")...).exits(1, "in use")
	if after, err := os.Stat(data); err != nil || !os.SameFile(before, after) {
		t.Errorf("the data file of a running broker was replaced: %v", err)
	}
	w.broker.signal(syscall.SIGINT, 5*time.Second)
}
