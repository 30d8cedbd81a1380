package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/sdk"
)

// Load reads a file, or every *.hcl and *.hcl.json file of a directory in name order, as one configuration. The Config is
// nil if the diagnostics have errors; without errors they may hold warnings.
func Load(path string) (*Config, Diagnostics) {
	r := newReport(newSources())
	names := r.configFiles(path)
	ok := len(names) > 0
	for _, name := range names {
		ok = r.read(name, name == path) && ok
	}
	return r.finish(ok)
}

// Parse is Load for a text that stands for a file called filename: relative paths start at that file's directory, and a
// name that ends in .json means the JSON syntax.
func Parse(filename string, src []byte) (*Config, Diagnostics) {
	r := newReport(newSources())
	return r.finish(r.parse(filename, src))
}

// ControlSocket reads only the control block of a configuration: what a client needs to find its daemon, whatever else the
// configuration says and whether or not this user may read the keys. It is the default socket where there is no block.
func ControlSocket(path string) (string, Diagnostics) {
	r := newReport(newSources())
	for _, name := range r.configFiles(path) {
		r.read(name, name == path)
	}
	if r.failed() {
		return "", r.done()
	}
	var found []*hcl.Block
	for _, name := range r.src.names {
		content, _, _ := r.src.bodies[name].PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "control"}}})
		found = append(found, content.Blocks...)
	}
	var block *hcl.Block
	if len(found) > 0 {
		block = found[0]
	}
	c := r.control(block)
	if r.failed() {
		return "", r.done()
	}
	return c.Socket, r.done()
}

// finish turns parsed files into a Config.
func (r *report) finish(parsed bool) (*Config, Diagnostics) {
	if !parsed { // a broken file would make everything that it holds look missing
		return nil, r.done()
	}
	c := r.config()
	if r.failed() {
		return nil, r.done()
	}
	return c, r.done()
}

// kinds are the plugin blocks.
var kinds = []sdk.Kind{sdk.KindOutbox, sdk.KindPushHandler, sdk.KindPeerFilter, sdk.KindFeature}

// topShape is what may stand at the top level; labelled are the blocks with a label.
var (
	topShape = shape{
		attrs: []attr{
			{"data_dir", `"./data"`, "where the host keeps its data"},
			{"plugin_dir", `"./bin/plugins"`, "where the plugin binaries lie"},
		},
		blocks: []string{"mesh", "outbox", "push_handler", "peer_filter", "rpc_feature", "plugin", "control", "log"},
	}
	labelled = []string{"mesh", "outbox", "push_handler", "peer_filter", "rpc_feature", "plugin"}
)

// top is the top level of all files together.
type top struct {
	sections []*section
	unknown  bool // an unknown block or attribute was there
}

func (r *report) config() *Config {
	t := r.top()
	c := &Config{Programs: map[string]*Program{}}
	c.DataDir = r.dataDir(t)
	c.PluginDir = r.pluginDir(t)
	for _, b := range t.blocks("plugin") {
		if p := r.program(b); p != nil && r.unique(b, c.Programs[p.Label]) {
			c.Programs[p.Label] = p
		}
	}
	for _, b := range t.all() {
		if slices.Contains(kinds, sdk.Kind(b.Type)) {
			r.addUse(c, b)
		}
	}
	for _, b := range t.blocks("mesh") {
		r.addMesh(c, b)
	}
	c.Control = r.control(t.one(r, "control"))
	c.Log = r.log(t.one(r, "log"))
	r.whole(c, t)
	return c
}

// top checks the names at the top level of every file.
func (r *report) top() *top {
	t := &top{}
	for _, name := range r.src.names {
		schema := topShape.schema()
		for i := range schema.Blocks {
			if slices.Contains(labelled, schema.Blocks[i].Type) {
				schema.Blocks[i].LabelNames = []string{"label"}
			}
		}
		s := &section{r: r, shape: topShape, header: hcl.Range{Filename: name}, guessed: map[string]bool{}}
		content, diags := r.src.bodies[name].Content(schema)
		s.content = content
		for _, d := range diags {
			t.unknown = true
			if strings.HasPrefix(d.Summary, "Missing label") || strings.HasPrefix(d.Summary, "Extraneous label") {
				r.badLabel(d)
				continue
			}
			s.strange(d)
		}
		s.once()
		t.sections = append(t.sections, s)
	}
	return t
}

// badLabel explains a block with too few or too many labels.
func (r *report) badLabel(d *hcl.Diagnostic) {
	rng := subject(d)
	typ := d.Summary[strings.LastIndexByte(d.Summary, ' ')+1:]
	if d.Context != nil {
		if rng = *d.Context; strings.HasPrefix(d.Summary, "Extraneous") {
			rng = subject(d)
		}
	}
	if !slices.Contains(labelled, typ) {
		r.add(rng, typ+" takes no label", "", fmt.Sprintf("Write %s { … }.", typ))
		return
	}
	r.add(rng, typ+" takes one label", "", fmt.Sprintf("Write %s \"NAME\" { … }.", typ))
}

// all are the blocks of all files in the order written.
func (t *top) all() []*hcl.Block {
	var out []*hcl.Block
	for _, s := range t.sections {
		out = append(out, s.content.Blocks...)
	}
	return out
}

// blocks are those of one type in the order written.
func (t *top) blocks(typ string) []*hcl.Block {
	return slices.DeleteFunc(t.all(), func(b *hcl.Block) bool { return b.Type != typ })
}

// one is the only block of a type without a label, or nil; a second one in another file is reported.
func (t *top) one(r *report, typ string) *hcl.Block {
	bs := t.blocks(typ)
	if len(bs) == 0 {
		return nil
	}
	for _, b := range bs[1:] {
		r.add(header(b), typ+" is there twice", fmt.Sprintf("The first one is at %s.", place{rng: header(bs[0])}), "Put everything into one of them.")
	}
	return bs[0]
}

// attribute finds the section that sets a top-level attribute; a second one in another file is reported.
func (t *top) attribute(r *report, name string) *section {
	var found *section
	for _, s := range t.sections {
		a := s.content.Attributes[name]
		if a == nil {
			continue
		}
		if found != nil {
			r.add(a.NameRange, name+" is set twice", fmt.Sprintf("The first one is at %s.", place{rng: found.content.Attributes[name].NameRange}), "Remove one of the two.")
			continue
		}
		found = s
	}
	return found
}

// path evaluates a path attribute; a relative one starts where its file lies. The range is the value's.
func (s *section) path(name string) (string, hcl.Range) {
	p := s.text(name)
	at := s.at(name)
	if p == "" {
		return "", at
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(s.r.src.dirs[at.Filename], p)
	}
	return filepath.Clean(p), at
}

// whole checks what no block can know by itself.
func (r *report) whole(c *Config, t *top) {
	if t.unknown { // the missing block may be the misspelt one
		return
	}
	last := r.src.names[len(r.src.names)-1]
	if len(t.blocks("mesh")) == 0 {
		r.file(last, "no mesh block", `Add: mesh "team" { … } with broker_url, mesh_id, member_id and secret_key_file.`)
	}
	if len(t.blocks("outbox")) == 0 {
		r.file(last, "no outbox block: messages to send would have no place", `Add: outbox "sqlite" {}`)
	}
	if len(t.blocks("push_handler")) == 0 {
		r.file(last, "no push_handler block: messages that arrive would go nowhere", `Add: push_handler "inbox" {}`)
	}
	for label, p := range c.Programs {
		if !slices.ContainsFunc(c.Uses, func(u *Use) bool { return u.Plugin == label }) && !r.failed() {
			r.warn(p.at.rng, fmt.Sprintf("plugin %q is used by no block", label), "", fmt.Sprintf("Add plugin = %q to the block that is to use it, or remove this one.", label))
		}
	}
}

// unique reports a second plugin block of one label.
func (r *report) unique(b *hcl.Block, first *Program) bool {
	if first == nil {
		return true
	}
	r.add(header(b), fmt.Sprintf("plugin %q is there twice", first.Label), fmt.Sprintf("The first one is at %s.", first.at), "Remove one of the two, or give it another label.")
	return false
}
