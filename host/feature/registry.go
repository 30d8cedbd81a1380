package feature

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// Source is a plugin that may bring a feature.
type Source interface {
	// Description is what the process last said of itself; without kinds until
	// it did.
	Description() sdk.Description
	// Feature calls it.
	Feature() sdk.FeatureCaller
}

// Entry names a source.
type Entry struct {
	// Name is the feature's name, Plugin the block that brings it.
	Name   string
	Plugin string
	Source Source
}

// Declared is a feature with what it declares.
type Declared struct {
	Entry
	Description sdk.Description
	// Known is false until the plugin has described itself for the first time.
	Known bool
}

// Registry is the set of features. Its methods are safe for concurrent use.
type Registry struct {
	entries []Entry
	feeds   []*feed // one for each entry
	logger  hclog.Logger
	told    sync.Once // of a contested name
	wg      sync.WaitGroup
}

// New makes a registry of entries, those that win a contested name first: a
// feature block before a handler that brings a feature of its name.
func New(entries []Entry, logger hclog.Logger) *Registry {
	r := &Registry{entries: entries, logger: logger}
	for _, e := range entries {
		r.feeds = append(r.feeds, newFeed(e, logger))
	}
	return r
}

// Start runs the feeds until ctx ends; Wait returns when they have.
func (r *Registry) Start(ctx context.Context) {
	for _, f := range r.feeds {
		r.wg.Go(func() { f.run(ctx) })
	}
}

// Wait waits for the feeds to end.
func (r *Registry) Wait() { r.wg.Wait() }

// List returns the features that are declared, and those not known yet. Of two
// with one name it has the first; one not known yet, which may turn out to be
// no feature, gives way to one that is.
func (r *Registry) List() []Declared {
	out := make([]Declared, 0, len(r.entries))
	for _, e := range r.entries {
		d := e.Source.Description()
		known := len(d.Kinds) > 0
		if known && !d.Has(sdk.KindFeature) {
			continue
		}
		f := Declared{Entry: e, Description: d, Known: known}
		switch i := slices.IndexFunc(out, func(o Declared) bool { return o.Name == e.Name }); {
		case i < 0:
			out = append(out, f)
		case known && !out[i].Known:
			out[i] = f
		case known:
			r.told.Do(func() {
				r.logger.Warn("two plugins bring a feature of one name; the first has it", "feature", e.Name, "ignored", e.Plugin)
			})
		}
	}
	return out
}

// Call runs a method. Params that the declaration doesn't know are the
// plugin's to refuse; a method that it doesn't declare is refused here.
func (r *Registry) Call(ctx context.Context, feature string, call sdk.Call) (jsontext.Value, error) {
	var names []string
	for _, d := range r.List() {
		names = append(names, d.Name)
		if d.Name != feature {
			continue
		}
		if !d.Known {
			return nil, sdk.Errorf(sdk.CodeUnavailable, "plugin_down", "feature %s: its plugin has not started yet", feature).
				WithNext("meshhost plugin list shows why.")
		}
		if call.Method == "" {
			call.Method = d.Description.DefaultMethod
		}
		if !slices.ContainsFunc(d.Description.Methods, func(m sdk.Method) bool { return m.Name == call.Method }) {
			return nil, sdk.Errorf(sdk.CodeNotFound, "no_method", "feature %s has no method %q", feature, call.Method).
				WithNext("It has: " + methodNames(d.Description.Methods) + ".")
		}
		return d.Source.Feature().Call(ctx, call)
	}
	return nil, sdk.Errorf(sdk.CodeNotFound, "no_feature", "no feature %q", feature).
		WithNext("There are: " + strings.Join(names, ", ") + ".")
}

func methodNames(ms []sdk.Method) string {
	names := make([]string, len(ms))
	for i := range ms {
		names[i] = ms[i].Name
	}
	return strings.Join(names, ", ")
}

// Connected tells every feature with an OnConnect that an identity's
// connection is up.
func (r *Registry) Connected(c sdk.Connected) {
	for _, f := range r.feeds {
		f.offer(item{connected: &c})
	}
}

// Ready tells the feature of a block that serves (again) which connections are
// up: it heard of none while it was down.
func (r *Registry) Ready(plugin string, up []sdk.Connected) {
	for _, f := range r.feeds {
		if f.entry.Plugin != plugin {
			continue
		}
		for i := range up {
			f.offer(item{connected: &up[i]})
		}
	}
}

// Frame hands an unsolicited frame to the features that watch its type.
func (r *Registry) Frame(fr sdk.Frame) {
	for _, f := range r.feeds {
		f.offer(item{frame: &fr})
	}
}
