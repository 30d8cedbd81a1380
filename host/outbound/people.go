package outbound

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/meshhost/meshhost/sdk"
)

// What people ask of the outbox: list, show, requeue, cancel.

// InFlight reports whether an entry is on the wire.
func (o *Outbound) InFlight(id string) bool {
	for _, a := range o.meshes {
		if a.lane.InFlight(id) {
			return true
		}
	}
	return false
}

// Get returns one entry; ErrNotFound if no outbox has it.
func (o *Outbound) Get(ctx context.Context, id string) (*sdk.Entry, error) {
	missing := sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is in the outbox", id).
		WithNext("meshhost outbox list shows what is there.")
	if id == "" || len(id) > MaxClientMessageID || !utf8.ValidString(id) {
		return nil, missing // one bad id must not fail the batch that others share
	}
	var errs []error
	for _, name := range o.outboxes {
		found, err := o.reads[name].get(ctx, id)
		switch {
		case err != nil:
			errs = append(errs, err)
		case found != nil:
			return found, nil
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, missing
}

// Stats counts the entries of each outbox.
func (o *Outbound) Stats(ctx context.Context) (map[string]sdk.OutboxStats, error) {
	out := map[string]sdk.OutboxStats{}
	var errs []error
	for name, b := range o.opts.Outboxes {
		s, err := b.Outbox.Stats(ctx, sdk.StatsRequest{})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[name] = s
	}
	return out, errors.Join(errs...)
}

// Cancel takes a message back. Conflict while it is on the wire or when the
// mesh has taken it.
func (o *Outbound) Cancel(ctx context.Context, id string) (*sdk.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e, a, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	frozen, err := a.lane.askFreeze(ctx, e)
	if err != nil {
		return nil, err
	}
	if !frozen {
		return nil, sdk.Errorf(sdk.CodeConflict, "in_flight", "the message is on the wire").
			WithNext("Try again in a moment; if the broker takes it, it can't be cancelled.")
	}
	op := sdk.Op{Kind: sdk.OpCancel, ID: id}
	return o.change(ctx, a, e, op, sdk.StateCancelled, HopCancelled, func(r sdk.OpResult) {
		a.lane.post(mailCancelled{
			id: id, target: e.Target, gone: r.Code == sdk.OpApplied || r.Code == sdk.OpAlready,
			waited: e.State == sdk.StateWaiting,
		})
	})
}

// Requeue sends a dead, expired or cancelled message again: the same row with
// the same client_message_id.
func (o *Outbound) Requeue(ctx context.Context, id string) (*sdk.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e, a, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	notAfter := time.Now().Add(o.opts.Lifetime).Truncate(time.Millisecond)
	op := sdk.Op{Kind: sdk.OpRequeue, ID: id, NotAfter: notAfter}
	return o.change(ctx, a, e, op, sdk.StatePending, HopRequeued, func(sdk.OpResult) {
		a.lane.post(mailGrew{e.Target})
	})
}

// find is Get for an entry that is to be changed: a copy of the caller's own.
func (o *Outbound) find(ctx context.Context, id string) (*sdk.Entry, *attached, error) {
	if err := o.running(); err != nil {
		return nil, nil, err
	}
	found, err := o.Get(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	e := *found
	a := o.meshes[e.Mesh]
	if a == nil || laneName(e.Mesh) != e.Lane {
		return nil, nil, sdk.Errorf(sdk.CodeConflict, "mesh_not_attached", "the message belongs to mesh %q, which is not attached", e.Mesh).
			WithNext("Add the mesh to mesh.hcl and start again.")
	}
	return &e, a, nil
}

// change carries out an op that a person asked for and waits for its result.
// settled hears of the result even when the caller has left.
func (o *Outbound) change(ctx context.Context, a *attached, e *sdk.Entry, op sdk.Op, to sdk.EntryState, word string, settled func(sdk.OpResult)) (*sdk.Entry, error) {
	answer := make(chan sdk.OpResult, 1)
	err := o.committers[a.Outbox].Ask(op, func(r sdk.OpResult) {
		settled(r)
		if r.Code == sdk.OpApplied {
			o.changed(&change{
				ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target, State: to,
				BrokerMessageID: e.BrokerMessageID, Detail: word, mesh: e.Mesh, hop: word,
			})
		}
		answer <- r
	})
	if err != nil {
		settled(sdk.OpResult{})
		return nil, err
	}
	select {
	case r := <-answer:
		return changeResult(e, to, word, r)
	case <-ctx.Done():
		return nil, sdk.Errorf(sdk.CodeTimeout, "outcome_unknown", "the outbox did not answer in time").
			WithNext("meshhost outbox show " + e.ID + " tells what became of it.")
	}
}

func changeResult(e *sdk.Entry, to sdk.EntryState, word string, r sdk.OpResult) (*sdk.Entry, error) {
	switch r.Code {
	case sdk.OpApplied, sdk.OpAlready:
		out := *e
		out.State = to
		return &out, nil
	case sdk.OpConflict:
		return nil, sdk.Errorf(sdk.CodeConflict, "outbox_"+string(r.State), "the message is %s and can't be %s: %s", r.State, word, r.Detail).
			WithNext("meshhost outbox show " + e.ID)
	case sdk.OpFull:
		return nil, sdk.Errorf(sdk.CodeFull, "outbox_full", "the outbox is full: %s", r.Detail).
			WithNext("Wait until messages have left, or cancel some: meshhost outbox list.")
	case sdk.OpNotFound:
		return nil, sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is in the outbox", e.ID).
			WithNext("meshhost outbox list shows what is there.")
	default:
		return nil, sdk.Errorf(sdk.CodeInternal, "bad_reply", "the outbox answered %q: %s", r.Code, r.Detail).
			WithNext("This is a defect of the outbox plugin.")
	}
}

// askFreeze asks the lane to keep a row from leaving; false while it is on the
// wire. After an error it is not kept.
func (l *Lane) askFreeze(ctx context.Context, e *sdk.Entry) (bool, error) {
	answer := make(chan bool, 1)
	l.post(mailCancel{e.ID, answer})
	select {
	case ok := <-answer:
		return ok, nil
	case <-ctx.Done():
		l.post(mailCancelled{id: e.ID, target: e.Target}) // takes it back
		return false, sdk.Errorf(sdk.CodeUnavailable, "lane_busy", "the messages of mesh %q are not being looked after just now", l.mesh).
			WithNext("Nothing was changed. Try again.")
	}
}

// Inflight lists the ids that are on the wire.
func (o *Outbound) Inflight() []string {
	var ids []string
	for _, a := range o.meshes {
		a.lane.flightMu.Lock()
		for id := range a.lane.flight {
			ids = append(ids, id)
		}
		a.lane.flightMu.Unlock()
	}
	return ids
}
