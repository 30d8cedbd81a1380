package outboxtest

import (
	"context"
	"testing"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

// OverWire puts every store of a driver behind the real wire, in memory: a
// backend that passes directly may still rely on what does not cross, such as
// a shared slice or an error value.
func OverWire(t testing.TB, d Driver) Driver {
	return Driver{Durable: d.Durable, overWire: true, Open: func(ctx context.Context, o Options) (Store, error) {
		store, err := d.Open(ctx, o)
		if err != nil {
			return Store{}, err
		}
		scope := &scope{TB: t}
		var closed error
		plugin := plugintest.Start(scope, sdk.Plugin{
			Name: "tested", Version: "0.0.0", Outbox: store, Durable: d.Durable,
			Stop: func() error {
				closed = store.Close()
				return closed
			},
		})
		plugin.MustConfigure("")
		return Store{Outbox: plugin.Outbox(), Close: func() error {
			scope.end()
			return closed
		}}, nil
	}}
}

// scope is a test whose cleanups run when a store is closed, not when the test
// ends: a case opens the same store several times.
type scope struct {
	testing.TB
	cleanups []func()
}

// Cleanup keeps f for end.
func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		f := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		f()
	}
}
