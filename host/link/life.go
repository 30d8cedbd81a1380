package link

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/wire"
)

// Numbers of ARCHITECTURE 7.
const (
	helloTimeout    = 15 * time.Second // 5 s makes ghosts (PROTOCOL 2.7)
	pingTimeout     = 65 * time.Second // the broker pings every 30 s
	takeoverTimeout = 35 * time.Second // PROTOCOL 3.7
	closeTimeout    = time.Second
	clockPoll       = 5 * time.Second  // wall clock held against the monotonic one
	sleepJump       = 10 * time.Second // they differ by more than this: the machine slept
	wakePing        = 3 * time.Second
)

// life is the owner's view of one socket. Only the goroutine of Run touches it.
type life struct {
	l *Link
	s *Socket

	helloAt  time.Time // of the last hello; zero when its ack has come
	firstAck time.Time
	lastAck  time.Time
	takeover bool // the last ack re-attached a session and no ping has come since
	again    bool // a second hello was written on this socket
	end      ending

	mono  time.Time // monotonic and wall clock at the last poll
	wall  time.Time
	wg    sync.WaitGroup // pings of our own
	pings chan error     // their outcome; holds one, since only one is under way
	awake bool           // a ping of our own is under way
}

// connect lives one socket's life, from dialing to its end, and leaves nothing of it behind.
func (l *Link) connect(ctx context.Context) ending {
	l.set(State{Phase: Dialing}, nil)
	s := &Socket{epoch: time.Now(), events: make(chan event), gone: make(chan struct{}), read: make(chan struct{})}
	d, err := l.dial(ctx, s.pinged)
	if err != nil {
		return dialEnding(d.resp, err, l.wall())
	}
	l.last++
	s.generation, s.conn, s.transport = l.last, d.conn, d.transport
	v := &life{l: l, s: s, end: ending{close: -1}, pings: make(chan error, 1)}
	if at, err := http.ParseTime(d.resp.Header.Get("Date")); err == nil {
		v.end.offset, v.end.offsetOK = at.Sub(l.wall()).Round(time.Second), true
	}
	go l.readFrames(s) // ends with the socket; shut waits for it
	l.set(State{Phase: Helloing}, nil)
	if v.hello() {
		v.run(ctx)
	}
	v.shut(ctx.Err() != nil || v.end.reason == reasonDeaf) // a clean close heals a deaf session (PROTOCOL 3.7, step 1)
	if !v.firstAck.IsZero() {
		v.end.healthy = time.Since(v.firstAck) >= healthyAfter && s.pingAt().After(v.firstAck)
	}
	return v.end
}

// hello writes a fresh hello; false ends the life.
func (v *life) hello() bool {
	frame, err := v.l.opts.Hello(v.l.wall().Add(v.l.offset))
	if err == nil {
		err = v.s.Write(frame)
	}
	if err != nil {
		v.end.err = fmt.Errorf("say hello: %w", err)
		return false
	}
	v.helloAt = time.Now()
	return true
}

// run deals with what happens until the socket has to go.
func (v *life) run(ctx context.Context) {
	v.mono, v.wall = time.Now(), v.l.wall()
	timer := time.NewTimer(clockPoll)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-v.s.events:
			over := v.handle(e)
			close(e.done)
			if over {
				return
			}
		case err := <-v.pings:
			v.awake = false
			if err != nil {
				v.end.reason, v.end.err = "woke_up", fmt.Errorf("no pong after the machine slept: %w", err)
				return
			}
		case <-timer.C:
			if v.overdue(time.Now()) {
				return
			}
			v.pollClock()
		}
		timer.Reset(time.Until(v.nextDeadline()))
	}
}

// handle takes an event of the reader; true ends the life.
func (v *life) handle(e event) bool {
	switch {
	case e.ack != nil:
		v.acked(e.ack)
		return false
	case e.reject != nil:
		if e.reject.Code == "" || v.helloAt.IsZero() {
			return false
		}
		v.end.rejected = e.reject.Code
		v.end.err = fmt.Errorf("broker rejected the hello: %s: %s", e.reject.Code, e.reject.Message)
		return true
	}
	var closed websocket.CloseError
	if errors.As(e.err, &closed) {
		v.end.close, v.end.closeText = closed.Code, closed.Reason
	} else {
		v.end.err = fmt.Errorf("connection lost: %w", e.err)
	}
	return true
}

func (v *life) acked(ack *wire.HelloAck) {
	if v.helloAt.IsZero() {
		v.l.log.Warn("broker sent a hello_ack that nobody asked for")
		return
	}
	now := time.Now()
	v.helloAt = time.Time{}
	v.lastAck = now
	if v.firstAck.IsZero() {
		v.firstAck = now
	}
	v.takeover = v.l.opts.Session && ack.MemberProfile == nil
	v.s.ready.Store(true)
	v.l.log.Info("connected to broker", "presence", ack.PresenceID, "reattached", v.takeover, "attempts", v.l.policy.attempts)
	v.l.set(State{Phase: Ready, Ack: ack}, v.s)
}

// overdue looks at every deadline; true ends the life.
func (v *life) overdue(now time.Time) bool {
	ping := v.s.pingAt()
	if ping.After(v.lastAck) {
		v.takeover = false
	}
	switch {
	case !v.helloAt.IsZero() && now.Sub(v.helloAt) >= helloTimeout:
		v.end.reason, v.end.err = "hello_timeout", fmt.Errorf("broker didn't answer the hello within %s", helloTimeout)
		if v.again {
			v.end.reason = reasonDeaf
		}
		return true
	case v.firstAck.IsZero():
		return false
	case v.takeover && v.helloAt.IsZero() && now.Sub(v.lastAck) >= takeoverTimeout:
		if !v.again {
			v.again = true
			v.l.log.Info("no broker ping after a session takeover; saying hello again on the same socket")
			return !v.hello()
		}
		v.end.reason, v.end.err = reasonDeaf, errors.New("broker forgot this socket after a session takeover")
		return true
	case now.Sub(later(ping, v.lastAck)) >= pingTimeout:
		v.end.reason, v.end.err = reasonWatchdog, fmt.Errorf("no ping from the broker for %s", pingTimeout)
		return true
	}
	return false
}

func (v *life) nextDeadline() time.Time {
	next := v.mono.Add(clockPoll)
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if !v.helloAt.IsZero() {
		earlier(v.helloAt.Add(helloTimeout))
	}
	if !v.firstAck.IsZero() {
		earlier(later(v.s.pingAt(), v.lastAck).Add(pingTimeout))
		if v.takeover && v.helloAt.IsZero() {
			earlier(v.lastAck.Add(takeoverTimeout))
		}
	}
	return next
}

// pollClock notices that the machine slept: the monotonic clock stands still meanwhile, so no deadline would tell. A socket
// that doesn't answer a ping within three seconds after that is dead.
func (v *life) pollClock() {
	mono, wall := time.Now(), v.l.wall()
	if mono.Sub(v.mono) < clockPoll {
		return
	}
	jump := wall.Round(0).Sub(v.wall.Round(0)) - mono.Sub(v.mono)
	v.mono, v.wall = mono, wall
	if jump < sleepJump || v.awake {
		return
	}
	v.awake = true
	v.l.log.Info("the machine slept; checking the broker connection", "for", jump.Round(time.Second))
	v.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wakePing)
		defer cancel()
		v.pings <- v.s.conn.Ping(ctx)
	})
}

// shut closes the socket, with 1000 and a second's patience if the close is ours to explain, and waits for its goroutines.
func (v *life) shut(orderly bool) {
	s := v.s
	v.l.mu.Lock()
	v.l.ready = nil // no new writes; the state follows from Run
	v.l.mu.Unlock()
	close(s.gone)
	if orderly {
		closed := make(chan struct{})
		go func() { // ends at the latest when the transport is killed below
			_ = s.conn.Close(websocket.StatusNormalClosure, "") // nobody is left to hear of an error
			close(closed)
		}()
		timer := time.NewTimer(closeTimeout)
		select {
		case <-closed:
		case <-timer.C:
		}
		timer.Stop()
		s.transport.kill()
		<-closed
	} else {
		s.transport.kill()
	}
	_ = s.conn.CloseNow() // frees the library's buffers
	<-s.read
	v.wg.Wait()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
