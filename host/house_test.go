package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const module = "github.com/meshhost/meshhost"

// pkg is what `go list` says of a package of this module.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
}

// packages lists the module's packages with paths relative to it.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		own := p.Imports[:0]
		for _, imp := range p.Imports {
			if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
				own = append(own, rel)
			}
		}
		p.Imports = own
		all = append(all, p)
	}
	return all
}

// level orders the rooms of host: an import goes to a lower number.
var level = map[string]int{
	"host": 6, "host/control": 5,
	"host/outbound": 4, "host/inbound": 4, "host/roster": 4, "host/feature": 4, "host/session": 4,
	"host/broker": 3, "host/plugin": 3,
	"host/link": 2,
	"host/wire": 1, "host/identity": 1,
}

// breach says why from may not import to, or "".
func breach(from, to string) string {
	in := func(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	switch {
	case in(from, "plugins") || in(from, "examples"):
		if to != "sdk" && to != "sdk/sqliteguard" && !in(to, "plugins/internal") {
			return "plugins and examples import sdk and sdk/sqliteguard only"
		}
	case in(from, "sdk"):
		if !in(to, "sdk") {
			return "sdk imports nothing of the host"
		}
	case in(from, "cmd"):
		ok := []string{"host", "host/config", "host/control", "host/devbroker", "sdk"}
		if !slices.Contains(ok, to) && !in(to, "sdk/conformance") && !in(to, "cmd") {
			return "cmd imports host, host/config, host/control, host/devbroker, sdk and sdk/conformance only"
		}
	case in(to, "plugins") || in(to, "examples") || in(to, "cmd"):
		return "a behaviour without its process is absent, never linked in"
	case in(to, "sdk"):
	case to == "host/event" || to == "host/store":
		if from == "host/event" || from == "host/store" {
			return "event and store are leaves"
		}
	case from == "host/event" || from == "host/store":
		return "event and store are leaves"
	case to == "host/config" || to == "host/devbroker":
		if from != "host" {
			return to + " is read by host alone"
		}
	case from == "host/config" || from == "host/devbroker":
		if to != "host/identity" && (from != "host/devbroker" || to != "host/wire") {
			return from + " may read keys and frames, nothing else"
		}
	case to == "host/wire" && from != "host/link" && from != "host/broker":
		return "wire types stop at broker and devbroker"
	case level[from] == 0 || level[to] == 0:
		return "a room that the plan does not know"
	case level[from] <= level[to]:
		return "in host arrows point down"
	}
	return ""
}

func TestImportsFollowThePlan(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if why := breach(p.ImportPath, imp); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
	}
}

// The rules themselves must be able to fail.
func TestBreachesAreSeen(t *testing.T) {
	for _, c := range [][2]string{
		{"plugins/filter-role", "host/wire"},
		{"examples/echo", "sdk/bridge"},
		{"sdk", "host"},
		{"cmd/meshhost", "plugins/filter-role"},
		{"cmd/meshhost", "host/broker"},
		{"host", "plugins/outbox-sqlite"},
		{"host/broker", "host/outbound"},
		{"host/outbound", "host/inbound"},
		{"host/outbound", "host/config"},
		{"host/roster", "host/wire"},
		{"host/store", "host/identity"},
		{"host/link", "host/broker"},
		{"host/util", "host/wire"},
	} {
		if breach(c[0], c[1]) == "" {
			t.Errorf("%s importing %s goes unseen", c[0], c[1])
		}
	}
}

// files parses a package's Go files.
func files(t *testing.T, p pkg, names []string) []*ast.File {
	t.Helper()
	var out []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// starts reports whether f starts a goroutine.
func starts(f *ast.File) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = true
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
				found = true
			}
		}
		return !found
	})
	return found
}

func TestPackagesThatStartGoroutinesLookForLeaks(t *testing.T) {
	with, without := 0, []string{}
	for _, p := range packages(t) {
		if !slices.ContainsFunc(files(t, p, p.GoFiles), starts) {
			continue
		}
		with++
		checked := slices.ContainsFunc(files(t, p, slices.Concat(p.TestGoFiles, p.XTestGoFiles)), func(f *ast.File) bool {
			return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"go.uber.org/goleak"` }) &&
				slices.ContainsFunc(f.Decls, func(d ast.Decl) bool { fn, ok := d.(*ast.FuncDecl); return ok && fn.Name.Name == "TestMain" })
		})
		if !checked {
			without = append(without, p.ImportPath)
		}
	}
	fmt.Printf("RESULT goleak packages_with_go=%d without_testmain=%d\n", with, len(without))
	if with == 0 {
		t.Error("no package starts a goroutine: the search is broken")
	}
	for _, p := range without {
		t.Errorf("%s has a go statement and no TestMain with goleak", p)
	}
}

// maySkip reads .ci/skips: the tests that may skip, with the reason. A run under
// .ci/test goes by the same list.
func maySkip(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", ".ci", "skips"))
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, reason, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && !strings.HasPrefix(name, "#") {
			list[name] = reason
		}
	}
	return list
}

// skipping are the tests, subtests apart, whose code can skip.
func skipping(file *ast.File) (names []string) {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "Skip" || s.Sel.Name == "Skipf" || s.Sel.Name == "SkipNow") {
				names = append(names, f.Name.Name)
			}
			return true
		})
	}
	return names
}

func TestSkipsAreListedWithAReason(t *testing.T) {
	listed := maySkip(t)
	found := 0
	for _, p := range packages(t) {
		for _, file := range files(t, p, slices.Concat(p.TestGoFiles, p.XTestGoFiles)) {
			for _, name := range skipping(file) {
				found++
				if listed[name] == "" {
					t.Errorf("%s: %s skips without a reason in .ci/skips", p.ImportPath, name)
				}
			}
		}
	}
	fmt.Printf("RESULT skips found=%d listed=%d\n", found, len(listed))
}

func TestASkipIsSeen(t *testing.T) {
	src := "package p\nfunc TestA(t *testing.T) { if f() { t.Ski" + "p(1) } }\nfunc TestB(t *testing.T) { t.Log(1) }\nfunc help(t *testing.T) { t.Ski" + "pNow() }\n"
	f, err := parser.ParseFile(token.NewFileSet(), "p_test.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(skipping(f)); got != "[TestA help]" {
		t.Errorf("skips are seen in %s", got)
	}
}

func TestPackagesOpenWithADoc(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains(p.ImportPath, "proto/") || len(p.GoFiles) == 0 {
			continue
		}
		if !slices.ContainsFunc(files(t, p, p.GoFiles), func(f *ast.File) bool { return f.Doc != nil }) {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
