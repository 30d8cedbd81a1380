package devbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Numbers of the reference broker (PROTOCOL appendix A).
const (
	pingEvery    = 30 * time.Second // one global tick for all connections
	stalePong    = 75 * time.Second // no pong for longer: terminated at the next tick
	sweepAfter   = 90 * time.Second // a row without a ping for longer leaves peers_list
	graceLease   = 90 * time.Second // a closed socket's presence waits this long for a re-attach
	claimLease   = 30 * time.Second
	helloSkew    = 60 * time.Second
	maxAttestTTL = 24 * time.Hour
	queueTTL     = 7 * 24 * time.Hour
	maxPayload   = 65536    // ciphertext + nonce + targetSpec of a send, in UTF-16 units
	maxFrame     = 16 << 20 // bytes; a longer frame cuts the connection without a close frame
)

// acceptPause is how long a broker without file descriptors waits before it looks again.
const acceptPause = 100 * time.Millisecond

// ErrClosed is returned by Serve and by a Dialer's dial once the broker was closed.
var ErrClosed = errors.New("devbroker: closed")

// Options configure a Broker. The zero value of every field but Seed is usable.
type Options struct {
	Seed     Seed   // the meshes and members that exist
	DataFile string // append-only data file; "" keeps everything in memory
	LogFile  string // one JSON line per frame is appended here; "" = none
	// LogWriter takes the frame lines when LogFile is empty; one Write call per line.
	LogWriter io.Writer
	// SendBurst and SendPerMinute bound `send` per member over all of its connections; 0 in either = no limit.
	// The reference has 10 and 60.
	SendBurst, SendPerMinute int
	// Capacity bounds the connections of a mesh, leased presences included; 0 = no limit. The reference has 100.
	Capacity int
	Logger   hclog.Logger
	// Now is the wall clock (default time.Now). Timers always follow the time package.
	Now func() time.Time
}

// Broker is a running broker. Create it with New, feed it connections, stop it with Close.
type Broker struct {
	opts    Options
	log     hclog.Logger
	started time.Time
	meshes  map[string]*mesh // by mesh id; the map never changes after New
	order   []*mesh          // seed order: the lock order of whoever needs several meshes
	journal *journal         // nil without DataFile
	frames  *frameLog        // nil without a frame log
	hooks   hookDesk

	nextConn atomic.Int64
	wg       sync.WaitGroup // tick, every connection and every Serve
	stop     chan struct{}

	mu     sync.Mutex // guards what follows
	conns  map[*conn]struct{}
	closed bool
}

// New checks the seed, replays Options.DataFile and starts the broker's 30 s tick, whose phase is the moment of this call.
func New(opts Options) (*Broker, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	if err := opts.Seed.check(); err != nil {
		return nil, fmt.Errorf("devbroker: seed: %w", err)
	}
	b := &Broker{
		opts: opts, log: opts.Logger, started: opts.Now(),
		meshes: map[string]*mesh{}, conns: map[*conn]struct{}{}, stop: make(chan struct{}),
		hooks: hookDesk{buckets: map[string]*bucket{}},
	}
	for _, s := range opts.Seed.Meshes {
		m := newMesh(b, s)
		b.meshes[s.MeshID] = m
		b.order = append(b.order, m)
	}
	if opts.DataFile != "" {
		j, err := openJournal(opts.DataFile, b)
		if err != nil {
			return nil, fmt.Errorf("devbroker: data file: %w", err)
		}
		b.journal = j
	}
	frames, err := openFrameLog(opts)
	if err != nil {
		if b.journal != nil {
			err = errors.Join(err, b.journal.close())
		}
		return nil, fmt.Errorf("devbroker: frame log: %w", err)
	}
	b.frames = frames
	b.wg.Go(b.tick)
	return b, nil
}

// Serve accepts connections until ctx ends or the broker is closed; it closes ln. It returns nil after either.
func (b *Broker) Serve(ctx context.Context, ln net.Listener) error {
	if !b.enter() {
		ln.Close()
		return ErrClosed
	}
	defer b.wg.Done()
	done := make(chan struct{})
	defer close(done)
	b.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-b.stop:
		case <-done:
		}
		ln.Close()
	})
	for starved := false; ; {
		nc, err := ln.Accept()
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-b.stop:
				return nil
			default:
			}
			if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
				return fmt.Errorf("devbroker: accept on %s: %w", ln.Addr(), err)
			}
			if !starved {
				starved = true
				b.log.Warn("no file descriptor left for another connection; trying again", "error", err)
			}
			select { // the connections that there are go on meanwhile
			case <-ctx.Done():
			case <-b.stop:
			case <-time.After(acceptPause):
			}
			continue
		}
		starved = false
		if !b.enter() {
			nc.Close()
			return nil
		}
		go func() {
			defer b.wg.Done()
			b.serve(nc)
		}()
	}
}

// ServeConn is the whole server side of one connection, from the HTTP request on; it returns when the connection is over.
// It takes any net.Conn, net.Pipe included.
func (b *Broker) ServeConn(nc net.Conn) {
	if !b.enter() {
		nc.Close()
		return
	}
	defer b.wg.Done()
	b.serve(nc)
}

// Dialer returns a dial function whose connections lead into this broker over net.Pipe, whatever the address: use it as
// DialContext of an http.Transport.
func (b *Broker) Dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !b.enter() {
			return nil, ErrClosed
		}
		near, far := net.Pipe()
		go func() {
			defer b.wg.Done()
			b.serve(far)
		}()
		return near, nil
	}
}

// enter counts one more goroutine in unless the broker is closed; who gets true calls wg.Done.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.wg.Add(1)
	return true
}

// Close says 1001 "shutting down" to every client, waits for at most a second for them to hang up, and returns when every
// goroutine of the broker has ended. Leases are lost. It may be called twice.
func (b *Broker) Close() error { return b.shutdown(true) }

// Abort ends the broker as a kill would: every connection is cut without a close frame. For tests of reconnection.
func (b *Broker) Abort() error { return b.shutdown(false) }

func (b *Broker) shutdown(polite bool) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		b.wg.Wait()
		return nil
	}
	b.closed = true
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	close(b.stop)
	for _, m := range b.order {
		m.stopTimers()
	}
	for _, c := range conns {
		if polite && c.upgraded() {
			c.closeWith(1001, "shutting down")
		} else {
			c.terminate()
		}
	}
	gone := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(gone)
	}()
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	select {
	case <-gone:
	case <-patience.C:
		for _, c := range conns {
			c.terminate()
		}
		<-gone
	}
	var errs []error
	if b.journal != nil {
		errs = append(errs, b.journal.close())
	}
	if b.frames != nil {
		errs = append(errs, b.frames.close())
	}
	return errors.Join(errs...)
}

// tick pings, terminates and sweeps on one global 30 s beat (PROTOCOL 1.4).
func (b *Broker) tick() {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
		}
		for _, m := range b.order {
			m.beat()
		}
		b.hooks.prune(b.opts.Now())
		if b.journal != nil && b.journal.bloated() {
			if err := b.journal.compact(b); err != nil {
				b.log.Error("data file not compacted; it goes on growing", "error", err)
			}
		}
	}
}
