package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Bounds of what is read; a configuration is far below them.
const (
	maxFile  = 1 << 20 // bytes
	maxFiles = 256     // in a directory
)

// sources are the files of one configuration. They stay with the Config, since a plugin's complaints come later and are
// printed with the lines that they are about.
type sources struct {
	names  []string // in the order read, as displayed
	bytes  map[string][]byte
	bodies map[string]hcl.Body
	dirs   map[string]string // file name -> absolute directory, where its relative paths start

	mu      sync.Mutex
	secrets []hcl.Range // values that no quoted line shows; they become known with the plugins' schemas
}

// hide keeps ranges out of every line that is quoted from now on.
func (s *sources) hide(rngs ...hcl.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rng := range rngs {
		if !slices.Contains(s.secrets, rng) {
			s.secrets = append(s.secrets, rng)
		}
	}
}

// hidden are the ranges to keep out.
func (s *sources) hidden() []hcl.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

func newSources() *sources {
	return &sources{bytes: map[string][]byte{}, bodies: map[string]hcl.Body{}, dirs: map[string]string{}}
}

// order is the position of a file in the configuration; unknown ones come last.
func (s *sources) order(name string) int {
	if i := slices.Index(s.names, name); i >= 0 {
		return i
	}
	return len(s.names)
}

// place is a range of the configuration.
type place struct {
	src *sources
	rng hcl.Range
}

// String is "mesh.hcl:13:5".
func (p place) String() string {
	return fmt.Sprintf("%s:%d:%d", p.rng.Filename, p.rng.Start.Line, p.rng.Start.Column)
}

// isJSON tells the two syntaxes apart by the name, as hcl does.
func isJSON(name string) bool { return strings.HasSuffix(name, ".json") }

// configFiles lists what path means: itself, or the *.hcl and *.hcl.json files of a directory in name order.
func (r *report) configFiles(path string) []string {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		r.file(path, "no such file or directory", "Name an existing one with -config FILE or -config DIR; mesh.hcl.example is a start.")
		return nil
	}
	if err != nil {
		r.file(path, "can't be read: "+reason(err), "Check the path and its permissions.")
		return nil
	}
	if !info.IsDir() {
		return []string{path}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		r.file(path, "can't list this directory: "+reason(err), "Check its permissions.")
		return nil
	}
	var names []string
	for _, e := range entries {
		// Editors leave .#mesh.hcl and the like; a hidden file is none of ours.
		if n := e.Name(); !strings.HasPrefix(n, ".") && (strings.HasSuffix(n, ".hcl") || strings.HasSuffix(n, ".hcl.json")) && !e.IsDir() {
			names = append(names, filepath.Join(path, n))
		}
	}
	switch {
	case len(names) == 0:
		r.file(path, "no *.hcl or *.hcl.json file in this directory", "Put the configuration there, or name another path with -config.")
	case len(names) > maxFiles:
		r.file(path, fmt.Sprintf("%d configuration files in this directory, at most %d are read", len(names), maxFiles), "Join some of them.")
		return nil
	}
	return names
}

// read loads and parses one file; false says that its content can't be used. A pipe or device is read only where it was
// given by name: one that lies in a directory might never end, or never begin.
func (r *report) read(name string, given bool) bool {
	if info, err := os.Stat(name); err == nil {
		mode := info.Mode()
		if !mode.IsRegular() && !(given && mode&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0) {
			r.file(name, "is not a file", "Name a configuration file with -config.")
			return false
		}
	}
	f, err := os.Open(name)
	if err != nil {
		r.file(name, "can't be read: "+reason(err), "Check the path and its permissions.")
		return false
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		r.file(name, "can't be read: "+reason(err), "Check the path and its permissions.")
		return false
	}
	return r.parse(name, src)
}

// parse adds one file to the sources.
func (r *report) parse(name string, src []byte) bool {
	r.src.names = append(r.src.names, name)
	r.src.bytes[name] = src
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		r.file(name, "can't find its directory: "+reason(err), "Name it by an absolute path.")
		return false
	}
	r.src.dirs[name] = dir
	if len(src) > maxFile {
		r.src.bytes[name] = nil
		r.file(name, fmt.Sprintf("is larger than %d bytes", maxFile), "Split it into several files of a directory and use -config DIR.")
		return false
	}
	if rng, what := tooDeep(name, src); what != "" {
		r.add(rng, what, "", "Write it flatter.")
		return false
	}
	parser := hclparse.NewParser()
	var file *hcl.File
	var diags hcl.Diagnostics
	if isJSON(name) {
		file, diags = parser.ParseJSON(src, name)
	} else {
		file, diags = parser.ParseHCL(src, name)
	}
	for _, d := range diags {
		r.syntax(d)
		if unclosedString(d) {
			break
		}
	}
	if diags.HasErrors() || file == nil {
		return false
	}
	r.src.bodies[name] = file.Body
	return true
}

// reason is an error without the path, which the diagnostic names already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
