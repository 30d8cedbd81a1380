package outbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// emptyFor is how long Attach lets a lane send what is left, while senders wait:
// half of what they have (storeTimeout).
const emptyFor = 5 * time.Second

// Left is what an outbox still has to send.
type Left struct {
	Outbox string
	// Mesh is the mesh that the rows belong to; empty: any.
	Mesh             string
	Pending, Waiting int64
}

// LeftError says that messages would stay behind where nobody sends them.
type LeftError struct{ Left []Left }

// Error names what is left where.
func (e *LeftError) Error() string {
	var parts []string
	for _, l := range e.Left {
		s := fmt.Sprintf("outbox %q still has %d pending and %d waiting messages", l.Outbox, l.Pending, l.Waiting)
		if l.Mesh != "" {
			s += fmt.Sprintf(" of mesh %q", l.Mesh)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

// move is one mesh on its way.
type move struct {
	a        *attached
	from, to *box
}

// Attach moves meshes (the keys) to other outboxes, all of them or none. Who
// sends meanwhile waits, a few seconds at most, and nothing is lost: the old
// lanes send what is left, settle it, give their leases back and end before the
// new ones begin. leave are outboxes that are to be removed after it. A
// *LeftError has what did not go in time, or can't: rows of the meshes that
// move, and any in the outboxes to be left. After any error everything is as it
// was before. A sealed outbox has nothing left.
//
// Records of messages that the broker has taken stay behind; a repeated
// client_message_id finds them there until that outbox is removed.
func (o *Outbound) Attach(ctx context.Context, moves map[string]string, leave ...string) error {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	ms, gone, err := o.plan(moves, leave)
	if err != nil || len(ms)+len(gone) == 0 {
		return err
	}
	// Before senders are kept waiting: may it work at all?
	if left, err := o.left(ctx, ms, gone); err != nil || hopeless(ms, left) {
		return errors.Join(err, leftError(left))
	}
	for _, m := range ms {
		m.a.gate.shut(nil)
		defer m.a.gate.open()
	}
	if err := o.sendRest(ctx, ms, gone); err != nil {
		return err
	}
	defer func() { // after an error: the lanes that ended begin again
		for _, m := range ms {
			if m.a.current() == nil && !m.a.outbox().held {
				o.resume(m.a)
			}
		}
	}()
	for _, m := range ms {
		if err := o.halt(ctx, m.a); err != nil {
			return fmt.Errorf("mesh %q: messages are still on the wire: %w", m.a.Name, err)
		}
	}
	// Another host may have put something there meanwhile.
	if left, err := o.left(ctx, ms, gone); err != nil || len(left) > 0 {
		return errors.Join(err, leftError(left))
	}
	for _, m := range ms {
		m.a.moveTo(m.to)
	}
	return nil
}

// plan resolves the names; meshes that are where they are to be are left out.
func (o *Outbound) plan(moves map[string]string, leave []string) (ms []move, gone []*box, err error) {
	for _, mesh := range slices.Sorted(maps.Keys(moves)) {
		a, to := o.meshes[mesh], o.box(moves[mesh])
		switch {
		case a == nil:
			return nil, nil, sdk.Errorf(sdk.CodeNotFound, "mesh_not_attached", "no mesh %q is attached", mesh)
		case to == nil:
			return nil, nil, o.noOutbox(moves[mesh])
		case a.outbox() != to:
			ms = append(ms, move{a, a.outbox(), to})
		}
	}
	for _, name := range leave {
		b := o.box(name)
		if b == nil {
			return nil, nil, o.noOutbox(name)
		}
		for _, a := range o.users(b) {
			if !slices.ContainsFunc(ms, func(m move) bool { return m.a == a }) {
				return nil, nil, sdk.Errorf(sdk.CodeConflict, "outbox_used", "outbox %q sends for mesh %q", name, a.Name)
			}
		}
		gone = append(gone, b)
	}
	return ms, gone, nil
}

// left counts what would stay behind.
func (o *Outbound) left(ctx context.Context, ms []move, gone []*box) ([]Left, error) {
	var out []Left
	count := func(b *box, mesh string, req sdk.StatsRequest) error {
		st, err := b.Outbox.Stats(ctx, req)
		if err != nil {
			return sdk.Errorf(sdk.CodeUnavailable, "outbox_unavailable", "outbox %q can't say what it still has to send: %v", b.name, err).
				WithNext("Try again when it works: meshhost plugin list.")
		}
		l := Left{b.name, mesh, st.States[sdk.StatePending], st.States[sdk.StateWaiting]}
		if st.Sealed == "" && l.Pending+l.Waiting > 0 {
			out = append(out, l)
		}
		return nil
	}
	for _, m := range ms {
		if slices.Contains(gone, m.from) {
			continue // counted as a whole
		}
		if err := count(m.from, m.a.Name, sdk.StatsRequest{Lane: laneName(m.a.Name)}); err != nil {
			return nil, err
		}
	}
	for _, b := range gone {
		if err := count(b, "", sdk.StatsRequest{}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func leftError(left []Left) error {
	if len(left) == 0 {
		return nil
	}
	return &LeftError{left}
}

// hopeless reports whether waiting does not empty the outboxes: nobody sends
// from one of them now, or its messages wait for peers.
func hopeless(ms []move, left []Left) bool {
	for _, l := range left {
		sends := slices.ContainsFunc(ms, func(m move) bool {
			return m.from.name == l.Outbox && (l.Mesh == "" || l.Mesh == m.a.Name) && m.a.sends()
		})
		if l.Waiting > 0 || !sends {
			return true
		}
	}
	return false
}

// sendRest waits until nothing is left, for emptyFor at most. The gates are shut.
func (o *Outbound) sendRest(ctx context.Context, ms []move, gone []*box) error {
	ctx, cancel := context.WithTimeout(ctx, emptyFor)
	defer cancel()
	for _, m := range ms {
		if err := m.a.gate.empty(ctx); err != nil {
			return fmt.Errorf("mesh %q: messages are still being accepted: %w", m.a.Name, err)
		}
		// A sender that has left may have an append under way.
		if err := m.from.committer.Barrier(ctx); err != nil {
			return fmt.Errorf("outbox %q: messages are still being stored: %w", m.from.name, err)
		}
	}
	for wait := askFirst; ; wait = min(2*wait, askMax/8) {
		left, err := o.left(ctx, ms, gone)
		if err != nil || len(left) == 0 {
			return err
		}
		if hopeless(ms, left) || !pause(ctx, wait) {
			return leftError(left)
		}
	}
}

// sends reports whether messages of the mesh leave at the moment.
func (a *attached) sends() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lane != nil && a.online
}

// moveTo attaches the mesh, which has no lane, to another outbox.
func (a *attached) moveTo(b *box) {
	a.mu.Lock()
	defer a.mu.Unlock()
	former := slices.DeleteFunc(slices.Clone(a.former), func(f *box) bool { return f == b || f == a.box })
	if !a.box.held { // else its records went along
		former = append(former, a.box)
	}
	a.box, a.former = b, former
}

// forget drops an outbox that was removed, and returns when no sender looks into
// it any more.
func (a *attached) forget(ctx context.Context, b *box) error {
	a.mu.Lock()
	knew := slices.Contains(a.former, b)
	a.former = slices.DeleteFunc(slices.Clone(a.former), func(f *box) bool { return f == b })
	a.mu.Unlock()
	if !knew {
		return nil
	}
	a.gate.shut(nil)
	defer a.gate.open()
	return a.gate.empty(ctx)
}
