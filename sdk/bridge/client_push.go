package bridge

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

// pushClient is sdk.PushHandler over the wire.
type pushClient struct {
	rpc pushv1.PushServiceClient
}

func (c pushClient) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	res, err := c.rpc.Handle(ctx, &pushv1.HandleRequest{Pushes: pushesToProto(pushes)})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	if err := count("push.Handle", len(res.GetOutcomes()), len(pushes)); err != nil {
		return nil, err
	}
	outcomes := make([]sdk.Outcome, len(pushes))
	for i, o := range res.GetOutcomes() {
		decision, err := wire.Decisions.Word(o.GetDecision())
		if err != nil {
			return nil, fault("push.Handle", "outcome %d: %v", i, err)
		}
		if o.GetAfterNs() < 0 {
			return nil, fault("push.Handle", "outcome %d: a negative delay", i)
		}
		outcomes[i] = sdk.Outcome{
			Decision: sdk.Decision(decision),
			After:    time.Duration(o.GetAfterNs()),
			Reason:   wire.Clip(o.GetReason()),
		}
	}
	return outcomes, nil
}

// pushesToProto allocates one slab for a batch.
func pushesToProto(from []sdk.Push) []*pushv1.Push {
	slab := make([]pushv1.Push, len(from))
	res := make([]*pushv1.Push, len(from))
	for i := range from {
		pushToProto(&slab[i], &from[i])
		res[i] = &slab[i]
	}
	return res
}

func pushToProto(to *pushv1.Push, p *sdk.Push) {
	to.Id = p.ID
	to.Mesh = p.Mesh
	to.Kind = wire.PushKinds.Number(string(p.Kind))
	to.Recipient = p.Recipient
	to.RecipientKind = p.RecipientKind
	to.MessageId = p.MessageID
	to.ClientMessageId = p.ClientMessageID
	to.Sender = p.Sender
	to.SenderMember = p.SenderMember
	to.SenderName = p.SenderName
	to.Priority = p.Priority
	to.Subtype = p.Subtype
	to.Event = p.Event
	to.EventDataJson = p.EventData
	to.Body = p.Body
	to.Undecryptable = p.Undecryptable
	to.ReplyToId = p.ReplyToID
	to.CreatedAtUnixMs = wire.Millis(p.CreatedAt)
	to.ReceivedAtUnixMs = wire.Millis(p.ReceivedAt)
	to.Attempt = int32(p.Attempt)
	to.DedupKeys = p.DedupKeys
}
