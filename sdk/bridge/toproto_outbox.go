package bridge

import (
	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

// opsToProto allocates one slab for a batch: it is on the path of every message.
func opsToProto(from []sdk.Op) []*outboxv1.Op {
	slab := make([]outboxv1.Op, len(from))
	res := make([]*outboxv1.Op, len(from))
	for i := range from {
		o, p := &from[i], &slab[i]
		p.Kind = wire.OpKinds.Number(string(o.Kind))
		if o.Entry != nil {
			p.Entry = entryToProto(o.Entry)
		}
		p.Id = o.ID
		p.Lane = o.Lane
		p.Epoch = o.Epoch
		p.Target = o.Target
		p.AfterNs = int64(o.After)
		p.Count = o.Count
		p.Error = o.Error
		p.BrokerMessageId = o.BrokerMessageID
		p.AtUnixMs = wire.Millis(o.At)
		p.Final = o.Final
		p.NotAfterUnixMs = wire.Millis(o.NotAfter)
		res[i] = p
	}
	return res
}

func entryToProto(e *sdk.Entry) *outboxv1.Entry {
	return &outboxv1.Entry{
		Id:                e.ID,
		ClientMessageId:   e.ClientMessageID,
		Fingerprint:       e.Fingerprint,
		Mesh:              e.Mesh,
		Sender:            e.Sender,
		Lane:              e.Lane,
		Target:            e.Target,
		Priority:          e.Priority,
		Nonce:             e.Nonce,
		Body:              e.Body,
		EnqueuedAtUnixMs:  wire.Millis(e.EnqueuedAt),
		NotAfterUnixMs:    wire.Millis(e.NotAfter),
		Attempts:          int32(e.Attempts),
		DueAtUnixMs:       wire.Millis(e.DueAt),
		State:             wire.EntryStates.Number(string(e.State)),
		LastError:         e.LastError,
		BrokerMessageId:   e.BrokerMessageID,
		AcceptedAtUnixMs:  wire.Millis(e.AcceptedAt),
		DeliveredAtUnixMs: wire.Millis(e.DeliveredAt),
		Seq:               e.Seq,
	}
}
