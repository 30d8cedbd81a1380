package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
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
