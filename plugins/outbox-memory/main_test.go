package main

import (
	"context"
	"testing"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk/conformance/outboxtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	outboxtest.Run(t, outboxtest.Driver{Open: openForTest})
}

func TestConformanceOverTheWire(t *testing.T) {
	outboxtest.Run(t, outboxtest.OverWire(t, outboxtest.Driver{Open: openForTest}))
}

func openForTest(_ context.Context, o outboxtest.Options) (outboxtest.Store, error) {
	limits := outboxstate.Limits{Rows: o.MaxRows, Bytes: o.MaxBytes, Entry: o.MaxEntry}
	return outboxtest.Store{Outbox: broken(newStore(limits, 100_000, o.Now)), Close: func() error { return nil }}, nil
}
