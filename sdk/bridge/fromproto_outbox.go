package bridge

import (
	"fmt"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

func opResultsFromProto(call string, from []*outboxv1.OpResult) ([]sdk.OpResult, error) {
	results := make([]sdk.OpResult, len(from))
	for i, r := range from {
		if err := opResultFromProto(&results[i], r); err != nil {
			return nil, fault(call, "result %d: %v", i, err)
		}
	}
	return results, nil
}

func opResultFromProto(to *sdk.OpResult, p *outboxv1.OpResult) error {
	code, err := wire.OpCodes.Word(p.GetCode())
	if err != nil {
		return err
	}
	state, err := wire.EntryStates.WordOrNone(p.GetState())
	if err != nil {
		return err
	}
	*to = sdk.OpResult{
		Code:            sdk.OpCode(code),
		Seq:             p.GetSeq(),
		Prev:            p.GetPrev(),
		ID:              p.GetId(),
		State:           sdk.EntryState(state),
		SameFingerprint: p.GetSameFingerprint(),
		BrokerMessageID: p.GetBrokerMessageId(),
		Detail:          wire.Clip(p.GetDetail()),
	}
	if state == "" && (to.Code == sdk.OpExists || to.Code == sdk.OpConflict) {
		return fmt.Errorf("%s without the state of the row", code)
	}
	return nil
}

func entriesFromProto(from []*outboxv1.Entry) ([]sdk.Entry, error) {
	entries := make([]sdk.Entry, len(from))
	for i, p := range from {
		if err := entryFromProto(&entries[i], p); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return entries, nil
}

func maybeEntriesFromProto(call string, from []*outboxv1.MaybeEntry, want int) ([]*sdk.Entry, error) {
	if err := count(call, len(from), want); err != nil {
		return nil, err
	}
	entries := make([]*sdk.Entry, len(from))
	for i, p := range from {
		if p.GetEntry() == nil {
			continue
		}
		entries[i] = &sdk.Entry{}
		if err := entryFromProto(entries[i], p.GetEntry()); err != nil {
			return nil, fault(call, "entry %d: %v", i, err)
		}
	}
	return entries, nil
}

// entryFromProto reads an entry of the plugin's, which has an id and a state.
func entryFromProto(to *sdk.Entry, p *outboxv1.Entry) error {
	state, err := wire.EntryStates.Word(p.GetState())
	if err != nil {
		return err
	}
	if p.GetId() == "" {
		return fmt.Errorf("no id")
	}
	*to = sdk.Entry{
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
		State:           sdk.EntryState(state),
		LastError:       p.GetLastError(),
		BrokerMessageID: p.GetBrokerMessageId(),
		AcceptedAt:      wire.Time(p.GetAcceptedAtUnixMs()),
		DeliveredAt:     wire.Time(p.GetDeliveredAtUnixMs()),
		Seq:             p.GetSeq(),
	}
	return nil
}
