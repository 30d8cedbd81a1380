package sdk

import (
	"context"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

type pushServer struct {
	pushv1.UnimplementedPushServiceServer
	impl PushHandler
}

func (s pushServer) Handle(ctx context.Context, req *pushv1.HandleRequest) (*pushv1.HandleResponse, error) {
	pushes := make([]Push, len(req.GetPushes()))
	for i, p := range req.GetPushes() {
		if err := pushFromProto(&pushes[i], p); err != nil {
			return nil, Errorf(CodeInvalid, "bad_request", "push %d: %v", i, err)
		}
	}
	outcomes, err := s.impl.Handle(ctx, pushes)
	if err != nil {
		return nil, err
	}
	res := &pushv1.HandleResponse{Outcomes: make([]*pushv1.Outcome, len(outcomes))}
	slab := make([]pushv1.Outcome, len(outcomes))
	for i, o := range outcomes {
		slab[i].Decision = wire.Decisions.Number(string(o.Decision))
		slab[i].AfterNs = int64(o.After)
		slab[i].Reason = o.Reason
		res.Outcomes[i] = &slab[i]
	}
	return res, nil
}

func pushFromProto(to *Push, p *pushv1.Push) error {
	kind, err := wire.PushKinds.Word(p.GetKind())
	if err != nil {
		return err
	}
	*to = Push{
		ID:              p.GetId(),
		Mesh:            p.GetMesh(),
		Kind:            PushKind(kind),
		Recipient:       p.GetRecipient(),
		RecipientKind:   p.GetRecipientKind(),
		MessageID:       p.GetMessageId(),
		ClientMessageID: p.GetClientMessageId(),
		Sender:          p.GetSender(),
		SenderMember:    p.GetSenderMember(),
		SenderName:      p.GetSenderName(),
		Priority:        p.GetPriority(),
		Subtype:         p.GetSubtype(),
		Event:           p.GetEvent(),
		EventData:       p.GetEventDataJson(),
		Body:            p.GetBody(),
		Undecryptable:   p.GetUndecryptable(),
		ReplyToID:       p.GetReplyToId(),
		CreatedAt:       wire.Time(p.GetCreatedAtUnixMs()),
		ReceivedAt:      wire.Time(p.GetReceivedAtUnixMs()),
		Attempt:         int(p.GetAttempt()),
		DedupKeys:       p.GetDedupKeys(),
	}
	return nil
}
