package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

func (a *app) pluginVerb() *cli.Command {
	return &cli.Command{Name: "plugin", Usage: "see the plugins", Commands: []*cli.Command{
		{Name: "list", Usage: "list the daemon's plugins", Action: a.pluginList},
		{
			Name: "info", Usage: "show what a plugin is and which options it takes", ArgsUsage: "NAME|PATH", Action: a.pluginInfo,
			Description: "NAME is a block of the running daemon: its name, or kind and name such as push-inbox. A PATH has a slash in it;\nthat binary describes itself, and no daemon is asked.",
		},
	}}
}

func (a *app) plugins(ctx context.Context) ([]control.PluginStatus, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.Plugins(ctx)
}

func (a *app) pluginList(ctx context.Context, cmd *cli.Command) error {
	if _, err := words(cmd, 0, 0); err != nil {
		return err
	}
	list, err := a.plugins(ctx)
	if err != nil {
		return err
	}
	if a.json.on {
		return a.emit("plugin_list/v1", "plugins", struct {
			Plugins []control.PluginStatus `json:"plugins"`
		}{list})
	}
	t := newTable(a.stdout, "KIND", "NAME", "STATE", "VERSION", "PID", "RESTARTS", "LAST ERROR")
	for _, p := range list {
		pid := ""
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		t.row(string(p.Kind), p.Name, p.State, p.Version, pid, strconv.Itoa(p.Restarts), p.LastError)
	}
	return t.flush()
}

func (a *app) pluginInfo(ctx context.Context, cmd *cli.Command) error {
	args, err := words(cmd, 1, 1)
	if err != nil {
		return err
	}
	var p *control.PluginStatus
	if strings.ContainsRune(args[0], '/') {
		d, err := a.describe(ctx, args[0])
		if err != nil {
			return err
		}
		p = &control.PluginStatus{Name: d.Name, Kinds: d.Kinds, Version: d.Version, Path: args[0], Description: d, State: "not started"}
		if len(d.Kinds) > 0 {
			p.Kind = d.Kinds[0]
		}
	} else {
		list, err := a.plugins(ctx)
		if err != nil {
			return err
		}
		if p, err = onePlugin(list, args[0]); err != nil {
			return err
		}
	}
	if a.json.on {
		return a.emit("plugin_info/v1", "", p)
	}
	return a.printPlugin(p)
}

// onePlugin finds a block by its name, or by kind and name.
func onePlugin(list []control.PluginStatus, want string) (*control.PluginStatus, error) {
	var found []*control.PluginStatus
	var names []string
	for i := range list {
		p := &list[i]
		full := p.Kind.Prefix() + "-" + p.Name
		names = append(names, full)
		if want == full || want == string(p.Kind)+"."+p.Name {
			return p, nil
		}
		if p.Name == want {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, &exitError{
			code: exitNotFound, msg: fmt.Sprintf("there is no plugin %q.%s", want, didYouMean(want, names)),
			next: "meshhost plugin list shows them; a path to a binary has a slash in it",
		}
	default:
		return nil, &exitError{
			code: exitNotFound, msg: fmt.Sprintf("%d plugins are named %q", len(found), want),
			next: "say which: " + strings.Join(names, ", "),
		}
	}
}

// describe asks a binary what it is.
func (a *app) describe(ctx context.Context, path string) (*sdk.Description, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, notThere(err, "name a plugin's binary, or a plugin of the running daemon without a slash")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d, err := a.daemon.describe(ctx, abs)
	if err != nil {
		return nil, &exitError{code: exitFailed, msg: fmt.Sprintf("%s: %v", path, err), next: "name a meshhost plugin that was built for this machine"}
	}
	return &d, nil
}

func (a *app) printPlugin(p *control.PluginStatus) error {
	brief := *p
	brief.Description = nil
	if err := a.printFields(brief); err != nil || p.Description == nil {
		return err
	}
	d := p.Description
	t := newTable(a.stdout)
	t.row("doc", d.Doc)
	t.row("protocol", strconv.Itoa(d.Protocol))
	for _, o := range d.Schema.Attributes {
		t.row("option", o.Name, string(o.Type.Name), needed(o.Required, string(o.Default)), o.Doc)
	}
	for _, b := range d.Schema.Blocks {
		t.row("block", b.Name, "", needed(b.Required, ""), b.Doc)
	}
	for _, m := range d.Methods {
		t.row("method", m.Name, "", "", m.Doc)
	}
	return t.flush()
}

func needed(required bool, fallback string) string {
	switch {
	case required:
		return "required"
	case fallback != "":
		return "default " + fallback
	default:
		return "optional"
	}
}
