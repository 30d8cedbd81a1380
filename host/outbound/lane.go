package outbound

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// Bounds of what a lane has in memory and on the wire.
const (
	maxInflight  = 256
	maxLaneRows  = 8192
	maxLaneBytes = 32 << 20
	// maxUnsettled bounds the rows that left and whose op is not applied yet: if
	// the backend takes none, sending ends.
	maxUnsettled = 4096
	// maxQueueRows bounds the rows of one target: a slow one must leave room.
	maxQueueRows = 128
	// A memory that has been crowded for crowdedFor while the backend has more
	// keeps trimRows rows of each target.
	crowdedFor  = time.Second
	trimRows    = 8
	fetchQueues = 512
	fetchRows   = 2048
)

// Lane sends what leaves as one identity on one mesh. Its goroutine owns all
// fields below flight; everything else reaches it by mail.
type Lane struct {
	name      string
	mesh      string
	outbox    sdk.Outbox
	committer *Committer
	link      Link
	pacer     *Pacer
	atRest    *identity.AtRest
	lease     leaseOptions
	logger    hclog.Logger
	now       func() time.Time
	// wall is the wall clock, which jumps; now's differences don't.
	wall    func() time.Time
	jitter  func() float64
	changed func(*change)
	relist  func()
	// failed ends the wait for a row with an error, or makes it look again.
	failed func(id string, err error)
	trail  *trail
	ladder *ladder

	wake chan struct{}
	mu   sync.Mutex
	// inbox is mail in the order it came. Fresh rows beyond freshRows or
	// freshBytes stay out of it, and overflow says so.
	inbox      []any
	freshRows  int
	freshBytes int
	overflow   bool

	flightMu sync.Mutex
	flight   map[string]struct{} // ids on the wire

	read   []any // mail that was read, for its memory
	queues map[string]*queue
	// ready are queues whose head may go, by rank.
	ready    [4]fifo
	rows     int
	bytes    int
	probes   int // rows that wait for their peer
	inflight int
	// unsettled counts rows that left and whose op is not applied yet.
	unsettled int
	// kept are queues that stay in memory for a time, whatever is left of them.
	kept      []*queue
	unfetched trouble
	unleased  trouble
	// suspects were on the wire when the broker closed the socket over a frame.
	suspects map[*row]*queue
	// cancelling are ids whose cancellation is on its way to the backend.
	cancelling map[string]struct{}
	// dirty is true when the backend may have due rows that memory lacks.
	dirty    bool
	fetching bool
	fetchAt  time.Time // zero: no known moment
	// crowded is since when memory has no room for a Fetch that is wanted.
	crowded time.Time
	// left are targets that left memory while a Fetch was under way: what it
	// brings of them may be out of date. grew got rows that it may lack.
	left, grew map[string]struct{}
	// discard is true when what the Fetch under way brings may lack anything.
	discard bool
	leased  leased
	// waiting are the heads that wait for their peer, by target.
	waiting map[string]absent
	// late are acks that came after their timeout for rows that memory lacks.
	late []sdk.Op
	// lateOut counts those on their way to the backend.
	lateOut int
	// reseed is true when the backend is to be asked for whom rows wait,
	// seeding while it is.
	reseed, seeding bool
	relistAt        time.Time
	// pausedTo is when a ready queue may go that may not go now; holdTo is the
	// pause after a connection that took nothing.
	pausedTo time.Time
	holdTo   time.Time
	online   bool
	// helloAt and helloWall are when the connection came. The broker takes a hello
	// only from a clock that is right to a minute (PROTOCOL 2.2), so that the wall
	// clock of that moment can be trusted.
	helloAt, helloWall time.Time
	// draining keeps rows from leaving; drained are closed when nothing is in
	// flight or unsettled any more.
	draining bool
	drained  []chan struct{}
	calls    sync.WaitGroup

	stop context.CancelFunc // ends run; set before it
	done chan struct{}      // closed when run has ended
}

// The mail of a lane, besides *settlement, *attempt and *fresh.
type (
	mailFetched struct {
		epoch int64
		res   sdk.FetchResult
		err   error
	}
	mailOnline struct{ online, fresh bool }
	mailPeers  struct{ keys []string }
	mailWoken  struct {
		absent
		epoch int64
		res   sdk.OpResult
	}
	mailFenced struct{ epoch int64 } // the ladder's op was
	mailIdle   struct{}              // the ladder is, while it pauses
	mailLease  struct {
		res sdk.Lease
		err error
		// at and wall are when it was asked for.
		at, wall time.Time
	}
	mailCancel struct { // may this row be cancelled? true freezes it
		id     string
		answer chan bool
	}
	mailCancelled struct { // it is (gone) or is not
		id, target string
		gone       bool
		waited     bool // it was the head of a queue that waits for a peer
	}
	mailGrew    struct{ target string } // rows came that memory did not see
	mailLate    struct{ id, messageID string }
	mailLateSet struct {
		op    sdk.Op
		entry *sdk.Entry // with an id at least
		res   sdk.OpResult
	}
	mailReady   struct{} // the backend is there (again)
	mailWaiting struct {
		heads []absent
		last  bool
	}
	mailDrain struct{ done chan struct{} } // closed when drained
	mailGoOn  struct{}                     // as if it had never been drained
)

// fresh is a row that was just stored.
type fresh struct {
	entry *sdk.Entry
	res   sdk.OpResult
}

func (l *Lane) post(m any) {
	l.mu.Lock()
	l.inbox = append(l.inbox, m)
	l.mu.Unlock()
	signal(l.wake)
}

// postFresh hands over a row that was just stored. A lane that is too far
// behind is told only that there are some.
func (l *Lane) postFresh(f *fresh) {
	l.mu.Lock()
	if l.freshRows >= maxLaneRows || l.freshBytes >= maxLaneBytes {
		l.overflow = true
	} else {
		l.freshRows++
		l.freshBytes += len(f.entry.Body)
		l.inbox = append(l.inbox, f)
	}
	l.mu.Unlock()
	signal(l.wake)
}

// run owns the lane until ctx ends.
func (l *Lane) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	l.calls.Go(func() { l.ladder.run(ctx) })
	l.dirty = true
	for {
		l.step(ctx)
		if d, ok := l.nextWake(); ok {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			l.calls.Wait()
			l.release(context.WithoutCancel(ctx))
			return
		}
	}
}

// step handles the mail and then does whatever is due.
func (l *Lane) step(ctx context.Context) {
	l.leased.slept(l.now(), l.wall())
	l.readMail()
	l.ladder.hold(l.leased.epoch, l.leased.until)
	l.settleLate(ctx)
	now := l.now()
	if l.draining {
		l.finishDrain()
		return
	}
	l.letGo(now)
	l.renew(ctx, now)
	if !l.mayWork(now) {
		return
	}
	if !l.fetchAt.IsZero() && !now.Before(l.fetchAt) {
		l.fetchAt, l.dirty = time.Time{}, true
	}
	l.seed(ctx)
	l.fetch(ctx, now)
	l.send(now)
	if len(l.waiting) > 0 && !now.Before(l.relistAt) {
		l.relistAt = now.Add(relistEvery)
		l.relist()
	}
}

func (l *Lane) readMail() {
	l.mu.Lock()
	mail, overflow := l.inbox, l.overflow
	l.inbox, l.overflow, l.freshRows, l.freshBytes = l.read, false, 0, 0
	l.mu.Unlock()
	for _, m := range mail {
		l.handle(m)
	}
	clear(mail)
	l.read = mail[:0]
	if cap(l.read) > maxLaneRows {
		l.read = nil
	}
	if overflow {
		for _, q := range l.queues {
			q.more = true
			l.forget(q)
		}
		l.dirty = true
		if l.fetching { // what it brings may lack rows of any target
			l.discard = true
		}
	}
}

// mayWork reports whether rows may leave: connected and holding the lease.
func (l *Lane) mayWork(now time.Time) bool {
	return l.online && l.leased.valid(now)
}

// nextWake is the time until something is due without mail.
func (l *Lane) nextWake() (time.Duration, bool) {
	if !l.online || l.draining {
		return 0, false
	}
	now := l.now()
	var at time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if !l.leased.asking && !l.leased.stopped {
		earlier(l.leased.nextAt)
	}
	if l.leased.valid(now) {
		if !l.fetching {
			earlier(l.fetchAt)
		}
		earlier(l.pausedTo)
		if len(l.kept) > 0 {
			earlier(l.kept[0].keptTo)
		}
		if !l.crowded.IsZero() {
			earlier(l.crowded.Add(crowdedFor))
		}
		if len(l.waiting) > 0 {
			earlier(l.relistAt)
		}
	}
	if at.IsZero() {
		return 0, false
	}
	return max(at.Sub(now), time.Millisecond), true
}

func (l *Lane) handle(m any) {
	switch m := m.(type) {
	case *fresh:
		l.onStored(m)
	case *attempt:
		l.onOutcome(m.q, m.r, m.out)
	case *settlement:
		l.onApplied(m)
	case mailFetched:
		l.onFetched(m)
	case mailOnline:
		l.onOnline(m)
	case mailPeers:
		l.onPeers(m.keys)
	case mailWoken:
		l.onWoken(m)
	case mailLease:
		l.onLease(m)
	case mailView:
		m.answer <- l.view(m.id, m.target)
	case mailFenced:
		l.fenced(m.epoch)
	case mailCancel:
		m.answer <- l.freeze(m.id)
	case mailCancelled:
		l.onCancelled(m)
	case mailGrew:
		l.onGrew(m.target)
	case mailLate:
		l.onLate(m.id, m.messageID)
	case mailLateSet:
		l.onLateSet(m)
	case mailReady:
		l.dirty, l.fetchAt = true, time.Time{}
		if !l.leased.asking && !l.leased.stopped && !l.leased.valid(l.now()) {
			l.leased.nextAt = time.Time{}
		}
	case mailDrain:
		l.draining, l.drained = true, append(l.drained, m.done)
		l.ladder.pause()
	case mailGoOn:
		l.draining, l.drained = false, nil
		l.ladder.goOn()
		l.dirty = true
	case mailWaiting:
		l.onWaiting(m)
	}
}

// drain keeps further rows from leaving. The channel is closed when what was on
// the wire is answered and settled. Safe for concurrent use.
func (l *Lane) drain() <-chan struct{} {
	done := make(chan struct{})
	l.post(mailDrain{done})
	return done
}

// InFlight reports whether an entry is on the wire. Safe for concurrent use.
func (l *Lane) InFlight(id string) bool {
	l.flightMu.Lock()
	defer l.flightMu.Unlock()
	_, ok := l.flight[id]
	return ok
}

// finishDrain tells once nothing is on the wire or unsettled.
func (l *Lane) finishDrain() {
	if l.inflight > 0 || l.lateOut > 0 || !l.ladder.idle() {
		return
	}
	for _, q := range l.queues {
		if q.unsettled > 0 {
			return
		}
	}
	for _, done := range l.drained {
		close(done)
	}
	l.drained = nil
}
