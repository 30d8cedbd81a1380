package broker

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

// Conn is one identity's connection to its mesh's broker, over as many sockets as it takes.
type Conn struct {
	mesh     *Mesh
	who      greeter
	presence Presence
	link     *link.Link
	log      hclog.Logger
	flight   flight
	pushes   frameQueue
	frames   frameQueue
	owed     owedAcks
	nudges   chan struct{} // one pending wish
	undone   chan struct{} // one pending "dnd has ended"
	claims   chan struct{} // one pending "the broker may have claimed for us what we didn't get"
	reqIDs   string        // what this connection's request ids begin with
	reqCount atomic.Uint64

	strays     uint64 // errors that belong to no request; the reader's own
	unreadable uint64 // pushes; consumePushes' own

	mu     sync.Mutex
	status string // for the nudge
}

func newConn(m *Mesh, who greeter, p Presence) (*Conn, error) {
	// Names of hosts and directories are bytes; a frame is text, and a hello that can't be encoded would never be said.
	for _, text := range []*string{&p.Cwd, &p.Hostname, &p.DisplayName} {
		*text = strings.ToValidUTF8(*text, "\ufffd")
	}
	c := &Conn{
		mesh: m, who: who, presence: p, status: wire.StatusIdle,
		log:    m.opts.Logger.With("mesh", m.opts.Slug, "as", who.key.Public().String()[:8]),
		nudges: make(chan struct{}, 1), undone: make(chan struct{}, 1), claims: make(chan struct{}, 1),
		reqIDs: "r" + strconv.FormatUint(uint64(rand.Uint32()), 36) + "-",
	}
	c.flight.init()
	c.pushes.init()
	c.frames.init()
	c.owed.init()
	var err error
	c.link, err = link.New(link.Options{
		URL: m.opts.URL, InsecureRemote: m.opts.InsecureRemote, Session: who.session,
		Dial: m.opts.Dial, TLS: m.opts.TLS,
		Hello:   func(now time.Time) ([]byte, error) { return who.hello(p, now.UnixMilli()) },
		OnFrame: c.onFrame, OnState: c.onState,
		Logger: c.log, Random: m.opts.Random,
	})
	if err != nil {
		return nil, fmt.Errorf("mesh %s: %w", m.opts.Slug, err)
	}
	return c, nil
}

// Public returns the key that the connection speaks as: the member's, or a session's.
func (c *Conn) Public() identity.PublicKey { return c.who.key.Public() }

// Key returns the key that the connection speaks as; boxes for its sends must be sealed with it (PROTOCOL 6).
func (c *Conn) Key() *identity.Key { return c.who.key }

// IsSession reports whether the connection is a session's, not the member's.
func (c *Conn) IsSession() bool { return c.who.session }

// State returns the connection's state of this moment.
func (c *Conn) State() State { return c.link.State() }

// Ready reports whether frames can be written now.
func (c *Conn) Ready() bool { return c.link.Ready() != nil }

// Resume ends a suspension or a back-off now.
func (c *Conn) Resume() { c.link.Resume() }

// Dropped returns how many pushes and how many other frames were dropped because their queue was full.
func (c *Conn) Dropped() (pushes, frames uint64) {
	return c.pushes.dropped.Load(), c.frames.dropped.Load()
}

// run keeps the connection until ctx ends; acks leave before it says goodbye. Pushes that were read by then are still handed
// over.
func (c *Conn) run(ctx context.Context) {
	var wg sync.WaitGroup
	side, cancel := context.WithCancel(context.Background())
	wg.Go(func() { c.flight.watch(side, c.timedOut) })
	wg.Go(func() { c.nudgeLoop(side) })
	wg.Go(func() { c.writeAcks(side) })
	wg.Go(c.consumePushes)
	wg.Go(c.consumeFrames)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { c.flushAcks(); end() })()
	if err := c.link.Run(life); err != nil {
		c.log.Error("broker connection ended", "error", err)
	}
	c.pushes.close()
	c.frames.close()
	cancel()
	wg.Wait()
}

// onState runs on the link's goroutine.
func (c *Conn) onState(s link.State) {
	if s.Phase == link.Ready {
		c.owed.signal()
		c.nudgeAfterClaims()
	} else {
		c.lost(s)
	}
	if f := c.mesh.opts.Handlers.OnState; f != nil {
		f(c, s)
	}
}

// onFrame runs on the socket's reader; f.Raw is valid during the call only.
func (c *Conn) onFrame(_ *link.Socket, f *wire.Frame) {
	switch f.Kind {
	case wire.KindPush:
		c.enqueue(&c.pushes, "push", f)
	case wire.KindAck, wire.KindReply, wire.KindError:
		c.settle(f)
	case wire.KindEvent:
		c.enqueue(&c.frames, "frame", f)
	default:
		// A type that this host doesn't know can still be the answer to a feature's request.
		if id := f.CorrelationID(); id == "" || !c.settle(f) {
			c.enqueue(&c.frames, "frame", f)
		}
	}
}

func (c *Conn) enqueue(q *frameQueue, kind string, f *wire.Frame) {
	own := *f
	own.Raw = bytes.Clone(f.Raw)
	if q.push(own) {
		return
	}
	n := q.dropped.Load()
	if n&(n-1) == 0 { // at 1, 2, 4, 8 … drops: a flood must not flood the log
		c.log.Warn("nobody takes what the broker sends; dropping", "kind", kind, "dropped", n)
	}
	if kind == "push" {
		c.nudgeAfterClaims()
	}
	if h := c.mesh.opts.Handlers.OnDropped; h != nil {
		h(c, kind, 1)
	}
}
