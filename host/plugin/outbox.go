package plugin

import (
	"context"

	"github.com/meshhost/meshhost/sdk"
)

// outbox is the facade of an outbox.
type outbox struct{ p *Plugin }

// Outbox returns the outbox of this plugin, whatever process serves it now. A
// call fails at once with ReasonDown while there is none, and with
// ReasonUnknown or ReasonTimeout when the answer is missing.
func (p *Plugin) Outbox() sdk.Outbox { return outbox{p} }

func pickOutbox(c *calls) (sdk.Outbox, bool) { return c.outbox, c.outbox != nil }

func (o outbox) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	return call(ctx, o.p, MethodApply, pickOutbox, func(ctx context.Context, c sdk.Outbox) ([]sdk.OpResult, error) {
		res, err := c.Apply(ctx, ops)
		return checkLen(len(ops), res, err)
	})
}

func (o outbox) Acquire(ctx context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	return call(ctx, o.p, MethodAcquire, pickOutbox, func(ctx context.Context, c sdk.Outbox) (sdk.Lease, error) {
		return c.Acquire(ctx, req)
	})
}

func (o outbox) Release(ctx context.Context, req sdk.ReleaseRequest) error {
	_, err := call(ctx, o.p, MethodRelease, pickOutbox, func(ctx context.Context, c sdk.Outbox) (struct{}, error) {
		return struct{}{}, c.Release(ctx, req)
	})
	return err
}

func (o outbox) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	return call(ctx, o.p, MethodFetch, pickOutbox, func(ctx context.Context, c sdk.Outbox) (sdk.FetchResult, error) {
		return c.Fetch(ctx, req)
	})
}

func (o outbox) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	return call(ctx, o.p, MethodLookup, pickOutbox, func(ctx context.Context, c sdk.Outbox) ([]*sdk.Entry, error) {
		res, err := c.Lookup(ctx, keys)
		return checkLen(len(keys), res, err)
	})
}

func (o outbox) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	return call(ctx, o.p, MethodGet, pickOutbox, func(ctx context.Context, c sdk.Outbox) ([]*sdk.Entry, error) {
		res, err := c.Get(ctx, ids)
		return checkLen(len(ids), res, err)
	})
}

func (o outbox) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	return call(ctx, o.p, MethodList, pickOutbox, func(ctx context.Context, c sdk.Outbox) (sdk.ListPage, error) {
		return c.List(ctx, req)
	})
}

func (o outbox) Stats(ctx context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	return call(ctx, o.p, MethodStats, pickOutbox, func(ctx context.Context, c sdk.Outbox) (sdk.OutboxStats, error) {
		return c.Stats(ctx, req)
	})
}

func (o outbox) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	return call(ctx, o.p, MethodPrune, pickOutbox, func(ctx context.Context, c sdk.Outbox) (int, error) {
		return c.Prune(ctx, req)
	})
}

func (o outbox) Scan(ctx context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	return stream(ctx, o.p, MethodScan, pickOutbox, func(ctx context.Context, c sdk.Outbox) (error, error) {
		var own error // of page, which is the caller's
		err := c.Scan(ctx, req, func(p sdk.ScanPage) error {
			own = page(p)
			return own
		})
		return own, err
	})
}

func (o outbox) Watch(ctx context.Context, tell func(sdk.WatchEvent) error) error {
	return stream(ctx, o.p, MethodWatch, pickOutbox, func(ctx context.Context, c sdk.Outbox) (error, error) {
		var own error
		err := c.Watch(ctx, func(e sdk.WatchEvent) error {
			own = tell(e)
			return own
		})
		return own, err
	})
}

func (o outbox) Import(ctx context.Context, req sdk.ImportRequest) ([]sdk.OpResult, error) {
	return call(ctx, o.p, MethodImport, pickOutbox, func(ctx context.Context, c sdk.Outbox) ([]sdk.OpResult, error) {
		res, err := c.Import(ctx, req)
		return checkLen(len(req.Entries), res, err)
	})
}

// checkLen refuses an answer that is not one result per item: nobody could tell
// which item a result belongs to.
func checkLen[R any](want int, res []R, err error) ([]R, error) {
	if err != nil {
		return nil, err
	}
	if len(res) != want {
		return nil, sdk.Errorf(sdk.CodeInternal, "bad_reply", "the plugin answered %d results for %d items", len(res), want)
	}
	return res, nil
}
