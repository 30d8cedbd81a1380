package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/wire"
)

// Options of a link. URL, Hello, OnFrame and OnState are required.
type Options struct {
	URL            string // ws://… or wss://…
	InsecureRemote bool   // allow ws:// beyond loopback
	Session        bool   // the hello is a session_hello: takeovers are cured, and old brokers recognised (PROTOCOL 3.6, 3.7)

	// Dial opens the TCP connection, or whatever stands in for it; nil dials the URL's host, honouring the proxy environment.
	Dial func(context.Context) (net.Conn, error)
	// TLS is a base for wss://: roots, pins. The minimum version is raised to 1.2.
	TLS *tls.Config

	// Hello returns a fresh hello frame, signed for the time given (the broker's, as far as it is known).
	Hello func(now time.Time) ([]byte, error)
	// OnFrame gets each frame but hello_ack and the errors that answer a hello, one after the other. The frame's bytes are
	// the reader's: copy what outlives the call. It must not block, or pongs wait.
	OnFrame func(*Socket, *wire.Frame)
	// OnState gets each change of state, from the goroutine that owns it: it must not block. It may write to the link.
	OnState func(State)

	Logger hclog.Logger
	Random func() float64 // in [0,1), for jitter; nil takes math/rand
}

// Link is one WebSocket's life. Make it with [New] and run it with [Link.Run].
type Link struct {
	opts   Options
	log    hclog.Logger
	wall   func() time.Time // the wall clock; tests make it jump
	policy policy           // owned by Run
	offset time.Duration    // broker's clock minus ours, learned from a refusal; owned by Run
	last   uint64           // generation of the last socket; owned by Run
	resume chan struct{}    // one pending Resume

	unreadable uint64 // frames; owned by the one reader

	mu    sync.Mutex
	state State
	ready *Socket // non-nil exactly in phase Ready
}

// New checks the options. It doesn't dial.
func New(opts Options) (*Link, error) {
	if err := CheckURL(opts.URL, opts.InsecureRemote); err != nil {
		return nil, err
	}
	if opts.Hello == nil || opts.OnFrame == nil || opts.OnState == nil {
		return nil, errors.New("link: Hello, OnFrame and OnState are required")
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	if opts.Random == nil {
		opts.Random = rand.Float64
	}
	return &Link{
		opts:   opts,
		log:    opts.Logger,
		wall:   time.Now,
		policy: policy{random: opts.Random, session: opts.Session},
		resume: make(chan struct{}, 1),
		state:  State{Phase: Idle, Since: time.Now()},
	}, nil
}

// State returns the state of this moment.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Ready returns the socket that frames may be written to, or nil.
func (l *Link) Ready() *Socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

// Send writes one frame. [ErrNotReady] at once when there is no acked socket; [wire.ErrTooLarge] above the limit. The context
// is looked at before the write only.
func (l *Link) Send(ctx context.Context, frame []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := l.Ready()
	if s == nil {
		if err := wire.CheckSize(len(frame)); err != nil {
			return err
		}
		return ErrNotReady
	}
	return s.Write(frame)
}

// Resume ends a suspension or a back-off now. It does nothing to a link that is connected or connecting.
func (l *Link) Resume() {
	select {
	case l.resume <- struct{}{}:
	default: // one is pending
	}
}

// Run connects, and connects again, until ctx ends; then it closes the socket with 1000, within a second, and returns nil.
func (l *Link) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		l.policy.attempts++
		end := l.connect(ctx)
		if ctx.Err() != nil {
			break
		}
		next := l.policy.next(end, time.Now())
		if next.adopt {
			l.offset = end.offset
			l.log.Warn("this machine's clock differs from the broker's; hellos are corrected", "offset", end.offset.Round(time.Second))
		}
		if !l.wait(ctx, next, end) {
			break
		}
	}
	l.set(State{Phase: Stopped}, nil)
	return nil
}

// wait sits out a step; false when ctx ended.
func (l *Link) wait(ctx context.Context, next step, end ending) bool {
	s := State{Phase: Backoff, Reason: next.reason, LastError: end.sentence(), CloseCode: max(0, int(end.close))}
	if next.suspend {
		s.Phase = Suspended
	}
	if next.reason == reasonTwin {
		s.LastError = "another connection with this identity took this one's place twice in five minutes; is a copy of this data_dir in use elsewhere?"
	}
	var due <-chan time.Time
	if !next.suspend || next.delay > 0 {
		timer := time.NewTimer(next.delay)
		defer timer.Stop()
		due = timer.C
		s.RetryAt = time.Now().Add(next.delay)
	}
	select { // an old Resume was meant for an old trouble
	case <-l.resume:
	default:
	}
	if next.suspend {
		l.log.Error("broker connection suspended", "reason", next.reason, "error", s.LastError, "retry_in", next.delay.String())
	} else {
		l.log.Info("broker connection down", "reason", next.reason, "error", s.LastError, "retry_in", next.delay.String(), "attempts", l.policy.attempts)
	}
	l.set(s, nil)
	select {
	case <-ctx.Done():
		return false
	case <-due:
		return true
	case <-l.resume:
		return true
	}
}

func (l *Link) set(s State, ready *Socket) {
	s.Since = time.Now()
	s.Generation = l.last
	s.Attempts = l.policy.attempts
	l.mu.Lock()
	if s.LastError == "" && s.Phase != Ready {
		s.LastError = l.state.LastError
	}
	l.state, l.ready = s, ready
	l.mu.Unlock()
	l.opts.OnState(s)
}

// sentence tells an ending to a reader of logs.
func (e ending) sentence() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.close > 0:
		return fmt.Sprintf("broker closed with %d %q", int(e.close), e.closeText)
	}
	return e.reason
}

func dialEnding(resp *http.Response, err error, now time.Time) ending {
	e := ending{err: fmt.Errorf("connect to broker: %w", err), close: -1}
	if resp != nil {
		e.status = resp.StatusCode
		e.retryAfter = retryAfter(resp, now)
	}
	return e
}
