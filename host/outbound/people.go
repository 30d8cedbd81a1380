package outbound

import (
	"context"
	"errors"
	"time"

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

// List pages through the entries of all outboxes, one after the other; with
// several outboxes Mesh chooses, and without it only the first that has any is
// paged.
func (o *Outbound) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	for _, b := range o.backends(req.Mesh) {
		page, err := b.Outbox.List(ctx, req)
		if err != nil || len(page.Entries) > 0 {
			return page, err
		}
	}
	return sdk.ListPage{}, nil
}

// backends are the outboxes that may hold rows of a mesh; all for "".
func (o *Outbound) backends(mesh string) []Backend {
	if a := o.meshes[mesh]; a != nil {
		return []Backend{a.store}
	}
	var out []Backend
	for _, b := range o.opts.Outboxes {
		out = append(out, b)
	}
	return out
}

// Get returns one entry; ErrNotFound if no outbox has it.
func (o *Outbound) Get(ctx context.Context, id string) (*sdk.Entry, error) {
	var errs []error
	for _, b := range o.backends("") {
		found, err := b.Outbox.Get(ctx, []string{id})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(found) == 1 && found[0] != nil {
			return found[0], nil
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is in the outbox", id).
		WithNext("meshhost outbox list shows what is there.")
}

// Stats counts the entries of each outbox.
func (o *Outbound) Stats(ctx context.Context) (map[string]sdk.OutboxStats, error) {
	out := map[string]sdk.OutboxStats{}
	var errs []error
	for name, b := range o.opts.Outboxes {
		s, err := b.Outbox.Stats(ctx)
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
	e, a, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if !a.lane.drop(ctx, id) {
		return nil, sdk.Errorf(sdk.CodeConflict, "in_flight", "the message is on the wire").
			WithNext("Try again in a moment; if the broker takes it, it can't be cancelled.")
	}
	defer a.lane.post(mailDirty{})
	return o.change(ctx, a, e, sdk.Op{Kind: sdk.OpCancel, ID: id}, sdk.StateCancelled, "cancelled")
}

// Requeue sends a dead, expired or cancelled message again: the same row with
// the same client_message_id.
func (o *Outbound) Requeue(ctx context.Context, id string) (*sdk.Entry, error) {
	e, a, err := o.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer a.lane.post(mailDirty{})
	notAfter := time.Now().Add(o.opts.Lifetime).Truncate(time.Millisecond)
	return o.change(ctx, a, e, sdk.Op{Kind: sdk.OpRequeue, ID: id, NotAfter: notAfter}, sdk.StatePending, "requeued")
}

func (o *Outbound) find(ctx context.Context, id string) (*sdk.Entry, *attached, error) {
	e, err := o.Get(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	a := o.meshes[e.Mesh]
	if a == nil {
		return nil, nil, sdk.Errorf(sdk.CodeConflict, "mesh_not_attached", "the message belongs to mesh %q, which is not attached", e.Mesh).
			WithNext("Add the mesh to mesh.hcl and start again.")
	}
	return e, a, nil
}

// change carries out an op that a person asked for and waits for its result.
func (o *Outbound) change(ctx context.Context, a *attached, e *sdk.Entry, op sdk.Op, to sdk.EntryState, done string) (*sdk.Entry, error) {
	reply := make(chan sdk.OpResult, 1)
	o.committers[a.Outbox].Settle(op, func(r sdk.OpResult) { reply <- r })
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	select {
	case r := <-reply:
		switch r.Code {
		case sdk.OpApplied, sdk.OpAlready:
			e.State = to
			o.changed(change{id: e.ID, clientMessageID: e.ClientMessageID, mesh: e.Mesh, target: e.Target, state: to, detail: done})
			return e, nil
		case sdk.OpConflict:
			return nil, sdk.Errorf(sdk.CodeConflict, "outbox_"+string(r.State), "the message is %s and can't be %s. %s", r.State, done, r.Detail).
				WithNext("meshhost outbox show " + e.ID)
		case sdk.OpNotFound:
			return nil, sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is in the outbox", e.ID)
		default:
			return nil, sdk.Errorf(sdk.CodeInternal, "bad_reply", "the outbox answered %q", r.Code)
		}
	case <-ctx.Done():
		return nil, sdk.Errorf(sdk.CodeTimeout, "outcome_unknown", "the outbox did not answer in time").
			WithNext("meshhost outbox show " + e.ID + " tells what became of it.")
	}
}

// drop takes a row out of the lane's memory; false while it is on the wire.
func (l *Lane) drop(ctx context.Context, id string) bool {
	answer := make(chan bool, 1)
	l.post(mailDrop{id, answer})
	select {
	case ok := <-answer:
		return ok
	case <-ctx.Done():
		return false
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
