package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// benchStore measures outbox plugins without the daemon: 64 producers, each
// with one message at a time whose life it drives from append to its small
// record, and whose ops ride with those of others. Beside it, the same calls to
// the plugin that keeps all in memory: the boundary with nothing behind it but
// maps; and batches of a hundred records that change nothing.
func benchStore(b *testing.B, bin built, tab *table) {
	lives := &figure{name: "store_sqlite_lives", unit: "1/s", per: storeLives}
	memory := &figure{name: "store_memory_lives", unit: "1/s", per: storeLives}
	records := &figure{name: "boundary_records", unit: "1/s", per: boundaryRecords}
	for range runs {
		memory.add(storeRun(b, bin, "memory", memory, driveLives))
		records.add(storeRun(b, bin, "memory", records, driveRecords))
		lives.ceil("boundary_and_maps", memory.vals[len(memory.vals)-1])
		lives.ceil("boundary_records", records.vals[len(records.vals)-1])
		lives.add(storeRun(b, bin, "sqlite", lives, driveLives))
	}
	tab.add(b, lives)
	tab.add(b, memory)
	tab.add(b, records)
}

const (
	storeProducers  = 64
	storeLives      = 64 * 600
	boundaryBatch   = 100
	boundaryRecords = 100 * 2000
)

// storeRun starts a plugin by itself and drives it.
func storeRun(b *testing.B, bin built, label string, f *figure, drive func(context.Context, sdk.Outbox) error) float64 {
	b.Helper()
	dir := shortDir(b)
	ctx := b.Context()
	p := plugin.Start(ctx, plugin.Spec{
		Kind: sdk.KindOutbox, Name: label, Path: filepath.Join(bin.plugins, "meshhost-outbox-"+label),
		DataDir: filepath.Join(dir, "data"), RuntimeDir: filepath.Join(dir, "r"),
		Config: func(context.Context, sdk.Description) (jsontext.Value, error) { return jsontext.Value(`{}`), nil },
	})
	defer p.Stop(context.WithoutCancel(ctx))
	if err := p.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	m := newMeter(b, map[string]int{"outbox": p.Status().Pid})
	began := time.Now()
	if err := drive(ctx, p.Outbox()); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	m.read(f)
	stats, err := p.Outbox().Stats(ctx, sdk.StatsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	if n := stats.States[sdk.StateAccepted]; f.per == storeLives && n != storeLives {
		b.Fatalf("%d of %d messages are accepted: %v", n, storeLives, stats.States)
	}
	return float64(f.per) / took.Seconds()
}

// driveLives has all producers live through their messages.
func driveLives(ctx context.Context, outbox sdk.Outbox) error {
	calls := plugin.NewBatcher(plugin.BatchOptions[sdk.Op]{MaxItems: 512, MaxWaiting: 2 * storeProducers}, outbox.Apply)
	defer calls.Close(ctx)
	var wg sync.WaitGroup
	errs := make([]error, storeProducers)
	for c := range storeProducers {
		wg.Go(func() {
			target := fmt.Sprintf("%064x", c)
			for range storeLives / storeProducers {
				e := storeEntry(target)
				res, err := calls.Do(ctx, sdk.Op{Kind: sdk.OpAppend, Entry: e})
				if err == nil && res.Code != sdk.OpStored {
					err = fmt.Errorf("append: %s", res.Code)
				}
				if err == nil {
					res, err = calls.Do(ctx, sdk.Op{Kind: sdk.OpAccepted, ID: e.ID, BrokerMessageID: e.ID, At: time.Now(), Final: true})
				}
				if err == nil && res.Code != sdk.OpApplied {
					err = fmt.Errorf("accepted: %s", res.Code)
				}
				if err != nil {
					errs[c] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// driveRecords sends batches about messages that are not there, from eight
// callers.
func driveRecords(ctx context.Context, outbox sdk.Outbox) error {
	var left atomic.Int64
	left.Store(boundaryRecords / boundaryBatch)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for c := range errs {
		wg.Go(func() {
			ops := make([]sdk.Op, boundaryBatch)
			for i := range ops {
				ops[i] = sdk.Op{Kind: sdk.OpAccepted, ID: uuid.NewString(), BrokerMessageID: uuid.NewString(), At: time.Now()}
			}
			for left.Add(-1) >= 0 {
				res, err := outbox.Apply(ctx, ops)
				if err == nil && res[0].Code != sdk.OpNotFound {
					err = fmt.Errorf("accepted: %s", res[0].Code)
				}
				if err != nil {
					errs[c] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// storeEntry is a message as the daemon makes it: textBytes of text, sealed twice.
func storeEntry(target string) *sdk.Entry {
	id := uuid.Must(uuid.NewV7()).String()
	now := time.Now().Truncate(time.Millisecond)
	return &sdk.Entry{
		ID: id, ClientMessageID: id, Fingerprint: make([]byte, 32), Mesh: "team", Sender: "member",
		Lane: "team/member", Target: target, Priority: "next", Nonce: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		Body: make([]byte, 2*textBytes), EnqueuedAt: now, NotAfter: now.Add(7 * 24 * time.Hour),
	}
}
