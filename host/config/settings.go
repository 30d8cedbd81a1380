package config

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/hashicorp/hcl/v2"
)

var controlShape = shape{attrs: []attr{{"socket", `"meshhost.sock"`, "the path of the local API's socket"}}}

var logShape = shape{attrs: []attr{
	{"level", `"info"`, "how much is logged"},
	{"format", `"auto"`, "how a line looks"},
}}

// control reads the control block; nil means that there is none.
func (r *report) control(b *hcl.Block) Control {
	if b != nil {
		s := r.open("control", b.Body, header(b), controlShape)
		if path, at := s.path("socket"); path != "" {
			if len(path) > MaxSocketPath {
				r.add(at, fmt.Sprintf("the socket's path has %d bytes, at most %d work", len(path), MaxSocketPath), "It is "+path+".", "Choose a shorter path, such as one in /run or /tmp/NAME with mode 0700.")
			}
			return Control{Socket: path}
		}
	}
	path, err := DefaultSocket()
	if err != nil {
		r.file(r.src.names[0], err.Error(), `Set HOME or XDG_RUNTIME_DIR, or write control { socket = "PATH" }.`)
		return Control{}
	}
	if len(path) > MaxSocketPath {
		r.file(r.src.names[0], fmt.Sprintf("the default socket's path has %d bytes, at most %d work: %s", len(path), MaxSocketPath, path), `Add: control { socket = "PATH" } with a shorter one.`)
	}
	return Control{Socket: path}
}

// log reads the log block; nil means that there is none.
func (r *report) log(b *hcl.Block) Log {
	l := Log{Level: "info", Format: "auto"}
	if b == nil {
		return l
	}
	s := r.open("log", b.Body, header(b), logShape)
	l.Level = s.choice("level", l.Level, "trace", "debug", "info", "warn", "error")
	l.Format = s.choice("format", l.Format, "auto", "text", "json")
	return l
}

// dataDir resolves data_dir and refuses one that others can write to.
func (r *report) dataDir(t *top) string {
	if s := t.attribute(r, "data_dir"); s != nil {
		if path, at := s.path("data_dir"); path != "" {
			r.checkDataDir(path, at)
			return path
		}
	}
	path, err := defaultDataDir()
	if err != nil {
		r.file(r.src.names[0], err.Error(), `Set HOME, or write data_dir = "PATH".`)
		return ""
	}
	r.checkDataDir(path, hcl.Range{Filename: r.src.names[0]})
	return path
}

func (r *report) checkDataDir(path string, at hcl.Range) {
	info, err := os.Stat(path)
	if err != nil {
		return // the host makes it, and says if it can't
	}
	if !info.IsDir() {
		r.add(at, fmt.Sprintf("data_dir %s is not a directory", path), "", "Name a directory, or one that is not there yet.")
		return
	}
	if mode := info.Mode() & fs.ModePerm; mode&0o022 != 0 {
		r.add(at, fmt.Sprintf("data_dir %s has mode %04o: others could change what is in it", path, mode), "", fmt.Sprintf("Run: chmod go-w %s", path))
	}
}

// pluginDir resolves plugin_dir. That it exists is checked where a binary is looked for.
func (r *report) pluginDir(t *top) string {
	if s := t.attribute(r, "plugin_dir"); s != nil {
		if path, _ := s.path("plugin_dir"); path != "" {
			return path
		}
	}
	for _, s := range t.sections {
		if s.guessed["plugin_dir"] { // it was meant to be set, so looking in the default would mislead
			return ""
		}
	}
	path, err := defaultPluginDir()
	if err != nil {
		r.file(r.src.names[0], err.Error(), `Write plugin_dir = "PATH".`)
	}
	return path
}
