package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

// What changes which outboxes there are and who sends from which, while
// messages come and go. One such change runs at a time.

// begin takes the turn; end gives it back. The context ends with Close too.
func (o *Outbound) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	if err := o.running(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { // ends with cancel
		defer close(watched)
		select {
		case <-o.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	release := func() { cancel(); <-watched }
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		release()
		return nil, nil, errors.Join(o.running(), ctx.Err())
	}
	if err := o.running(); err != nil { // Close was quicker
		<-o.turn
		release()
		return nil, nil, err
	}
	return ctx, func() { <-o.turn; release() }, nil
}

// Hold stops everything that changes an outbox, so that its rows can be copied:
// accepts, cancels and requeues are answered with why, or wait where it is nil; the lanes that send from
// it finish and settle what is on the wire, give their leases back and end;
// nothing that was handed to the backend is under way; old records stay. When it
// returns nil all of that is so, until Resume; reads go on, and what others do
// with the same store is theirs. On an error, such as the end of ctx while the
// mesh or the backend owes an answer, everything goes on as before. An ack that
// comes too late to be settled is taken by the next lane of its mesh.
func (o *Outbound) Hold(ctx context.Context, outbox string, why error) error {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	b := o.box(outbox)
	switch {
	case b == nil:
		return o.noOutbox(outbox)
	case b.held:
		return sdk.Errorf(sdk.CodeConflict, "outbox_held", "outbox %q is held already", outbox).WithNext("Wait until that has ended.")
	}
	b.gate.shut(why)
	b.held = true
	err = b.gate.empty(ctx)
	for _, a := range o.users(b) {
		if err == nil {
			err = o.halt(ctx, a)
		}
	}
	if err == nil {
		err = b.committer.Barrier(ctx)
	}
	if err != nil {
		o.letGo(b)
		return fmt.Errorf("hold outbox %q: %w", outbox, err)
	}
	b.stopPruning()
	return nil
}

// Resume ends a Hold: new lanes fetch what there is. On an outbox that is not
// held it does nothing.
func (o *Outbound) Resume(ctx context.Context, outbox string) error {
	_, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	b := o.box(outbox)
	switch {
	case b == nil:
		return o.noOutbox(outbox)
	case !b.held:
		return nil
	}
	o.letGo(b)
	b.stopPruning()
	o.keepPruned(b)
	return nil
}

// letGo starts the lanes of a held outbox and opens it.
func (o *Outbound) letGo(b *box) {
	b.held = false
	for _, a := range o.users(b) {
		if a.current() == nil {
			o.resume(a)
		}
	}
	b.gate.open()
}

// users are the meshes that an outbox sends for.
func (o *Outbound) users(b *box) []*attached {
	var out []*attached
	for _, a := range o.meshes {
		if a.outbox() == b {
			out = append(out, a)
		}
	}
	return out
}

// AddOutbox makes an outbox known; Attach gives it something to do.
func (o *Outbound) AddOutbox(ctx context.Context, name string, backend Backend) error {
	_, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if o.box(name) != nil {
		return sdk.Errorf(sdk.CodeConflict, "outbox_exists", "there is an outbox %q already", name)
	}
	b := o.newBox(name, backend)
	o.serve(b)
	o.setBoxes(append(slices.Clone(o.list()), b))
	return nil
}

// RemoveOutbox forgets an outbox that no mesh uses. Its rows stay where they
// are: Attach with leave finds out whether that is right.
func (o *Outbound) RemoveOutbox(ctx context.Context, name string) error {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	b := o.box(name)
	if b == nil {
		return o.noOutbox(name)
	}
	if users := o.users(b); len(users) > 0 {
		return sdk.Errorf(sdk.CodeConflict, "outbox_used", "outbox %q sends for mesh %q", name, users[0].Name)
	}
	b.gate.shut(sdk.Errorf(sdk.CodeUnavailable, "outbox_removed", "outbox %q is not configured any more", name).WithNext("meshhost outbox list shows what is there."))
	if err := b.gate.empty(ctx); err != nil {
		b.gate.open()
		return fmt.Errorf("remove outbox %q: %w", name, err)
	}
	o.setBoxes(slices.DeleteFunc(slices.Clone(o.list()), func(x *box) bool { return x == b }))
	for _, a := range o.meshes {
		if err := a.forget(ctx, b); err != nil {
			return fmt.Errorf("remove outbox %q: %w", name, err)
		}
	}
	b.stopPruning()
	b.stop()
	b.reads.close(ctx)
	return nil
}

func (o *Outbound) setBoxes(boxes []*box) {
	slices.SortFunc(boxes, func(a, b *box) int { return strings.Compare(a.name, b.name) })
	o.mu.Lock()
	defer o.mu.Unlock()
	o.boxes = boxes
}

// OutboxOf is the outbox that sends for a mesh; empty if there is no such mesh.
func (o *Outbound) OutboxOf(mesh string) string {
	if a := o.meshes[mesh]; a != nil {
		return a.outbox().name
	}
	return ""
}

func (o *Outbound) noOutbox(name string) error {
	var have []string
	for _, b := range o.list() {
		have = append(have, b.name)
	}
	return sdk.Errorf(sdk.CodeNotFound, "no_outbox", "there is no outbox %q", name).
		WithNext("There are: " + strings.Join(have, ", ") + ".")
}
