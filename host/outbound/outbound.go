package outbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	opts    Options
	meshes  map[string]*attached // as New made it
	waiters *waiters
	// startedAt is when Start was called.
	startedAt time.Time
	wg        sync.WaitGroup
	// laneCtx is the life of the lanes, storeCtx of the committers.
	laneCtx, storeCtx context.Context
	stop, stopStore   context.CancelFunc
	// turn has a token while somebody changes which lanes and outboxes there
	// are; closing is closed when Close wants it.
	turn    chan struct{}
	closing chan struct{}

	mu    sync.Mutex
	phase phase
	// boxes are sorted by name; the slice is replaced, never changed.
	boxes []*box
}

// phase is how far the life of an Outbound is.
type phase int

const (
	notStarted phase = iota
	started
	stopping
)

// New wires the lanes; Start sets them going.
func New(opts Options) (*Outbound, error) {
	if opts.Lifetime == 0 {
		opts.Lifetime = DefaultLifetime
	}
	o := &Outbound{
		opts: opts, meshes: map[string]*attached{}, waiters: newWaiters(),
		turn: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Outboxes)) {
		o.boxes = append(o.boxes, o.newBox(name, opts.Outboxes[name]))
	}
	for _, m := range opts.Meshes {
		b := o.box(m.Outbox)
		if b == nil {
			return nil, fmt.Errorf("mesh %q: no outbox %q", m.Name, m.Outbox)
		}
		if m.Pacer == nil {
			m.Pacer = &Pacer{}
		}
		a := &attached{Mesh: m, atRest: m.Key.AtRest("outbox"), box: b, trail: newTrail(), asked: &LadderCounts{}}
		a.lane = o.newLane(a, b)
		o.meshes[m.Name] = a
	}
	return o, nil
}

func (o *Outbound) newBox(name string, b Backend) *box {
	return &box{
		Backend: b, name: name,
		committer: newCommitter(b.Outbox, o.opts.Logger.Named("outbox."+name), o.stored, o.doubtful),
	}
}

// list are the outboxes of this moment, by name.
func (o *Outbound) list() []*box {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.boxes
}

// box finds an outbox by name; nil if there is none.
func (o *Outbound) box(name string) *box {
	for _, b := range o.list() {
		if b.name == name {
			return b
		}
	}
	return nil
}

// Start runs the lanes and committers until Close, which must follow. Before it
// nothing is accepted.
func (o *Outbound) Start(ctx context.Context) {
	o.startedAt = time.Now()
	o.storeCtx, o.stopStore = context.WithCancel(ctx)
	o.laneCtx, o.stop = context.WithCancel(ctx)
	for _, b := range o.list() {
		o.serve(b)
	}
	for _, a := range o.meshes {
		o.run(a.lane)
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
	close(o.closing)
	o.turn <- struct{}{} // for good; who has it hears of closing
	var errs []error
	drained := map[*attached]<-chan struct{}{}
	for _, a := range o.meshes {
		if l := a.current(); l != nil {
			drained[a] = l.drain()
		}
	}
	for a, done := range drained {
		select {
		case <-done:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("mesh %q: messages are still on the wire: %w", a.Name, ctx.Err()))
		}
	}
	o.stop()
	o.stopStore()
	o.wg.Wait()
	for _, b := range o.list() {
		b.reads.close(ctx)
	}
	return errors.Join(errs...)
}

// Online tells a mesh's lane that its connection came (fresh: with a new
// hello_ack) or went.
func (o *Outbound) Online(mesh string, online, fresh bool) {
	if a := o.meshes[mesh]; a != nil {
		a.setOnline(online, fresh)
	}
}

// PeersSeen tells which keys, of sessions and members, are in the mesh now:
// what waits for them goes.
func (o *Outbound) PeersSeen(mesh string, keys []string) {
	if a := o.meshes[mesh]; a != nil {
		a.post(mailPeers{keys})
	}
}

// LateAck takes an ack that came after its send was given up.
func (o *Outbound) LateAck(mesh, id, messageID string) {
	if a := o.meshes[mesh]; a != nil {
		a.lateAck(mailLate{id, messageID})
	}
}

// OutboxReady tells that a backend is there (again): what waits for it goes on
// at once.
func (o *Outbound) OutboxReady(name string) {
	b := o.box(name)
	if b == nil {
		return
	}
	b.committer.Kick()
	for _, a := range o.meshes {
		if a.outbox() == b {
			a.post(mailReady{})
		}
	}
}

// Ladders counts, by mesh, what was asked about the delivery of messages.
func (o *Outbound) Ladders() map[string]LadderStats {
	out := map[string]LadderStats{}
	for name, a := range o.meshes {
		out[name] = a.ladderStats()
	}
	return out
}

// stored tells of a fresh row and hands it to its lane. Where none runs, the next
// one fetches it.
func (o *Outbound) stored(e *sdk.Entry, res sdk.OpResult) {
	if a := o.meshes[e.Mesh]; a != nil {
		o.changed(&change{
			ID: e.ID, ClientMessageID: e.ClientMessageID, Target: e.Target, State: sdk.StatePending,
			Detail: HopStored, mesh: e.Mesh, hop: HopStored,
		})
		if l := a.current(); l != nil {
			l.postFresh(&fresh{e, res})
		}
	}
}

// doubtful tells a lane of an entry that may be stored: only a look shows.
func (o *Outbound) doubtful(e *sdk.Entry) {
	if a := o.meshes[e.Mesh]; a != nil {
		a.post(mailGrew{e.Target})
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
