package bridge

import (
	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

// opsToProto allocates one slab for a batch: it is on the path of every message.
func opsToProto(from []sdk.Op) []*outboxv1.Op {
	slab := make([]outboxv1.Op, len(from))
	entries := make([]outboxv1.Entry, len(from))
	res := make([]*outboxv1.Op, len(from))
	for i := range from {
		o, p := &from[i], &slab[i]
		p.Kind = wire.OpKinds.Number(string(o.Kind))
		if o.Entry != nil {
			entryToProto(&entries[i], o.Entry)
			p.Entry = &entries[i]
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

func entryToProto(to *outboxv1.Entry, e *sdk.Entry) {
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
