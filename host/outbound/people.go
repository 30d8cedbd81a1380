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
		if a.inFlight(id) {
			return true
		}
	}
	return false
}

// Get returns one entry; ErrNotFound if no outbox has it.
func (o *Outbound) Get(ctx context.Context, id string) (*sdk.Entry, error) {
	e, _, err := o.get(ctx, id)
	return e, err
}

// get is Get with the outbox that has the entry.
func (o *Outbound) get(ctx context.Context, id string) (*sdk.Entry, *box, error) {
	missing := sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is in the outbox", id).
		WithNext("meshhost outbox list shows what is there.")
	if id == "" || len(id) > MaxClientMessageID || !utf8.ValidString(id) {
		return nil, nil, missing // one bad id must not fail the batch that others share
	}
	var errs []error
	for _, b := range o.list() {
		found, err := b.reads.get(ctx, id)
		switch {
		case err != nil && o.box(b.name) != b: // removed meanwhile
		case err != nil:
			errs = append(errs, err)
		case found != nil:
			return found, b, nil
		}
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return nil, nil, missing
}

// Stats counts the entries of each outbox.
func (o *Outbound) Stats(ctx context.Context) (map[string]sdk.OutboxStats, error) {
	out := map[string]sdk.OutboxStats{}
	var errs []error
	for _, b := range o.list() {
		s, err := b.Outbox.Stats(ctx, sdk.StatsRequest{})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[b.name] = s
	}
	return out, errors.Join(errs...)
}

// Cancel takes a message back. Conflict while it is on the wire or when the
// mesh has taken it.
func (o *Outbound) Cancel(ctx context.Context, id string) (*sdk.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	p, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer p.leave()
	op := sdk.Op{Kind: sdk.OpCancel, ID: id}
	if !p.own { // no lane sends it
		return o.change(ctx, p.box, p.entry, op, sdk.StateCancelled, HopCancelled, func(sdk.OpResult) {})
	}
	lane, e := p.mesh.current(), p.entry
	frozen, err := lane.askFreeze(ctx, e)
	if err != nil {
		return nil, err
	}
	if !frozen {
		return nil, sdk.Errorf(sdk.CodeConflict, "in_flight", "the message is on the wire").
			WithNext("Try again in a moment; if the broker takes it, it can't be cancelled.")
	}
	return o.change(ctx, p.box, e, op, sdk.StateCancelled, HopCancelled, func(r sdk.OpResult) {
		lane.post(mailCancelled{
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
	p, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer p.leave()
	if !p.own {
		return nil, sdk.Errorf(sdk.CodeConflict, "other_outbox", "the message is in outbox %q, which does not send for mesh %q any more", p.box.name, p.entry.Mesh).
			WithNext("Send it again as a new message.")
	}
	notAfter := time.Now().Add(o.opts.Lifetime).Truncate(time.Millisecond)
	op := sdk.Op{Kind: sdk.OpRequeue, ID: id, NotAfter: notAfter}
	return o.change(ctx, p.box, p.entry, op, sdk.StatePending, HopRequeued, func(sdk.OpResult) {
		p.mesh.post(mailGrew{p.entry.Target})
	})
}

// placed is an entry that is to be changed, and where it is. The mesh stays
// where it is until leave.
type placed struct {
	entry *sdk.Entry // a copy of the caller's own
	mesh  *attached
	box   *box
	own   bool // box is the one that sends for mesh
	leave func()
}

// find is Get for an entry that is to be changed.
func (o *Outbound) find(ctx context.Context, id string) (*placed, error) {
	if err := o.running(); err != nil {
		return nil, err
	}
	found, err := o.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	a := o.meshes[found.Mesh]
	if a == nil || laneName(found.Mesh) != found.Lane {
		return nil, sdk.Errorf(sdk.CodeConflict, "mesh_not_attached", "the message belongs to mesh %q, which is not attached", found.Mesh).
			WithNext("Add the mesh to mesh.hcl and start again.")
	}
	own, leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	found, b, err := o.get(ctx, id) // the mesh may have moved, and its rows with it
	if err == nil && b != own {
		leaveOwn := leave
		leave = func() { b.gate.leave(); leaveOwn() }
		if err = b.enter(ctx); err != nil {
			leave = leaveOwn
		}
	}
	if err != nil {
		leave()
		return nil, err
	}
	e := *found
	return &placed{entry: &e, mesh: a, box: b, own: b == own, leave: leave}, nil
}

// change carries out an op that a person asked for and waits for its result.
// settled hears of the result even when the caller has left.
func (o *Outbound) change(ctx context.Context, b *box, e *sdk.Entry, op sdk.Op, to sdk.EntryState, word string, settled func(sdk.OpResult)) (*sdk.Entry, error) {
	answer := make(chan sdk.OpResult, 1)
	err := b.committer.Ask(op, func(r sdk.OpResult) {
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
		l := a.current()
		if l == nil {
			continue
		}
		l.flightMu.Lock()
		for id := range l.flight {
			ids = append(ids, id)
		}
		l.flightMu.Unlock()
	}
	return ids
}
