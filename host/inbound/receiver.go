package inbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// The queue between Accept and the committer: a second of the highest rate wanted, should the disk stall that long.
	queueRows  = 16_384
	queueBytes = 64 << 20
	// cacheBytes bounds the opened pushes kept for handlers; beyond it they are read from the journal again.
	cacheBytes = 16 << 20
)

// Options are what a receiver works with. Journal, Keys and Acker are needed; the rest may be zero.
type Options struct {
	Journal Journal
	Keys    Keys
	Acker   Acker
	Names   Names
	Events  Publisher
	Logger  hclog.Logger
	// Handlers are all that are configured, ready or not; see SetHandlers.
	Handlers []Handler
	// MaxAttempts before a work item becomes a dead letter; default 20.
	MaxAttempts int
	// NeedNudge is called once for an identity that had pushes refused for want of room, when there is room again and the
	// broker's claims on them have ended: a nudge (PROTOCOL 4.6) then brings them. It must not block.
	NeedNudge func(mesh string, receiving identity.PublicKey)
}

// Receiver is the room's one thing; make it with [New]. All methods are safe for concurrent use.
type Receiver struct {
	opts  Options
	log   hclog.Logger
	stats stats

	feedMu  sync.RWMutex
	feeders []*feeder  // in the order written; guarded by feedMu
	setMu   sync.Mutex // one SetHandlers at a time
	// flow is held by the committer from choosing who gets a push until it has handed out the work, and while a handler is
	// taken off: a work item never appears behind the back of either.
	flow sync.Mutex

	mu     sync.Mutex
	queue  []*entry             // guarded by mu, at most queueRows and queueBytes
	bytes  int                  // of queue; guarded by mu
	marks  []store.Mark         // guarded by mu; bounded by what handlers have in hand
	refuse map[origin]time.Time // who had pushes refused, and when last; guarded by mu
	closed bool                 // guarded by mu
	wake   chan struct{}        // capacity 1: there is something for the committer

	isFull bool // the committer's alone: a push found no room, and there has not been much since

	cached atomic.Int64 // bytes of opened pushes in the feeders

	ctx    context.Context // ends what handlers are doing
	cancel context.CancelFunc
	stop   chan struct{} // closed by Close: finish
	commit chan struct{} // closed when the committer has ended
	once   sync.Once
	err    error
}

// origin is a connection that pushes come on.
type origin struct {
	mesh     string
	identity identity.PublicKey
}

// New registers the handlers, loads their open work from the journal, and starts to feed them. ctx bounds the start alone;
// Close ends the receiver.
func New(ctx context.Context, opts Options) (*Receiver, error) {
	if opts.Journal == nil || opts.Keys == nil || opts.Acker == nil {
		return nil, errors.New("inbound: a receiver needs a journal, keys and an acker")
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	if opts.MaxAttempts <= 0 {
		opts.MaxAttempts = 20
	}
	r := &Receiver{
		opts: opts, log: opts.Logger, refuse: make(map[origin]time.Time), wake: make(chan struct{}, 1),
		stop: make(chan struct{}), commit: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	size, err := opts.Journal.JournalSize(ctx)
	if err != nil {
		r.cancel()
		return nil, fmt.Errorf("start inbound: %w", err)
	}
	r.stats.size(size)
	go r.runCommitter()
	if err := r.SetHandlers(ctx, opts.Handlers); err != nil {
		return nil, errors.Join(fmt.Errorf("start inbound: %w", err), r.Close(ctx))
	}
	return r, nil
}

// Accept takes pushes in the order in which they came on one connection. It never waits for disk or handlers: what doesn't fit
// is refused as the package says. It keeps nothing of the slice.
func (r *Receiver) Accept(batch []Delivery) {
	entries := make([]*entry, 0, len(batch))
	for i := range batch {
		if e := r.open(&batch[i]); e != nil {
			entries = append(entries, e)
		}
	}
	r.mu.Lock()
	for _, e := range entries {
		if r.closed || len(r.queue) >= queueRows || r.bytes+e.bytes > queueBytes {
			r.refused(e)
			continue
		}
		r.queue = append(r.queue, e)
		r.bytes += e.bytes
	}
	r.mu.Unlock()
	r.signal()
}

func (r *Receiver) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// refused counts a push that there is no room for. Called with mu held.
func (r *Receiver) refused(e *entry) {
	if !e.ackable {
		r.stats.dropped.Add(1)
		return
	}
	r.stats.refused.Add(1)
	r.refuse[e.from] = time.Now()
}

// open makes an entry of a delivery, or handles it at once and returns nil.
func (r *Receiver) open(d *Delivery) *entry {
	r.stats.received.Add(1)
	from := origin{d.Mesh, d.Identity}
	ackable := d.ackable()
	if d.Sender == d.Identity.String() {
		// An echo of what this very identity sent: acked, or it would come back at every drain (PROTOCOL 5.4).
		r.stats.echoes.Add(1)
		if ackable {
			r.ack(from, d.ClientMessageID, d.MessageID)
		}
		return nil
	}
	p, cover := r.push(d)
	frame, sealed, err := r.frame(d, p, cover)
	if err != nil {
		r.log.Warn("inbound: a push that can't be stored is dropped", "mesh", d.Mesh, "message_id", d.MessageID, "error", err)
		r.stats.dropped.Add(1)
		return nil
	}
	if p.Undecryptable {
		r.stats.undecryptable.Add(1)
	}
	e := &entry{
		push: p, from: from, ackable: ackable, clientID: d.ClientMessageID, brokerID: d.MessageID,
		bytes: d.size() + len(p.Body) + len(frame),
	}
	e.row = store.JournalRow{
		Mesh: d.Mesh, OrderKey: orderKey(d.Mesh, p.Recipient, p.Sender), ReceivedAt: p.ReceivedAt,
		Sealed: sealed, Frame: frame, Keys: hashKeys(p.DedupKeys),
	}
	e.row.ID = newID()
	p.ID = formatID(e.row.ID)
	if ackBeforeStore && ackable {
		r.ack(from, e.clientID, e.brokerID)
	}
	return e
}

func (r *Receiver) ack(to origin, clientID, brokerID string) {
	r.stats.acked.Add(1)
	r.opts.Acker.ClientAck(to.mesh, to.identity, clientID, brokerID)
}

// SetHandlers makes these the handlers that exist, each name once: all that are configured, whether their plugins run or not,
// because the work of any other is dropped, with an event. A handler that keeps its name keeps its work.
func (r *Receiver) SetHandlers(ctx context.Context, handlers []Handler) error {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return errors.New("set push handlers: the receiver is closed")
	}
	names := make([]string, len(handlers))
	seen := make(map[string]bool)
	for i := range handlers {
		if names[i] = handlers[i].Name; seen[names[i]] || handlers[i].Push == nil {
			return fmt.Errorf("set push handlers: %q is named twice or has nothing to call", names[i])
		}
		seen[names[i]] = true
	}
	r.feedMu.RLock()
	current := make(map[string]*feeder)
	for _, f := range r.feeders {
		current[f.name] = f
	}
	r.feedMu.RUnlock()
	for name, f := range current {
		if !seen[name] {
			r.remove(f) // before its work is dropped: it must not mark what is no more
			f.finish()
			<-f.done
		}
	}
	ids, dropped, err := r.opts.Journal.Handlers(ctx, names)
	if err != nil {
		return err
	}
	for name, n := range dropped {
		r.log.Warn("inbound: the work of a push handler that is not configured any more is dropped", "handler", name, "items", n)
		r.publish("handler_work_dropped", "", map[string]any{"handler": name, "items": n})
	}
	next := make([]*feeder, len(handlers))
	for i, h := range handlers {
		f := current[h.Name]
		if f == nil {
			f = newFeeder(r, h, ids[h.Name])
			if err := f.load(ctx); err != nil {
				return fmt.Errorf("handler %q: %w", h.Name, err)
			}
		}
		next[i] = f
	}
	for i, f := range next {
		if current[f.name] == f {
			f.replace(handlers[i])
		} else {
			go f.run()
		}
	}
	r.feedMu.Lock()
	r.feeders = next
	r.feedMu.Unlock()
	return nil
}

func (r *Receiver) remove(gone *feeder) {
	r.flow.Lock()
	defer r.flow.Unlock()
	r.feedMu.Lock()
	defer r.feedMu.Unlock()
	var kept []*feeder
	for _, f := range r.feeders {
		if f != gone {
			kept = append(kept, f)
		}
	}
	r.feeders = kept
}

// Wake tells that the plugin of a handler is ready: work that waited for it goes at once. An unknown name does nothing.
func (r *Receiver) Wake(name string) {
	r.feedMu.RLock()
	defer r.feedMu.RUnlock()
	for _, f := range r.feeders {
		if f.name == name {
			f.ready()
		}
	}
}

// Close is orderly: nothing more is accepted; what was accepted is journaled and acked; calls of handlers in flight may end
// and their results are kept. At ctx's end what is still running is cut off, and ctx's error returned.
func (r *Receiver) Close(ctx context.Context) error {
	r.once.Do(func() {
		cut := context.AfterFunc(ctx, r.cancel)
		defer cut()
		r.setMu.Lock() // a SetHandlers under way comes to its end first, at the latest when it is cut off
		defer r.setMu.Unlock()
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		close(r.stop)
		<-r.commit
		if r.ctx.Err() != nil {
			r.err = fmt.Errorf("close inbound: cut off: %w", ctx.Err())
		}
		r.cancel()
	})
	return r.err
}

func (r *Receiver) publish(kind, mesh string, data any) {
	if r.opts.Events != nil {
		r.opts.Events.Publish(kind, mesh, data)
	}
}

// mark hands the outcome of work items to the committer.
func (r *Receiver) mark(marks []store.Mark) {
	if len(marks) == 0 {
		return
	}
	r.mu.Lock()
	r.marks = append(r.marks, marks...)
	r.mu.Unlock()
	r.signal()
}

// entry is one push between Accept and the journal.
type entry struct {
	push               *sdk.Push
	row                store.JournalRow
	from               origin
	ackable            bool
	clientID, brokerID string
	bytes              int
	feeders            []*feeder // who wants it, beside row.Handlers
}
