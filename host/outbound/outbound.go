package outbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// MemberSender is Entry.Sender for what the member itself sends.
const MemberSender = "member"

// Limits of a message (ARCHITECTURE 3).
const (
	MaxTextBytes       = 48000
	MaxClientMessageID = 128
	// maxName bounds what a sender may type for a recipient or a reference.
	maxName = 512
	// maxFrame is the broker's limit (PROTOCOL 1.2), frameOverhead what a send
	// frame has besides its values: 134 bytes of names and punctuation, rounded up.
	maxFrame      = 65536
	frameOverhead = 160
	// DefaultLifetime is how long a message is worth delivering.
	DefaultLifetime = 7 * 24 * time.Hour
	// recordLifetime is how long a finished record stays beyond NotAfter.
	recordLifetime = 7 * 24 * time.Hour
	// storeTimeout bounds a sender's wait for the backend.
	storeTimeout = 10 * time.Second
	pruneEvery   = time.Hour
	pruneBatch   = 5000
)

// Mesh is what outbound needs of one mesh.
type Mesh struct {
	// Name is the mesh's name in mesh.hcl.
	Name string
	Key  *identity.Key
	Link Link
	// Outbox is the key of Options.Outboxes.
	Outbox string
	Pacer  *Pacer
}

// Backend is one outbox.
type Backend struct {
	Outbox sdk.Outbox
	// Durable is asked for each answer: the plugin may not be there at start.
	Durable func() bool
}

// Options is what New needs.
type Options struct {
	Meshes   []Mesh
	Outboxes map[string]Backend
	// Owner is the installation's id, Incarnation this run's.
	Owner       string
	Incarnation string
	Names       Names
	Logger      hclog.Logger
	// Publish puts an event on the bus; kind is "outbox".
	Publish func(kind, mesh string, data any)
	// Relist asks for a mesh's peers in the background; the answer comes by
	// PeersSeen.
	Relist func(mesh string)
	// Lifetime replaces DefaultLifetime; for tests.
	Lifetime time.Duration
}

// Outbound accepts messages and drives them into the mesh.
type Outbound struct {
	opts       Options
	meshes     map[string]*attached
	outboxes   []string // names, sorted
	committers map[string]*Committer
	reads      map[string]*reads // from Start on
	waiters    *waiters
	startedAt  time.Time
	wg         sync.WaitGroup
	stop       context.CancelFunc
	stopStore  context.CancelFunc

	mu    sync.Mutex
	phase phase
}

// phase is how far the life of an Outbound is.
type phase int

const (
	notStarted phase = iota
	started
	stopping
)

// attached is a mesh with its lane.
type attached struct {
	Mesh
	lane   *Lane
	trail  *trail
	atRest *identity.AtRest
	store  Backend
}

// New wires the lanes; Start sets them going.
func New(opts Options) (*Outbound, error) {
	if opts.Lifetime == 0 {
		opts.Lifetime = DefaultLifetime
	}
	o := &Outbound{
		opts: opts, meshes: map[string]*attached{}, outboxes: slices.Sorted(maps.Keys(opts.Outboxes)),
		committers: map[string]*Committer{}, reads: map[string]*reads{}, waiters: newWaiters(),
	}
	for name, b := range opts.Outboxes {
		o.committers[name] = newCommitter(b.Outbox, opts.Logger.Named("outbox."+name), o.stored, o.doubtful)
	}
	for _, m := range opts.Meshes {
		b, ok := opts.Outboxes[m.Outbox]
		if !ok {
			return nil, fmt.Errorf("mesh %q: no outbox %q", m.Name, m.Outbox)
		}
		if m.Pacer == nil {
			m.Pacer = &Pacer{}
		}
		a := &attached{Mesh: m, atRest: m.Key.AtRest("outbox"), store: b, trail: newTrail()}
		a.lane = &Lane{
			name: laneName(m.Name), mesh: m.Name, outbox: b.Outbox, committer: o.committers[m.Outbox],
			link: m.Link, pacer: m.Pacer, atRest: a.atRest,
			lease:  leaseOptions{owner: opts.Owner, incarnation: opts.Incarnation},
			logger: opts.Logger.Named("lane." + m.Name), now: time.Now, wall: func() time.Time { return time.Now().Round(0) }, jitter: rand.Float64,
			changed: o.changed, failed: o.waiters.tell, relist: func() { opts.Relist(m.Name) }, trail: a.trail,
			wake: make(chan struct{}, 1), queues: map[string]*queue{}, waiting: map[string]absent{},
			left: map[string]struct{}{}, grew: map[string]struct{}{}, flight: map[string]struct{}{},
			suspects: map[*row]*queue{}, cancelling: map[string]struct{}{}, drained: make(chan struct{}),
		}
		a.lane.ladder = newLadder(a.lane)
		o.meshes[m.Name] = a
	}
	return o, nil
}

// laneName is the lane of a mesh's member connection.
func laneName(mesh string) string { return mesh + "/" + MemberSender }

// Start runs the lanes and committers until Close, which must follow. Before it
// nothing is accepted.
func (o *Outbound) Start(ctx context.Context) {
	for _, name := range o.outboxes {
		o.reads[name] = newReads(o.opts.Outboxes[name].Outbox)
	}
	storeCtx, stopStore := context.WithCancel(ctx)
	laneCtx, stop := context.WithCancel(ctx)
	o.stop, o.stopStore, o.startedAt = stop, stopStore, time.Now()
	for _, c := range o.committers {
		o.wg.Go(func() { c.run(storeCtx, 2*time.Second) })
	}
	for _, a := range o.meshes {
		o.wg.Go(func() { a.lane.run(laneCtx) })
	}
	for _, b := range o.opts.Outboxes {
		o.wg.Go(func() { o.pruneLoop(laneCtx, b.Outbox) })
	}
	o.enter(started)
}

// enter changes the phase and returns the one before.
func (o *Outbound) enter(p phase) phase {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.phase
	o.phase = p
	return was
}

// running is an error unless messages are accepted.
func (o *Outbound) running() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.phase {
	case notStarted:
		return sdk.Errorf(sdk.CodeUnavailable, "starting", "the daemon is starting").WithNext("Try again in a moment.")
	case stopping:
		return errStopping()
	default:
		return nil
	}
}

// Close stops accepting, waits until what is on the wire is settled or ctx
// ends, and stops. The rows that are left are pending; the next run sends them.
func (o *Outbound) Close(ctx context.Context) error {
	if o.enter(stopping) != started {
		return nil
	}
	var errs []error
	for _, a := range o.meshes {
		a.lane.post(mailDrain{})
	}
	for _, a := range o.meshes {
		select {
		case <-a.lane.drained:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("mesh %q: messages are still on the wire: %w", a.Name, ctx.Err()))
		}
	}
	o.stop()
	o.stopStore()
	o.wg.Wait()
	for _, r := range o.reads {
		r.close(ctx)
	}
	return errors.Join(errs...)
}

// Online tells a mesh's lane that its connection came (fresh: with a new
// hello_ack) or went.
func (o *Outbound) Online(mesh string, online, fresh bool) {
	if a := o.meshes[mesh]; a != nil {
		a.lane.post(mailOnline{online, fresh})
		a.lane.ladder.setOnline(online)
	}
}

// PeersSeen tells which keys, of sessions and members, are in the mesh now:
// what waits for them goes.
func (o *Outbound) PeersSeen(mesh string, keys []string) {
	if a := o.meshes[mesh]; a != nil {
		a.lane.post(mailPeers{keys})
	}
}

// LateAck takes an ack that came after its send was given up.
func (o *Outbound) LateAck(mesh, id, messageID string) {
	if a := o.meshes[mesh]; a != nil {
		a.lane.post(mailLate{id, messageID})
	}
}

// OutboxReady tells that a backend is there (again): what waits for it goes on
// at once.
func (o *Outbound) OutboxReady(name string) {
	if c := o.committers[name]; c != nil {
		c.Kick()
	}
	for _, a := range o.meshes {
		if a.Outbox == name {
			a.lane.post(mailReady{})
		}
	}
}

// Ladders counts, by mesh, what was asked about the delivery of messages.
func (o *Outbound) Ladders() map[string]LadderStats {
	out := map[string]LadderStats{}
	for name, a := range o.meshes {
		out[name] = a.lane.ladder.stats()
	}
	return out
}

// stored tells of a fresh row and hands it to its lane.
func (o *Outbound) stored(e *sdk.Entry, res sdk.OpResult) {
	if a := o.meshes[e.Mesh]; a != nil {
		o.changed(&change{
			ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target, State: sdk.StatePending,
			Detail: HopStored, mesh: e.Mesh, hop: HopStored,
		})
		a.lane.postFresh(&fresh{e, res})
	}
}

// doubtful tells a lane of an entry that may be stored: only a look shows.
func (o *Outbound) doubtful(e *sdk.Entry) {
	if a := o.meshes[e.Mesh]; a != nil {
		a.lane.post(mailGrew{e.Target})
	}
}

// changed notes and publishes a transition and wakes whoever waits for it.
func (o *Outbound) changed(c *change) {
	if c.at.IsZero() {
		c.at = time.Now()
	}
	if a := o.meshes[c.mesh]; a != nil {
		a.trail.note(c.ID, c.ClientMessageID, hopOf(c))
	}
	o.waiters.tell(c.ID, nil)
	o.opts.Publish("outbox", c.mesh, c)
}

// pruneLoop removes finished records that are too old, at start and hourly.
func (o *Outbound) pruneLoop(ctx context.Context, outbox sdk.Outbox) {
	var unpruned trouble
	for {
		n, err := outbox.Prune(ctx, sdk.PruneRequest{Before: time.Now().Add(-recordLifetime), Limit: pruneBatch})
		wait := pruneEvery
		switch {
		case err != nil:
			wait = time.Minute
			o.opts.Logger.Debug("prune failed", "error", err)
			unpruned.failed(o.opts.Logger, "finished messages can't be removed from the outbox", err)
		case n == pruneBatch:
			wait = time.Second
		}
		if err == nil {
			unpruned.ended(o.opts.Logger, "finished messages can be removed from the outbox again")
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// pause waits d; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
