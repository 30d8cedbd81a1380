package outbound

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// maxLate bounds the late acks that are kept while no lane runs.
const maxLate = 64

// attached is a mesh with its outbox and the lane between the two.
type attached struct {
	// Mesh is as New got it: which outbox sends for it now is box.
	Mesh
	atRest *identity.AtRest
	// gate stands before what people do to the mesh's messages.
	gate gate
	// trail remembers the hops of its messages, asked counts what the ladders of its
	// lanes did.
	trail *trail
	asked *LadderCounts

	mu  sync.Mutex
	box *box
	// lane is nil while its outbox is held: no message leaves.
	lane   *Lane
	online bool
	late   []mailLate // acks for the next lane, at most maxLate
	// former are outboxes that have records of its earlier messages.
	former []*box
}

// enter keeps the mesh where it is, and its outbox open to changes, until leave
// is called. While the mesh moves to another outbox, who comes waits.
func (a *attached) enter(ctx context.Context) (b *box, leave func(), err error) {
	if a.gate.enter(ctx) != nil {
		return nil, nil, reloading("mesh " + a.Name + " is on its way to another outbox")
	}
	b = a.outbox()
	if err := b.enter(ctx); err != nil {
		a.gate.leave()
		return nil, nil, err
	}
	return b, func() { b.gate.leave(); a.gate.leave() }, nil
}

// reloading is what a sender hears who has waited long enough.
func reloading(what string) error {
	return &sdk.Error{
		Code: sdk.CodeUnavailable, Reason: "reloading", RetryAfter: time.Second,
		Message: what, Next: "Nothing was changed. Try again in a moment.",
	}
}

// outbox is the outbox that sends for the mesh.
func (a *attached) outbox() *box {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.box
}

// earlier are outboxes that may know the mesh's earlier messages.
func (a *attached) earlier() []*box {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.former
}

// current is the lane that runs; nil while none does.
func (a *attached) current() *Lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lane
}

// post hands mail to the lane that runs. Without one it is not needed: a lane
// begins by asking its backend.
func (a *attached) post(m any) {
	if l := a.current(); l != nil {
		l.post(m)
	}
}

func (a *attached) setOnline(online, fresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.online = online
	switch {
	case a.lane != nil:
		a.lane.post(mailOnline{online, fresh})
	case fresh:
		a.Pacer.Forget() // what the lane would have done
	}
}

func (a *attached) lateAck(m mailLate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.lane != nil:
		a.lane.post(m)
	case len(a.late) < maxLate:
		a.late = append(a.late, m)
	}
}

// ladderStats is what the metrics show of the mesh.
func (a *attached) ladderStats() LadderStats {
	s := LadderStats{
		Asked: a.asked.Asked.Load(), Delivered: a.asked.Delivered.Load(),
		Resent: a.asked.Resent.Load(), Unknown: a.asked.Unknown.Load(),
	}
	if l := a.current(); l != nil {
		s.Rows, s.More = l.ladder.size()
	}
	return s
}

// inFlight reports whether an entry is on the wire.
func (a *attached) inFlight(id string) bool {
	l := a.current()
	return l != nil && l.InFlight(id)
}

// laneName is the lane of a mesh's member connection.
func laneName(mesh string) string { return mesh + "/" + MemberSender }

// newLane makes the lane between a mesh and an outbox; run starts it.
func (o *Outbound) newLane(a *attached, b *box) *Lane {
	l := &Lane{
		name: laneName(a.Name), mesh: a.Name, outbox: b.Outbox, committer: b.committer,
		link: a.Link, pacer: a.Pacer, atRest: a.atRest,
		lease:  leaseOptions{owner: o.opts.Owner, incarnation: o.opts.Incarnation},
		logger: o.opts.Logger.Named("lane." + a.Name), now: time.Now, wall: func() time.Time { return time.Now().Round(0) }, jitter: rand.Float64,
		changed: o.changed, failed: o.waiters.tell, relist: func() { o.opts.Relist(a.Name) }, trail: a.trail,
		wake: make(chan struct{}, 1), queues: map[string]*queue{}, waiting: map[string]absent{},
		left: map[string]struct{}{}, grew: map[string]struct{}{}, flight: map[string]struct{}{},
		suspects: map[*row]*queue{}, cancelling: map[string]struct{}{}, done: make(chan struct{}),
	}
	l.ladder = newLadder(l, a.asked)
	return l
}

// run sets a lane going.
func (o *Outbound) run(l *Lane) {
	var ctx context.Context
	ctx, l.stop = context.WithCancel(o.laneCtx)
	o.wg.Go(func() {
		defer close(l.done)
		l.run(ctx)
	})
}

// resume starts a new lane for a mesh that has none, on the outbox that it is
// attached to.
func (o *Outbound) resume(a *attached) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lane = o.newLane(a, a.box)
	if a.online {
		a.lane.post(mailOnline{online: true})
	}
	for _, m := range a.late {
		a.lane.post(m)
	}
	a.late = nil
	o.run(a.lane)
}

// halt ends the lane of a mesh: what is on the wire is answered and settled, and
// the lease is given back. If ctx ends first the lane goes on as before.
func (o *Outbound) halt(ctx context.Context, a *attached) error {
	l := a.current()
	if l == nil {
		return nil
	}
	select {
	case <-l.drain():
	case <-ctx.Done():
		l.post(mailGoOn{})
		return ctx.Err()
	}
	a.mu.Lock()
	a.lane = nil
	a.mu.Unlock()
	l.stop()
	<-l.done
	return nil
}
