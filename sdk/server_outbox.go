package sdk

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

type outboxServer struct {
	outboxv1.UnimplementedOutboxServiceServer
	impl Outbox
}

func (s outboxServer) Apply(ctx context.Context, req *outboxv1.ApplyRequest) (*outboxv1.ApplyResponse, error) {
	ops, err := opsFromProto(req.GetOps())
	if err != nil {
		return nil, err
	}
	results, err := s.impl.Apply(ctx, ops)
	if err != nil {
		return nil, err
	}
	return &outboxv1.ApplyResponse{Results: opResultsToProto(results)}, nil
}

func (s outboxServer) Acquire(ctx context.Context, req *outboxv1.AcquireRequest) (*outboxv1.AcquireResponse, error) {
	lease, err := s.impl.Acquire(ctx, AcquireRequest{
		Lane:        req.GetLane(),
		Owner:       req.GetOwner(),
		Incarnation: req.GetIncarnation(),
		TTL:         time.Duration(req.GetTtlNs()),
	})
	if err != nil {
		return nil, err
	}
	return &outboxv1.AcquireResponse{
		Held:      lease.Held,
		Epoch:     lease.Epoch,
		HeldBy:    lease.HeldBy,
		RetryInNs: int64(lease.RetryIn),
		Stolen:    lease.Stolen,
	}, nil
}

func (s outboxServer) Release(ctx context.Context, req *outboxv1.ReleaseRequest) (*outboxv1.ReleaseResponse, error) {
	err := s.impl.Release(ctx, ReleaseRequest{
		Lane:        req.GetLane(),
		Owner:       req.GetOwner(),
		Incarnation: req.GetIncarnation(),
		Epoch:       req.GetEpoch(),
	})
	if err != nil {
		return nil, err
	}
	return &outboxv1.ReleaseResponse{}, nil
}

func (s outboxServer) Fetch(ctx context.Context, req *outboxv1.FetchRequest) (*outboxv1.FetchResponse, error) {
	work, err := s.impl.Fetch(ctx, FetchRequest{
		Lane:      req.GetLane(),
		Epoch:     req.GetEpoch(),
		MaxQueues: int(req.GetMaxQueues()),
		MaxRows:   int(req.GetMaxRows()),
		Held:      req.GetHeld(),
	})
	if err != nil {
		return nil, err
	}
	res := &outboxv1.FetchResponse{
		Queues:    make([]*outboxv1.Queue, len(work.Queues)),
		NextDueNs: int64(work.NextDue),
		More:      work.More,
	}
	for i := range work.Queues {
		q := &work.Queues[i]
		res.Queues[i] = &outboxv1.Queue{Target: q.Target, Rows: entriesToProto(q.Rows), More: q.More}
	}
	return res, nil
}

func (s outboxServer) Lookup(ctx context.Context, req *outboxv1.LookupRequest) (*outboxv1.LookupResponse, error) {
	keys := make([]MessageKey, len(req.GetKeys()))
	for i, k := range req.GetKeys() {
		keys[i] = MessageKey{Mesh: k.GetMesh(), Sender: k.GetSender(), ClientMessageID: k.GetClientMessageId()}
	}
	entries, err := s.impl.Lookup(ctx, keys)
	if err != nil {
		return nil, err
	}
	return &outboxv1.LookupResponse{Entries: maybeEntriesToProto(entries)}, nil
}

func (s outboxServer) Get(ctx context.Context, req *outboxv1.GetRequest) (*outboxv1.GetResponse, error) {
	entries, err := s.impl.Get(ctx, req.GetIds())
	if err != nil {
		return nil, err
	}
	return &outboxv1.GetResponse{Entries: maybeEntriesToProto(entries)}, nil
}

func (s outboxServer) List(ctx context.Context, req *outboxv1.ListRequest) (*outboxv1.ListResponse, error) {
	list := ListRequest{
		Mesh:   req.GetMesh(),
		Target: req.GetTarget(),
		Limit:  int(req.GetLimit()),
		Before: req.GetBefore(),
	}
	for _, n := range req.GetStates() {
		state, err := wire.EntryStates.Word(n)
		if err != nil {
			return nil, Errorf(CodeInvalid, "bad_request", "list: %v", err)
		}
		list.States = append(list.States, EntryState(state))
	}
	page, err := s.impl.List(ctx, list)
	if err != nil {
		return nil, err
	}
	return &outboxv1.ListResponse{Entries: entriesToProto(page.Entries), Next: page.Next}, nil
}

func (s outboxServer) Stats(ctx context.Context, req *outboxv1.StatsRequest) (*outboxv1.StatsResponse, error) {
	stats, err := s.impl.Stats(ctx, StatsRequest{Lane: req.GetLane()})
	if err != nil {
		return nil, err
	}
	res := &outboxv1.StatsResponse{
		Bytes:              stats.Bytes,
		OldestLiveUnixMs:   wire.Millis(stats.OldestLive),
		LastNotAfterUnixMs: wire.Millis(stats.LastNotAfter),
		Sealed:             stats.Sealed,
		Holders:            stats.Holders,
	}
	for state, count := range stats.States {
		res.States = append(res.States, &outboxv1.StateCount{State: wire.EntryStates.Number(string(state)), Count: count})
	}
	return res, nil
}

func (s outboxServer) Prune(ctx context.Context, req *outboxv1.PruneRequest) (*outboxv1.PruneResponse, error) {
	n, err := s.impl.Prune(ctx, PruneRequest{
		Before: wire.Time(req.GetBeforeUnixMs()),
		Label:  req.GetLabel(),
		All:    req.GetAll(),
		Limit:  int(req.GetLimit()),
	})
	if err != nil {
		return nil, err
	}
	return &outboxv1.PruneResponse{Pruned: int32(n)}, nil
}

func (s outboxServer) Scan(req *outboxv1.ScanRequest, to grpc.ServerStreamingServer[outboxv1.ScanResponse]) error {
	scan := ScanRequest{
		After:       req.GetAfter(),
		Lane:        req.GetLane(),
		Unconfirmed: req.GetUnconfirmed(),
		Bodies:      req.GetBodies(),
	}
	for _, n := range req.GetStates() {
		state, err := wire.EntryStates.Word(n)
		if err != nil {
			return Errorf(CodeInvalid, "bad_request", "scan: %v", err)
		}
		scan.States = append(scan.States, EntryState(state))
	}
	return s.impl.Scan(to.Context(), scan, func(p ScanPage) error {
		return to.Send(&outboxv1.ScanResponse{Entries: entriesToProto(p.Entries), Cursor: p.Cursor})
	})
}

func (s outboxServer) Watch(_ *outboxv1.WatchRequest, to grpc.ServerStreamingServer[outboxv1.WatchResponse]) error {
	return s.impl.Watch(to.Context(), func(e WatchEvent) error {
		return to.Send(&outboxv1.WatchResponse{
			Kind:   wire.WatchKinds.Number(string(e.Kind)),
			Lane:   e.Lane,
			Target: e.Target,
		})
	})
}

func (s outboxServer) Import(ctx context.Context, req *outboxv1.ImportRequest) (*outboxv1.ImportResponse, error) {
	entries := make([]Entry, len(req.GetEntries()))
	for i, p := range req.GetEntries() {
		if err := entryFromProto(&entries[i], p); err != nil {
			return nil, Errorf(CodeInvalid, "bad_request", "entry %d: %v", i, err)
		}
	}
	results, err := s.impl.Import(ctx, ImportRequest{Label: req.GetLabel(), Entries: entries})
	if err != nil {
		return nil, err
	}
	return &outboxv1.ImportResponse{Results: opResultsToProto(results)}, nil
}
