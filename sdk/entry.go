package sdk

import (
	"time"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

// The converters of entries and ops allocate one slab for a batch: they are on
// the path of every message.

func opsFromProto(from []*outboxv1.Op) ([]Op, error) {
	ops := make([]Op, len(from))
	entries := make([]Entry, len(from))
	for i, p := range from {
		kind, err := wire.OpKinds.Word(p.GetKind())
		if err != nil {
			return nil, Errorf(CodeInvalid, "bad_request", "op %d: %v", i, err)
		}
		ops[i] = Op{
			Kind:            OpKind(kind),
			ID:              p.GetId(),
			Lane:            p.GetLane(),
			Epoch:           p.GetEpoch(),
			Target:          p.GetTarget(),
			After:           time.Duration(p.GetAfterNs()),
			Count:           p.GetCount(),
			Error:           p.GetError(),
			BrokerMessageID: p.GetBrokerMessageId(),
			At:              wire.Time(p.GetAtUnixMs()),
			Final:           p.GetFinal(),
			NotAfter:        wire.Time(p.GetNotAfterUnixMs()),
		}
		switch {
		case p.GetEntry() != nil:
			if err := entryFromProto(&entries[i], p.GetEntry()); err != nil {
				return nil, Errorf(CodeInvalid, "bad_request", "op %d: %v", i, err)
			}
			ops[i].Entry = &entries[i]
		case ops[i].Kind == OpAppend:
			return nil, Errorf(CodeInvalid, "bad_request", "op %d: append without an entry", i)
		}
	}
	return ops, nil
}

func opResultsToProto(from []OpResult) []*outboxv1.OpResult {
	slab := make([]outboxv1.OpResult, len(from))
	res := make([]*outboxv1.OpResult, len(from))
	for i := range from {
		r, p := &from[i], &slab[i]
		p.Code = wire.OpCodes.Number(string(r.Code))
		p.Seq = r.Seq
		p.Prev = r.Prev
		p.Id = r.ID
		p.State = wire.EntryStates.Number(string(r.State))
		p.SameFingerprint = r.SameFingerprint
		p.BrokerMessageId = r.BrokerMessageID
		p.Detail = r.Detail
		res[i] = p
	}
	return res
}

func entriesToProto(from []Entry) []*outboxv1.Entry {
	slab := make([]outboxv1.Entry, len(from))
	res := make([]*outboxv1.Entry, len(from))
	for i := range from {
		entryToProto(&slab[i], &from[i])
		res[i] = &slab[i]
	}
	return res
}

func maybeEntriesToProto(from []*Entry) []*outboxv1.MaybeEntry {
	res := make([]*outboxv1.MaybeEntry, len(from))
	for i, e := range from {
		res[i] = &outboxv1.MaybeEntry{}
		if e != nil {
			res[i].Entry = &outboxv1.Entry{}
			entryToProto(res[i].Entry, e)
		}
	}
	return res
}

func entryToProto(to *outboxv1.Entry, e *Entry) {
	to.Id = e.ID
	to.ClientMessageId = e.ClientMessageID
	to.Fingerprint = e.Fingerprint
	to.Mesh = e.Mesh
	to.Sender = e.Sender
	to.Lane = e.Lane
	to.Target = e.Target
	to.Priority = e.Priority
	to.Nonce = e.Nonce
	to.Body = e.Body
	to.EnqueuedAtUnixMs = wire.Millis(e.EnqueuedAt)
	to.NotAfterUnixMs = wire.Millis(e.NotAfter)
	to.Attempts = int32(e.Attempts)
	to.DueAtUnixMs = wire.Millis(e.DueAt)
	to.State = wire.EntryStates.Number(string(e.State))
	to.LastError = e.LastError
	to.BrokerMessageId = e.BrokerMessageID
	to.AcceptedAtUnixMs = wire.Millis(e.AcceptedAt)
	to.DeliveredAtUnixMs = wire.Millis(e.DeliveredAt)
	to.Seq = e.Seq
}

// entryFromProto reads an entry of the host's; its state may be unset.
func entryFromProto(to *Entry, p *outboxv1.Entry) error {
	state, err := wire.EntryStates.WordOrNone(p.GetState())
	if err != nil {
		return err
	}
	*to = Entry{
		ID:              p.GetId(),
		ClientMessageID: p.GetClientMessageId(),
		Fingerprint:     p.GetFingerprint(),
		Mesh:            p.GetMesh(),
		Sender:          p.GetSender(),
		Lane:            p.GetLane(),
		Target:          p.GetTarget(),
		Priority:        p.GetPriority(),
		Nonce:           p.GetNonce(),
		Body:            p.GetBody(),
		EnqueuedAt:      wire.Time(p.GetEnqueuedAtUnixMs()),
		NotAfter:        wire.Time(p.GetNotAfterUnixMs()),
		Attempts:        int(p.GetAttempts()),
		DueAt:           wire.Time(p.GetDueAtUnixMs()),
		State:           EntryState(state),
		LastError:       p.GetLastError(),
		BrokerMessageID: p.GetBrokerMessageId(),
		AcceptedAt:      wire.Time(p.GetAcceptedAtUnixMs()),
		DeliveredAt:     wire.Time(p.GetDeliveredAtUnixMs()),
		Seq:             p.GetSeq(),
	}
	return nil
}
