package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// stage makes a directory for one case: its mesh.hcl, a key file, and a
// plugin_dir with the built plugins and one whose options only it can judge.
func stage(t *testing.T, bin built, from string, keyMode os.FileMode) string {
	t.Helper()
	dir := shortDir(t)
	src, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mesh.hcl"), src, 0o600); err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte("42"), 32)
	if err := os.WriteFile(filepath.Join(dir, "team.key"), key, keyMode); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "plugins"), 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(bin.plugins)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Link(filepath.Join(bin.plugins, e.Name()), filepath.Join(dir, "plugins", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../plugins", filepath.Join(dir, "bin", "plugins")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dueCases are what validate must explain, each with a golden.
var dueCases = []string{
	"config-missing-option", "config-plugin-validate", "config-unknown-option", "config-wrong-type", "duplicate-label", "key-mode",
	"missing-mesh-id", "no-such-plugin", "syntax", "unknown-attribute", "unknown-block", "wrong-type",
}

func TestValidateSaysWhatTheGoldensSay(t *testing.T) {
	bin := binaries(t)
	rules := filepath.Join(bin.plugins, "meshhost-filter-rules")
	compile(t, "", rules, "./host/config/testdata/plugin/filter-rules")
	defer os.Remove(rules)
	root := filepath.Join(repo(t), "host", "config", "testdata", "validate")
	cases, err := filepath.Glob(filepath.Join(root, "*", "want.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range dueCases {
		if !slices.Contains(cases, filepath.Join(root, name, "want.txt")) {
			t.Errorf("no golden for %s", name)
		}
	}
	passed := 0
	for _, want := range cases {
		name := filepath.Base(filepath.Dir(want))
		t.Run(name, func(t *testing.T) {
			golden, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			mode := os.FileMode(0o600)
			if name == "key-mode" {
				mode = 0o644
			}
			cmd := exec.Command(bin.meshhost, "validate", "mesh.hcl")
			cmd.Dir = stage(t, bin, filepath.Join(root, name, "mesh.hcl"), mode)
			var out, words bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &words
			if err := cmd.Run(); cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != 3 || out.Len() > 0 || words.String() != string(golden) {
				t.Errorf("exit %d, stdout %q, stderr:\n%s\nwant exit 3 and:\n%s", code, out.String(), words.String(), golden)
				return
			}
			passed++
		})
	}
	fmt.Printf("RESULT validate cases=%d passed=%d\n", len(cases), passed)
}

func TestTheExampleConfigurationsValidate(t *testing.T) {
	bin := binaries(t)
	examples, err := filepath.Glob(filepath.Join(repo(t), "examples", "configs", "*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(examples, filepath.Join(repo(t), "mesh.hcl.example")) {
		dir := stage(t, bin, path, 0o600)
		cmd := exec.Command(bin.meshhost, "validate", "mesh.hcl")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(path), err, out)
		}
	}
	fmt.Printf("RESULT examples validated=%d\n", len(examples)+1)
}
