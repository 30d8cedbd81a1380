package outbound

import (
	"context"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// reads lets concurrent callers share calls that read one outbox. Several
// calls may be under way, so that a slow one holds up only its own callers.
type reads struct {
	lookups *plugin.Batcher[sdk.MessageKey, *sdk.Entry]
	gets    *plugin.Batcher[string, *sdk.Entry]
}

func newReads(outbox sdk.Outbox) *reads {
	return &reads{
		lookups: plugin.NewBatcher(plugin.BatchOptions[sdk.MessageKey]{Lanes: 2}, outbox.Lookup),
		// Entries come whole, 64 KiB each at most.
		gets: plugin.NewBatcher(plugin.BatchOptions[string]{Lanes: 2, MaxItems: 16}, outbox.Get),
	}
}

// lookup finds an entry by its sender's key, without its body; nil if there is
// none. The entry may be shared: it must not be changed.
func (r *reads) lookup(ctx context.Context, key sdk.MessageKey) (*sdk.Entry, error) {
	return r.lookups.Do(ctx, key)
}

// get finds an entry by id; nil if there is none.
func (r *reads) get(ctx context.Context, id string) (*sdk.Entry, error) {
	return r.gets.Do(ctx, id)
}

func (r *reads) close(ctx context.Context) {
	r.lookups.Close(ctx)
	r.gets.Close(ctx)
}
