package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/sdk"
)

var (
	useAttrs = []attr{
		{"name", `"main"`, "the name of this use, where one plugin is used twice"},
		{"plugin", `"NAME"`, "the plugin block that says which binary to run"},
		{"allow", `["send"]`, "what this plugin may do beyond what every plugin may"},
	}
	onErrorAttr = attr{"on_error", `"skip"`, "what lists show while the filter is broken"}
	useBlocks   = []string{"config", "timeouts", "restart"}
)

const strayOption = "Options of the plugin itself stand inside config { … }; what may stand here: %s."

// useShape is what a plugin block of a kind may hold.
func useShape(kind sdk.Kind) shape {
	sh := shape{attrs: slices.Clone(useAttrs), blocks: useBlocks}
	if kind == sdk.KindPeerFilter {
		sh.attrs = append(sh.attrs, onErrorAttr)
	}
	sh.stray = fmt.Sprintf(strayOption, strings.Join(sh.names(), ", "))
	return sh
}

// addUse reads an outbox, push_handler, peer_filter or rpc_feature block.
func (r *report) addUse(c *Config, b *hcl.Block) {
	u := &Use{Kind: sdk.Kind(b.Type), Label: b.Labels[0], body: hcl.EmptyBody(), at: place{r.src, header(b)}}
	u.conf = u.at
	s := r.open(fmt.Sprintf("%s %q", b.Type, u.Label), b.Body, header(b), useShape(u.Kind))
	if !r.goodName(fmt.Sprintf("the label of %s", b.Type), u.Label, b.LabelRanges[0]) {
		return
	}
	u.Name = s.text("name")
	if u.Name == "" {
		u.Name = u.Label
	} else if !r.goodName("name", u.Name, s.at("name")) {
		return
	}
	for _, other := range c.Of(u.Kind) {
		if other.Name == u.Name {
			r.add(header(b), fmt.Sprintf("%s %q is there twice", u.Kind, u.Name), fmt.Sprintf("The first one is at %s.", other.at),
				fmt.Sprintf("Remove one, or give this one a name of its own: name = %q.", u.Name+"-2"))
			return
		}
	}
	u.Allow = s.allow()
	if u.Kind == sdk.KindPeerFilter {
		u.OnError = OnError(s.choice("on_error", string(OnErrorSkip), string(OnErrorSkip), string(OnErrorHide), string(OnErrorFail)))
	}
	if conf := s.block("config"); conf != nil {
		u.body, u.conf = conf.Body, place{r.src, header(conf)}
	}
	u.DataDir = pluginDataDir(c.DataDir, u)
	r.process(c, u, s, b)
	c.Uses = append(c.Uses, u)
}

// process decides which binary a use runs and how.
func (r *report) process(c *Config, u *Use, s *section, b *hcl.Block) {
	u.Process = Process{Restart: defaultRestart}
	u.Plugin = s.text("plugin")
	if u.Plugin != "" {
		p := c.Programs[u.Plugin]
		if p == nil {
			s.noProgram(c, u.Plugin)
			return
		}
		u.Process = p.Process
	}
	s.timeouts(&u.Process.Timeouts)
	s.restart(&u.Process.Restart)
	if u.Process.Path == "" && !s.guessed["plugin"] {
		u.Process.Path = r.conventional(c, u, b.LabelRanges[0])
	}
}

func (s *section) noProgram(c *Config, label string) {
	var labels []string
	for l := range c.Programs {
		labels = append(labels, l)
	}
	slices.Sort(labels)
	otherwise := fmt.Sprintf("Add: plugin %q { path = \"FILE\" }", label)
	s.r.add(s.at("plugin"), fmt.Sprintf("there is no plugin block %q", label), "", meant(label, labels, otherwise))
}

// grants are the frame types that a plugin may send only if its block allows them (ARCHITECTURE 4, Host services), as
// patterns that path.Match would take; only a trailing * is used.
var grants = []string{
	"send", "kick", "ban", "unban", "disconnect", "vault_*", "mcp_*", "mesh_execute", "graph_execute", "apikey_*", "peer_file_*", "peer_dir_*",
}

// allow reads the grants and refuses what is none.
func (s *section) allow() []string {
	list := s.texts("allow")
	for i, g := range list {
		if !slices.ContainsFunc(grants, func(p string) bool { return granted(p, g) }) {
			s.r.add(s.element("allow", i), fmt.Sprintf("%q is nothing that can be allowed", g), "",
				meant(g, grants, fmt.Sprintf("What can be allowed: %s; anything else needs no permission or is never given.", strings.Join(grants, ", "))))
		}
	}
	return list
}

// granted reports whether what is a grant of pattern: equal, or more special.
func granted(pattern, what string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	if !open {
		return pattern == what
	}
	return strings.HasPrefix(what, prefix) && (len(what) > len(prefix))
}

// Diagnose is an error at the header of the use's block: for what shows only once the plugin was asked.
func (u *Use) Diagnose(summary, detail, next string) Diagnostic {
	return u.at.diagnose(summary, detail, next)
}

// Diagnose is an error at the header of the mesh's block.
func (m *Mesh) Diagnose(summary, detail, next string) Diagnostic {
	return m.at.diagnose(summary, detail, next)
}

func (p place) diagnose(summary, detail, next string) Diagnostic {
	r := newReport(p.src)
	r.add(p.rng, summary, detail, next)
	return r.done()[0]
}
