package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/sdk"
)

var programShape = shape{
	attrs: []attr{
		{"path", `"/usr/lib/meshhost/plugins/NAME"`, "the binary"},
		{"sha256", `"64 hex digits"`, "what the binary must hash to"},
		{"args", `["-v"]`, "its arguments"},
		{"env", `{ NAME = "value" }`, "its environment"},
	},
	blocks: []string{"timeouts", "restart"},
}

var timeoutsShape = shape{attrs: []attr{
	{"start", `"10s"`, "how long the plugin may take to start"},
	{"call", `"30s"`, "how long a call may take"},
}}

var restartShape = shape{attrs: []attr{
	{"initial", `"250ms"`, "the first wait"},
	{"max", `"30s"`, "the longest wait"},
	{"crashes", `5`, "how many crashes put the plugin in quarantine, 0: never"},
	{"window", `"10m"`, "the time in which crashes count"},
}}

var hexDigest = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// binaryPrefix begins the name of every plugin binary that is found by convention.
const binaryPrefix = "meshhost-"

// program reads a plugin block; nil if its label is no name.
func (r *report) program(b *hcl.Block) *Program {
	p := &Program{Label: b.Labels[0], at: place{r.src, header(b)}}
	s := r.open(fmt.Sprintf("plugin %q", p.Label), b.Body, header(b), programShape)
	if !r.goodName("a plugin's label", p.Label, b.LabelRanges[0]) {
		return nil
	}
	p.Process = Process{Args: s.texts("args"), Env: s.table("env"), Restart: defaultRestart}
	for name, v := range p.Process.Env {
		if !envName.MatchString(name) || strings.ContainsRune(v, 0) {
			r.add(s.at("env"), fmt.Sprintf("%q is no environment variable", name), "", "Use letters, digits and underscores, no digit first, and a value without a zero byte.")
		}
	}
	if path, at := s.path("path"); path != "" {
		p.Process.Path = path
		s.executable(path, at)
	}
	if sum := s.text("sha256"); sum != "" {
		p.Process.SHA256 = strings.ToLower(sum)
		if !hexDigest.MatchString(sum) {
			r.add(s.at("sha256"), "sha256 must be 64 hex digits", "", "Take it from: sha256sum FILE")
		}
	}
	s.timeouts(&p.Process.Timeouts)
	s.restart(&p.Process.Restart)
	return p
}

// executable checks that a binary can be started.
func (s *section) executable(path string, at hcl.Range) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.r.add(at, fmt.Sprintf("there is no file %s", s.r.shown(path)), "", "Build or install the plugin, or correct the path.")
	case err != nil:
		s.r.add(at, fmt.Sprintf("%s can't be read: %s", s.r.shown(path), reason(err)), "", "Check the path and its permissions.")
	default:
		s.r.runnable(info, s.r.shown(path), at)
	}
}

func (r *report) runnable(info fs.FileInfo, path string, at hcl.Range) {
	switch {
	case !info.Mode().IsRegular():
		r.add(at, path+" is not a file", "", "Name the plugin's binary.")
	case info.Mode()&0o111 == 0:
		r.add(at, path+" is not executable", "", "Run: chmod +x "+path)
	}
}

// timeouts reads the timeouts block over what t holds.
func (s *section) timeouts(t *Timeouts) {
	b := s.block("timeouts")
	if b == nil {
		return
	}
	in := s.r.open("timeouts of "+s.title, b.Body, header(b), timeoutsShape)
	t.Start = in.positive("start", t.Start)
	t.Call = in.positive("call", t.Call)
}

// restart reads the restart block over what p holds.
func (s *section) restart(p *Restart) {
	b := s.block("restart")
	if b == nil {
		return
	}
	in := s.r.open("restart of "+s.title, b.Body, header(b), restartShape)
	p.Initial = in.positive("initial", p.Initial)
	if in.content.Attributes["max"] == nil {
		p.Max = max(p.Max, p.Initial)
	}
	p.Max = in.positive("max", p.Max)
	p.Crashes = in.count("crashes", p.Crashes)
	p.Window = in.positive("window", p.Window)
	if p.Max < p.Initial {
		s.r.add(in.at("max"), "max is shorter than initial", "", fmt.Sprintf("Write max = %q or more.", p.Initial))
	}
}

// positive is a duration above zero.
func (s *section) positive(name string, fallback time.Duration) time.Duration {
	d := s.duration(name, -1)
	if d < 0 {
		return fallback
	}
	if d == 0 {
		s.r.add(s.at(name), name+" must be longer than nothing", "", fmt.Sprintf("Write such as %s = %s, or leave it out for the default.", name, s.shape.attr(name).example))
		return fallback
	}
	return d
}

// conventional is the binary of a use without a path of its own: plugin_dir/meshhost-PREFIX-LABEL.
func (r *report) conventional(c *Config, u *Use, at hcl.Range) string {
	if c.PluginDir == "" { // reported where it was to be set
		return ""
	}
	path := filepath.Join(c.PluginDir, binaryPrefix+u.Kind.Prefix()+"-"+u.Label)
	info, err := os.Stat(path)
	if err == nil {
		r.runnable(info, r.shown(path), at)
		return path
	}
	if !errors.Is(err, fs.ErrNotExist) {
		r.add(at, fmt.Sprintf("%s can't be read: %s", r.shown(path), reason(err)), "", "Check plugin_dir and its permissions.")
		return path
	}
	have := labelsIn(c.PluginDir, u.Kind)
	var detail string
	otherwise := fmt.Sprintf("Install the plugin there, or add: plugin %q { path = \"FILE\" } and plugin = %q in this block.", u.Label, u.Label)
	switch {
	case len(have) > 0:
		detail = fmt.Sprintf("The %s plugins in %s are: %s.", u.Kind, r.shown(c.PluginDir), strings.Join(have, ", "))
	case dirExists(c.PluginDir):
		detail = fmt.Sprintf("There is no %s plugin in %s.", u.Kind, r.shown(c.PluginDir))
	default:
		detail = fmt.Sprintf("There is no directory %s.", r.shown(c.PluginDir))
		otherwise = `Run make build, or set plugin_dir = "DIR" at the top of the configuration.`
	}
	r.add(at, "no such plugin: "+r.shown(path), detail, meant(u.Label, have, otherwise))
	return path
}

func dirExists(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// labelsIn lists the labels for which a directory has binaries of a kind.
func labelsIn(dir string, kind sdk.Kind) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var labels []string
	for _, e := range entries {
		if l, ok := strings.CutPrefix(e.Name(), binaryPrefix+kind.Prefix()+"-"); ok && namePattern.MatchString(l) && len(labels) < 50 {
			labels = append(labels, l)
		}
	}
	slices.Sort(labels)
	return labels
}

// shown is a path as the user sees it: relative to where the process runs if it lies below.
func (r *report) shown(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return rel
}
