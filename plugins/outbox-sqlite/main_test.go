package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk/conformance/outboxtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	outboxtest.Run(t, outboxtest.Driver{Durable: true, Open: openForTest})
}

func TestConformanceOverTheWire(t *testing.T) {
	outboxtest.Run(t, outboxtest.OverWire(t, outboxtest.Driver{Durable: true, Open: openForTest}))
}

func openForTest(ctx context.Context, o outboxtest.Options) (outboxtest.Store, error) {
	s, err := openStore(ctx, filepath.Join(o.Dir, "outbox.db"),
		outboxstate.Limits{Rows: o.MaxRows, Bytes: o.MaxBytes, Entry: o.MaxEntry}, o.Now)
	if err != nil {
		return outboxtest.Store{}, err
	}
	return outboxtest.Store{Outbox: s, Close: s.Close}, nil
}

// open is a store in a directory of its own with the real clock.
func open(t testing.TB, limits outboxstate.Limits) *store {
	t.Helper()
	s, err := openStore(context.Background(), filepath.Join(t.TempDir(), "outbox.db"), limits, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
