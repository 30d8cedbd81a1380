package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

func TestFormatLaysOutAndKeepsComments(t *testing.T) {
	got := string(Format([]byte("# top\nmesh \"team\" {\n      mesh_id=\"m\" # the id\n  broker_url   =   \"ws://127.0.0.1/ws\"\n}\n")))
	want := "# top\nmesh \"team\" {\n  mesh_id    = \"m\" # the id\n  broker_url = \"ws://127.0.0.1/ws\"\n}\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCheckSyntaxLooksAtNothingElse(t *testing.T) {
	if ds := CheckSyntax("x.hcl", []byte("anything {}\n")); len(ds) != 0 {
		t.Error(text(t, ds))
	}
	if ds := CheckSyntax("x.hcl", []byte("anything {\n")); !ds.HasErrors() || ds[0].Line != 1 {
		t.Errorf("%+v", ds)
	}
}

// digest is what a configuration says, positions left out.
func digest(c *Config) string {
	var b strings.Builder
	fmt.Fprintln(&b, c.DataDir, c.PluginDir, c.Control, c.Log)
	for _, m := range c.Meshes {
		fmt.Fprintf(&b, "%q %q %q %q %q %q %q\n", m.Name, m.BrokerURL, m.MeshID, m.MemberID, m.SecretKeyFile, m.DisplayName, m.Outbox)
	}
	for _, u := range c.Uses {
		fmt.Fprintf(&b, "%q %q %q %q %q %q %q %+v\n", u.Kind, u.Label, u.Name, u.Plugin, u.Allow, u.OnError, u.DataDir, u.Process)
		attrs, _ := u.body.JustAttributes()
		for name, a := range attrs {
			v, diags := a.Expr.Value(&hcl.EvalContext{})
			if len(attrs) == 1 { // a map has no order
				fmt.Fprintf(&b, "  %s = %#v %d\n", name, v, len(diags))
			}
		}
	}
	return b.String()
}

// FuzzLoad: whatever the bytes are, there is a Config or an error with a next step, never a panic; and what loads says the
// same once it is formatted, and formatting that changes nothing.
func FuzzLoad(f *testing.F) {
	dir := f.TempDir()
	populate(f, dir, 0o600) // by its path: in another working directory a finding would not be kept beside this file
	f.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	if c, ds := Parse(filepath.Join(dir, "mesh.hcl"), []byte(minimal)); c == nil { // or half of the oracle is never reached
		f.Fatalf("%+v", ds)
	}
	f.Add("mesh.hcl", []byte(minimal))
	f.Add("mesh.hcl", []byte(minimal+"peer_filter \"rules\" {\n  config {\n    token = <<EOT\n  x\nEOT\n    many {}\n    when = peer.x ? 1 : \"${event}\"\n  }\n}\n"))
	f.Add("mesh.hcl", []byte(minimal+"plugin \"x\" {\n  env = { A = env(\"HOME\", \"\") }\n}\ncontrol {}\nlog {\n level = \"info\"\n}\n"))
	f.Add("mesh.hcl", []byte(minimal+"rpc_feature \"state\" {\n  restart {\n    initial = \"50ms\"\n    crashes = 1e3\n  }\n}\n"))
	f.Add("mesh.hcl", []byte("a = \"%{ if true }%{ for x in [1] }${x}%{ endfor }%{ endif }\"\n"))
	f.Add("mesh.hcl", []byte("X"+strings.Repeat("\x11", 3*maxShown)))
	f.Add("mesh.hcl.json", []byte(`{"mesh": {"team": [{"mesh_id": "${env(\"X\", 1)}"}]}, "outbox": null, "push_handler": [], "log": {"level": ["\ud800"]}}`))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		if name != "mesh.hcl.json" {
			name = "mesh.hcl"
		}
		path := filepath.Join(dir, name)
		c, ds := Parse(path, src)
		if (c == nil) != ds.HasErrors() {
			t.Fatalf("Config %v with\n%s", c != nil, text(t, ds))
		}
		for _, d := range ds {
			checkDiagnostic(t, d)
		}
		if c == nil {
			return
		}
		for _, u := range c.Uses {
			value, ds := u.DecodePlugin(everything)
			if (value == nil) != ds.HasErrors() {
				t.Fatalf("value %s with\n%s", value, text(t, ds))
			}
			for _, d := range ds {
				checkDiagnostic(t, d)
			}
		}
		if name != "mesh.hcl" {
			return
		}
		once := Format(src)
		if twice := Format(once); string(twice) != string(once) {
			t.Fatalf("formatting is not stable:\n%q\n%q", once, twice)
		}
		again, ds := Parse(path, once)
		if again == nil {
			t.Fatalf("formatted, it no longer loads:\n%s\n%s", once, text(t, ds))
		}
		if a, b := digest(c), digest(again); a != b {
			t.Fatalf("formatted, it says something else:\n%s\n%s", a, b)
		}
	})
}

func checkDiagnostic(t *testing.T, d Diagnostic) {
	t.Helper()
	if d.Summary == "" || d.Next == "" || d.File == "" || strings.ContainsAny(d.Summary+d.Detail+d.Next+d.Source, "\n\r\x1b") {
		t.Errorf("incomplete or of several lines: %+v", d)
	}
	if n := len([]rune(d.Source)); n > maxSnippet+2 || d.Caret.Start > n+1 || d.Line > 0 && d.Caret.Length < 1 {
		t.Errorf("the caret is off the line: %+v", d)
	}
}

func TestExampleConfigs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "examples/configs/*.hcl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no example configs (%v)", err)
	}
	for _, file := range append(files, filepath.Join(root, "mesh.hcl.example")) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(Format(src)) != string(src) {
				t.Errorf("%s is not formatted", file)
			}
			home(t)
			if err := os.MkdirAll("bin", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename("plugins", "bin/plugins"); err != nil {
				t.Fatal(err)
			}
			if c, ds := Parse("mesh.hcl", src); c == nil || len(ds) > 0 {
				t.Error(text(t, ds))
			}
		})
	}
}
