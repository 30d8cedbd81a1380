package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built are binaries made with one set of build tags.
type built struct{ meshhost, plugins string }

var builds = struct {
	sync.Mutex
	root string
	by   map[string]built
}{by: map[string]built{}}

func TestMain(m *testing.M) {
	code := m.Run()
	if builds.root != "" {
		if err := os.RemoveAll(builds.root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// repo is the root of the module.
func repo(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// binaries builds the daemon and all first-party plugins, once per set of tags.
func binaries(t testing.TB, tags ...string) built {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	key := strings.Join(tags, ",")
	if b, ok := builds.by[key]; ok {
		return b
	}
	if builds.root == "" {
		root, err := os.MkdirTemp("", "meshhost-e2e-")
		if err != nil {
			t.Fatal(err)
		}
		builds.root = root
	}
	readSources(t)
	dir := filepath.Join(builds.root, "b"+key)
	b := built{filepath.Join(dir, "meshhost"), filepath.Join(dir, "plugins")}
	compile(t, key, b.meshhost, "./cmd/meshhost")
	mains, err := filepath.Glob(filepath.Join(repo(t), "plugins", "*", "main.go"))
	if err != nil || len(mains) == 0 {
		t.Fatalf("no plugins to build: %v", err)
	}
	for _, m := range mains {
		name := filepath.Base(filepath.Dir(m))
		compile(t, key, filepath.Join(b.plugins, "meshhost-"+name), "./plugins/"+name)
	}
	builds.by[key] = b
	return b
}

// readSources lists every source directory, so that the go command counts their
// files among what these tests depend on: they import none of it, and after a
// change of the host alone it would print an old run's result.
func readSources(t testing.TB) {
	t.Helper()
	for _, name := range []string{"cmd", "host", "plugins", "sdk", "examples"} {
		err := filepath.WalkDir(filepath.Join(repo(t), name), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.Stat(filepath.Join(repo(t), name)); err != nil {
			t.Fatal(err)
		}
	}
}

func compile(t testing.TB, tags, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-tags", tags, "-o", out, pkg)
	cmd.Dir = repo(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, msg)
	}
}
