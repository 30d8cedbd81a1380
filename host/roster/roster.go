package roster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// listTimeout bounds one request to the broker, whoever waits for it.
	listTimeout = 10 * time.Second
	// freshList is how old a list may be to resolve a name by (ARCHITECTURE 3).
	freshList = 30 * time.Second
	// resolveTimeout is how long a name waits for a new list before the directory alone must do, and failedList how long
	// after a failure no name asks again.
	resolveTimeout = 2 * time.Second
	failedList     = 5 * time.Second
	// relist is how often at most a list that somebody joined after is asked for again before its time.
	relist = time.Second
)

// Lister asks a mesh's broker for its rows, with roles normalised by [NormaliseRole]; errors are *sdk.Error values.
type Lister interface {
	ListPeers(ctx context.Context, mesh string) ([]sdk.Peer, error)
}

// Own knows the keys of this host. It must answer from memory.
type Own interface {
	// MemberKey is the member's public key in a mesh, 64 hex digits; empty: no such mesh.
	MemberKey(mesh string) string
	// IsOwn reports whether a public key is this host's, of the member or of a session, in a mesh.
	IsOwn(mesh, key string) bool
}

// Directory keeps rows over restarts; [store.Store] is one.
type Directory interface {
	PutPeers(ctx context.Context, peers []store.Peer) error
	Peers(ctx context.Context) ([]store.Peer, error)
}

// Options are what a roster works with; Filters and Logger may be empty.
type Options struct {
	Lister    Lister
	Own       Own
	Directory Directory
	Filters   []Filter
	Logger    hclog.Logger
	// DirectoryRows bounds the directory; default 10,000, as in the store.
	DirectoryRows int
}

// Roster is the room's one thing; make it with [New]. All methods are safe for concurrent use.
type Roster struct {
	opts    Options
	log     hclog.Logger
	book    *book
	filters []*filter // in the order written; never changed

	mu      sync.Mutex
	flights map[string]*flight // by mesh; guarded by mu
	lists   map[string]*list   // the last by mesh; guarded by mu
	closed  bool               // guarded by mu

	resolved map[peerKey]resolved // names looked up just now; guarded by mu

	ctx    context.Context // ends requests and filter calls
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// list is the last answer of a broker.
type list struct {
	at     time.Time // of the answer; zero: none yet
	failed time.Time // of the last failure since; zero: none
	stale  bool      // somebody joined since
	rows   []sdk.Peer
}

// flight is one request to a broker, and who waits for it.
type flight struct {
	done chan struct{}
	rows []sdk.Peer
	err  error
}

// New loads the directory. ctx bounds the start alone; Close ends the roster.
func New(ctx context.Context, opts Options) (*Roster, error) {
	if opts.Lister == nil || opts.Own == nil || opts.Directory == nil {
		return nil, errors.New("roster: it needs a lister, own keys and a directory")
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	if opts.DirectoryRows <= 0 {
		opts.DirectoryRows = 10_000
	}
	filters, err := usable(opts.Filters)
	if err != nil {
		return nil, fmt.Errorf("start roster: %w", err)
	}
	r := &Roster{opts: opts, log: opts.Logger, filters: filters, flights: make(map[string]*flight), lists: make(map[string]*list), resolved: make(map[peerKey]resolved)}
	peers, err := opts.Directory.Peers(ctx)
	if err != nil {
		return nil, fmt.Errorf("start roster: %w", err)
	}
	r.book = newBook(peers, opts.DirectoryRows)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Add(1)
	go r.keep()
	return r, nil
}

// Close ends what is in flight and writes what the directory has learned, within ctx.
func (r *Roster) Close(ctx context.Context) error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	r.cancel()
	r.wg.Wait()
	return r.flush(ctx)
}

// keep is the goroutine that writes what the directory learns: a caller of List or a push never waits for the disk.
func (r *Roster) keep() {
	defer r.wg.Done()
	for {
		select {
		case <-r.book.changed:
		case <-r.ctx.Done():
			return
		}
		if err := r.flush(r.ctx); err != nil && r.ctx.Err() == nil {
			r.log.Warn("roster: the directory can't be written; names of now may be unknown after a restart", "error", err)
		}
	}
}

func (r *Roster) flush(ctx context.Context) error {
	rows := r.book.takeDirty()
	if len(rows) == 0 {
		return nil
	}
	if err := r.opts.Directory.PutPeers(ctx, rows); err != nil {
		r.book.putBack(rows)
		return fmt.Errorf("write directory: %w", err)
	}
	return nil
}

// ask returns the rows of a mesh from its broker, sharing a request that is under way.
func (r *Roster) ask(ctx context.Context, mesh string) ([]sdk.Peer, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, sdk.Errorf(sdk.CodeUnavailable, "closing", "the daemon is stopping")
	}
	fl := r.flights[mesh]
	if fl == nil {
		fl = &flight{done: make(chan struct{})}
		r.flights[mesh] = fl
		r.wg.Add(1)
		go r.fly(mesh, fl)
	}
	r.mu.Unlock()
	select {
	case <-fl.done:
		return fl.rows, fl.err
	case <-ctx.Done():
		return nil, fmt.Errorf("list peers of %q: %w", mesh, ctx.Err())
	}
}

// fly is one request. It goes on when its first asker leaves: others may wait for it.
func (r *Roster) fly(mesh string, fl *flight) {
	defer r.wg.Done()
	ctx, cancel := context.WithTimeout(r.ctx, listTimeout)
	defer cancel()
	fl.rows, fl.err = r.opts.Lister.ListPeers(ctx, mesh)
	now := time.Now()
	if fl.err == nil {
		r.book.listed(mesh, fl.rows, now)
	}
	r.mu.Lock()
	l := r.lists[mesh]
	if l == nil {
		l = &list{}
		r.lists[mesh] = l
	}
	if fl.err == nil {
		*l = list{at: now, rows: fl.rows}
	} else {
		l.failed = now
	}
	delete(r.flights, mesh)
	r.mu.Unlock()
	close(fl.done)
}

// live returns rows young enough to resolve a name by; ok is false when there are none and none can be had soon.
func (r *Roster) live(ctx context.Context, mesh string) (rows []sdk.Peer, ok bool) {
	r.mu.Lock()
	l := r.lists[mesh]
	var at, failed time.Time
	stale := false
	if l != nil {
		at, failed, stale, rows = l.at, l.failed, l.stale, l.rows
	}
	r.mu.Unlock()
	switch {
	case !at.IsZero() && time.Since(at) < freshList && (!stale || time.Since(at) < relist):
		return rows, true
	case !failed.IsZero() && time.Since(failed) < failedList:
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	if asked, err := r.ask(ctx, mesh); err == nil {
		return asked, true
	}
	if !at.IsZero() && time.Since(at) < freshList {
		return rows, true
	}
	return nil, false
}

// stale notes that a list lacks somebody who has joined since.
func (r *Roster) stale(mesh string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lists[mesh]; l != nil {
		l.stale = true
	}
}

// Live returns the last list of a mesh and when it came, without asking the broker; zero time: there was none.
func (r *Roster) Live(mesh string) (rows []sdk.Peer, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lists[mesh]; l != nil {
		return l.rows, l.at
	}
	return nil, time.Time{}
}

// Refresh asks the broker for a mesh's rows, past the filters, and remembers them; for whoever waits for a peer to appear.
func (r *Roster) Refresh(ctx context.Context, mesh string) ([]sdk.Peer, error) {
	return r.ask(ctx, mesh)
}
