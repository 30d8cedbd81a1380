package bridge

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

// outboxClient is sdk.Outbox over the wire.
type outboxClient struct {
	rpc outboxv1.OutboxServiceClient
}

func (c outboxClient) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	res, err := c.rpc.Apply(ctx, &outboxv1.ApplyRequest{Ops: opsToProto(ops)})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	if err := count("outbox.Apply", len(res.GetResults()), len(ops)); err != nil {
		return nil, err
	}
	return opResultsFromProto("outbox.Apply", res.GetResults())
}

func (c outboxClient) Acquire(ctx context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	res, err := c.rpc.Acquire(ctx, &outboxv1.AcquireRequest{
		Lane:        req.Lane,
		Owner:       req.Owner,
		Incarnation: req.Incarnation,
		TtlNs:       int64(req.TTL),
	})
	if err != nil {
		return sdk.Lease{}, sdk.ErrorFromStatus(err)
	}
	return sdk.Lease{
		Held:    res.GetHeld(),
		Epoch:   res.GetEpoch(),
		HeldBy:  res.GetHeldBy(),
		RetryIn: time.Duration(res.GetRetryInNs()),
		Stolen:  res.GetStolen(),
	}, nil
}

func (c outboxClient) Release(ctx context.Context, req sdk.ReleaseRequest) error {
	_, err := c.rpc.Release(ctx, &outboxv1.ReleaseRequest{
		Lane:        req.Lane,
		Owner:       req.Owner,
		Incarnation: req.Incarnation,
		Epoch:       req.Epoch,
	})
	return sdk.ErrorFromStatus(err)
}

func (c outboxClient) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	res, err := c.rpc.Fetch(ctx, &outboxv1.FetchRequest{
		Lane:      req.Lane,
		Epoch:     req.Epoch,
		MaxQueues: int32(req.MaxQueues),
		MaxRows:   int32(req.MaxRows),
		Held:      req.Held,
	})
	if err != nil {
		return sdk.FetchResult{}, sdk.ErrorFromStatus(err)
	}
	work := sdk.FetchResult{
		Queues:  make([]sdk.Queue, len(res.GetQueues())),
		NextDue: time.Duration(res.GetNextDueNs()),
		More:    res.GetMore(),
	}
	for i, q := range res.GetQueues() {
		if len(q.GetRows()) == 0 {
			return sdk.FetchResult{}, fault("outbox.Fetch", "queue %d has no head", i)
		}
		rows, err := entriesFromProto(q.GetRows())
		if err != nil {
			return sdk.FetchResult{}, fault("outbox.Fetch", "queue %d: %v", i, err)
		}
		work.Queues[i] = sdk.Queue{Target: q.GetTarget(), Rows: rows, More: q.GetMore()}
	}
	return work, nil
}

func (c outboxClient) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	req := &outboxv1.LookupRequest{Keys: make([]*outboxv1.MessageKey, len(keys))}
	for i, k := range keys {
		req.Keys[i] = &outboxv1.MessageKey{Mesh: k.Mesh, Sender: k.Sender, ClientMessageId: k.ClientMessageID}
	}
	res, err := c.rpc.Lookup(ctx, req)
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	return maybeEntriesFromProto("outbox.Lookup", res.GetEntries(), len(keys))
}

func (c outboxClient) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	res, err := c.rpc.Get(ctx, &outboxv1.GetRequest{Ids: ids})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	return maybeEntriesFromProto("outbox.Get", res.GetEntries(), len(ids))
}

func (c outboxClient) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	list := &outboxv1.ListRequest{
		Mesh:   req.Mesh,
		Target: req.Target,
		Limit:  int32(req.Limit),
		Before: req.Before,
	}
	for _, s := range req.States {
		list.States = append(list.States, wire.EntryStates.Number(string(s)))
	}
	res, err := c.rpc.List(ctx, list)
	if err != nil {
		return sdk.ListPage{}, sdk.ErrorFromStatus(err)
	}
	entries, err := entriesFromProto(res.GetEntries())
	if err != nil {
		return sdk.ListPage{}, fault("outbox.List", "%v", err)
	}
	return sdk.ListPage{Entries: entries, Next: res.GetNext()}, nil
}

func (c outboxClient) Stats(ctx context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	res, err := c.rpc.Stats(ctx, &outboxv1.StatsRequest{Lane: req.Lane})
	if err != nil {
		return sdk.OutboxStats{}, sdk.ErrorFromStatus(err)
	}
	stats := sdk.OutboxStats{
		States:       make(map[sdk.EntryState]int64, len(res.GetStates())),
		Bytes:        res.GetBytes(),
		OldestLive:   wire.Time(res.GetOldestLiveUnixMs()),
		LastNotAfter: wire.Time(res.GetLastNotAfterUnixMs()),
		Sealed:       wire.Clip(res.GetSealed()),
		Holders:      res.GetHolders(),
	}
	for i, s := range res.GetStates() {
		state, err := wire.EntryStates.Word(s.GetState())
		if err != nil {
			return sdk.OutboxStats{}, fault("outbox.Stats", "count %d: %v", i, err)
		}
		stats.States[sdk.EntryState(state)] = s.GetCount()
	}
	return stats, nil
}

func (c outboxClient) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	res, err := c.rpc.Prune(ctx, &outboxv1.PruneRequest{
		BeforeUnixMs: wire.Millis(req.Before),
		Label:        req.Label,
		All:          req.All,
		Limit:        int32(req.Limit),
	})
	if err != nil {
		return 0, sdk.ErrorFromStatus(err)
	}
	return int(res.GetPruned()), nil
}

func (c outboxClient) Scan(ctx context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	scan := &outboxv1.ScanRequest{After: req.After, Lane: req.Lane, Unconfirmed: req.Unconfirmed, Bodies: req.Bodies}
	for _, s := range req.States {
		scan.States = append(scan.States, wire.EntryStates.Number(string(s)))
	}
	ctx, cancel := context.WithCancel(ctx) // ends the stream if page fails
	defer cancel()
	from, err := c.rpc.Scan(ctx, scan)
	if err != nil {
		return sdk.ErrorFromStatus(err)
	}
	for {
		res, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return sdk.ErrorFromStatus(err)
		}
		if len(res.GetEntries()) == 0 || res.GetCursor() == "" {
			return fault("outbox.Scan", "a page without entries or cursor")
		}
		entries, err := entriesFromProto(res.GetEntries())
		if err != nil {
			return fault("outbox.Scan", "%v", err)
		}
		if err := page(sdk.ScanPage{Entries: entries, Cursor: res.GetCursor()}); err != nil {
			return err
		}
	}
}

func (c outboxClient) Watch(ctx context.Context, tell func(sdk.WatchEvent) error) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream if tell fails
	defer cancel()
	from, err := c.rpc.Watch(ctx, &outboxv1.WatchRequest{})
	if err != nil {
		return sdk.ErrorFromStatus(err)
	}
	for {
		res, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return fault("outbox.Watch", "it ended by itself")
		}
		if err != nil {
			return sdk.ErrorFromStatus(err)
		}
		kind, err := wire.WatchKinds.Word(res.GetKind())
		if err != nil {
			return fault("outbox.Watch", "%v", err)
		}
		if err := tell(sdk.WatchEvent{Kind: sdk.WatchKind(kind), Lane: res.GetLane(), Target: res.GetTarget()}); err != nil {
			return err
		}
	}
}

func (c outboxClient) Import(ctx context.Context, req sdk.ImportRequest) ([]sdk.OpResult, error) {
	slab := make([]outboxv1.Entry, len(req.Entries))
	entries := make([]*outboxv1.Entry, len(req.Entries))
	for i := range req.Entries {
		entryToProto(&slab[i], &req.Entries[i])
		entries[i] = &slab[i]
	}
	res, err := c.rpc.Import(ctx, &outboxv1.ImportRequest{Label: req.Label, Entries: entries})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	if err := count("outbox.Import", len(res.GetResults()), len(req.Entries)); err != nil {
		return nil, err
	}
	return opResultsFromProto("outbox.Import", res.GetResults())
}
