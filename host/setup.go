package host

import (
	"context"
	"crypto/sha256"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// setup is what mesh.hcl asks for and the plugins that do it. One that is in
// force is never changed: a reload puts another in its place.
type setup struct {
	cfg  *config.Config
	uses []*use // in the order of mesh.hcl
}

// now is the setup in force.
func (h *Host) now() *setup { return h.setup.Load() }

// use is one block with its plugin.
type use struct {
	cfg    *config.Use
	plugin *plugin.Plugin
	// values stands for what the plugin was last configured with.
	values *digest
}

// digest stands for the options of a plugin, which may hold secrets; nil inside
// until they were made.
type digest struct {
	atomic.Pointer[[sha256.Size]byte]
}

func (d *digest) set(values jsontext.Value) {
	sum := sha256.Sum256(values)
	d.Store(&sum)
}

// is reports whether it stands for these options.
func (d *digest) is(values jsontext.Value) bool {
	have := d.Load()
	return have != nil && *have == sha256.Sum256(values)
}

// blockOf names a use in lists: "rpc_feature.state".
func blockOf(u *config.Use) string { return string(u.Kind) + "." + u.Name }

// of are the uses of one kind.
func (s *setup) of(kind sdk.Kind) []*use {
	var out []*use
	for _, u := range s.uses {
		if u.cfg.Kind == kind {
			out = append(out, u)
		}
	}
	return out
}

// use finds a block by blockOf; nil if there is none.
func (s *setup) use(block string) *use {
	for _, u := range s.uses {
		if blockOf(u.cfg) == block {
			return u
		}
	}
	return nil
}

// spec says how the process of a use is started and configured.
func (h *Host) spec(u *config.Use, values *digest) plugin.Spec {
	s := specOf(u)
	s.DataDir, s.RuntimeDir = u.DataDir, h.runtime
	s.Services = services{h}
	s.Logger = h.logger.Named(u.ID())
	s.OnState = func(plugin.Status) { h.lookAtPlugins() }
	decode := s.Config
	s.Config = func(ctx context.Context, d sdk.Description) (jsontext.Value, error) {
		v, err := decode(ctx, d)
		if err == nil {
			values.set(v)
		}
		return v, err
	}
	return s
}
