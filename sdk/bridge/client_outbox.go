package bridge

import (
	"context"
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
	results := make([]sdk.OpResult, len(ops))
	for i, r := range res.GetResults() {
		if err := opResultFromProto(&results[i], r); err != nil {
			return nil, fault("outbox.Apply", "result %d: %v", i, err)
		}
	}
	return results, nil
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

func (c outboxClient) Stats(ctx context.Context) (sdk.OutboxStats, error) {
	res, err := c.rpc.Stats(ctx, &outboxv1.StatsRequest{})
	if err != nil {
		return sdk.OutboxStats{}, sdk.ErrorFromStatus(err)
	}
	stats := sdk.OutboxStats{
		States:     make(map[sdk.EntryState]int64, len(res.GetStates())),
		Bytes:      res.GetBytes(),
		OldestLive: wire.Time(res.GetOldestLiveUnixMs()),
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
	res, err := c.rpc.Prune(ctx, &outboxv1.PruneRequest{BeforeUnixMs: wire.Millis(req.Before), Limit: int32(req.Limit)})
	if err != nil {
		return 0, sdk.ErrorFromStatus(err)
	}
	return int(res.GetPruned()), nil
}
