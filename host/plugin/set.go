package plugin

import (
	"context"
	"errors"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

// Set is several plugins in the order of their blocks.
type Set struct {
	plugins  []*Plugin
	optional []bool
}

// StartAll starts every plugin at the same time and returns at once; Ready
// waits for them.
func StartAll(ctx context.Context, specs []Spec) *Set {
	s := &Set{}
	for i := range specs {
		s.plugins = append(s.plugins, Start(ctx, specs[i]))
		s.optional = append(s.optional, specs[i].Optional)
	}
	return s
}

// All returns the plugins in the order of their blocks; not to be changed.
func (s *Set) All() []*Plugin { return s.plugins }

// Get finds a plugin by its block, or nil.
func (s *Set) Get(kind sdk.Kind, name string) *Plugin {
	for _, p := range s.plugins {
		if p.kind == kind && p.name == name {
			return p
		}
	}
	return nil
}

// Ready waits until each plugin serves or is known to be broken, and returns
// the errors of those that are not optional. When ctx ends first it says which
// are not ready.
func (s *Set) Ready(ctx context.Context) error {
	errs := make([]error, len(s.plugins))
	var wg sync.WaitGroup
	for i, p := range s.plugins {
		wg.Go(func() {
			if err := p.Ready(ctx); err != nil && !s.optional[i] {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Stop stops the plugins in reverse order, all within ctx.
func (s *Set) Stop(ctx context.Context) {
	for i := len(s.plugins) - 1; i >= 0; i-- {
		s.plugins[i].Stop(ctx)
	}
}
