package link

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// pinging pings every 30 s while on returns true, as the reference broker does for connections that it remembers.
func pinging(w *peer, on func() bool) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if on() && w.ping(time.Second) != nil {
					return
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}

func always() bool { return true }

func TestDeafSocketAfterTakeoverIsCuredOnTheSameSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hellos := []time.Time{}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(hellos) }
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			defer pinging(w, func() bool { return count() > 1 })()
			for {
				if _, err := w.read(); err != nil {
					return
				}
				mu.Lock()
				hellos = append(hellos, time.Now())
				mu.Unlock()
				w.write(reattachFrame)
			}
		}}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, func(o *Options) { o.Session = true })
		defer running(l)()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if b.count() != 1 || count() != 2 || l.State().Phase != Ready {
			t.Fatalf("%d sockets, %d hellos, %s; want one socket cured by a second hello", b.count(), count(), l.State().Phase)
		}
		if d := hellos[1].Sub(hellos[0]); d != takeoverTimeout {
			t.Errorf("second hello after %v, want %v", d, takeoverTimeout)
		}
	})
}

func TestDeafSocketThatStaysDeafIsClosedAndReplacedAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(n int, _ *websocket.Conn, w *peer) {
			if n > 1 {
				defer pinging(w, always)()
			}
			for {
				if _, err := w.read(); err != nil {
					if n == 1 && websocket.CloseStatus(err) != websocket.StatusNormalClosure {
						t.Errorf("the deaf socket ended with %v, want a clean close", err)
					}
					return
				}
				if n == 1 {
					w.write(reattachFrame)
				} else {
					w.write(ackFrame)
				}
			}
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, func(o *Options) { o.Session = true })
		defer running(l)()
		time.Sleep(5 * time.Minute)
		downs := r.phases(Backoff)
		if len(downs) != 1 || downs[0].Reason != reasonDeaf || downs[0].RetryAt.Sub(downs[0].Since) != time.Second || b.count() != 2 {
			t.Errorf("%d sockets, back-offs %+v; want one of a second for a deaf socket", b.count(), downs)
		}
	})
}

func TestMemberNeverSaysHelloTwiceOnOneSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(_ int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(reattachFrame)
			if frame, err := w.read(); err == nil {
				t.Errorf("the member wrote %s", frame)
			}
		}}
		defer startBroker(t, b)()
		defer running(testLink(t, b, &recorder{}, nil))()
		time.Sleep(50 * time.Second)
	})
}

func TestBackoffSeriesIsForgottenOnlyAfterAMinuteOfHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(n int, conn *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			defer pinging(w, always)()
			life := time.Second
			if n == 4 {
				life = 61 * time.Second
			}
			go func() { time.Sleep(life); _ = conn.CloseNow() }()
			w.drain()
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		defer running(testLink(t, b, r, nil))()
		time.Sleep(85 * time.Second)
		var delays []time.Duration
		for _, s := range r.phases(Backoff) {
			delays = append(delays, s.RetryAt.Sub(s.Since))
		}
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, time.Second, 2 * time.Second, 4 * time.Second}
		if len(delays) < len(want) || !slices.Equal(delays[:len(want)], want) {
			t.Errorf("delays %v, want %v", delays, want)
		}
	})
}

func TestWakingFromSleepChecksTheSocketWithinSeconds(t *testing.T) {
	for _, alive := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			stuck := make(chan struct{})
			b := &fakeBroker{serve: func(n int, _ *websocket.Conn, w *peer) {
				_, _ = w.read()
				w.write(ackFrame)
				if !alive && n == 1 {
					<-stuck // doesn't read, so doesn't pong
					return
				}
				w.drain()
			}}
			defer startBroker(t, b)()
			defer close(stuck)
			r := &recorder{}
			l := testLink(t, b, r, nil)
			var mu sync.Mutex
			var jump time.Duration
			l.wall = func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(jump) }
			defer running(l)()
			time.Sleep(12 * time.Second)
			mu.Lock()
			jump = 8 * time.Hour
			mu.Unlock()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got := len(r.phases(Backoff)) > 0; got == alive {
				t.Errorf("alive=%v: recycled=%v", alive, got)
			}
		})
	}
}

func TestThirtyDaysOfFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBroker{serve: func(n int, conn *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			life := time.Duration(n%17+1) * 7 * time.Minute
			deaf := n%3 == 0 // the broker stops pinging: the watchdog has to find out
			defer pinging(w, func() bool { return !deaf })()
			timer := time.AfterFunc(life, func() { _ = conn.CloseNow() })
			defer timer.Stop()
			w.drain()
		}}
		defer startBroker(t, b)()
		r := &recorder{}
		l := testLink(t, b, r, func(o *Options) { o.Random = func() float64 { return 0.5 } })
		stop := running(l)
		time.Sleep(30 * 24 * time.Hour)
		stop()
		ready, down := r.phases(Ready), r.phases(Backoff)
		if len(ready) < 600 || len(down) < len(ready)-1 {
			t.Errorf("%d connections and %d losses in thirty days, want at least 600", len(ready), len(down))
		}
		for i, s := range ready {
			if s.Generation != uint64(i+1) {
				t.Fatalf("connection %d has generation %d", i+1, s.Generation)
			}
		}
	})
}

// slowConn records what each Write was given, and waits for permission.
type slowConn struct {
	net.Conn // nil: nothing else is called
	permit   chan error
	writes   [][]byte
	closed   chan struct{}
	once     sync.Once
}

func (c *slowConn) Write(p []byte) (int, error) {
	select {
	case err := <-c.permit:
		if err != nil {
			return 0, err
		}
		c.writes = append(c.writes, slices.Clone(p))
		return len(p), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}
func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }
func (c *slowConn) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }

func newSlow() *slowConn { return &slowConn{permit: make(chan error), closed: make(chan struct{})} }

func TestWritesCollectWhileThePreviousOneRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := newSlow()
		c := newCoalescer(slow)
		for _, s := range []string{"a", "b", "c", "d"} {
			if _, err := io.WriteString(c, s); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		slow.permit <- nil
		slow.permit <- nil
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if len(slow.writes) != 2 || string(slow.writes[0]) != "a" || string(slow.writes[1]) != "bcd" {
			t.Errorf("writes %q, want a, then bcd", slow.writes)
		}
		if _, err := c.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after close gives %v", err)
		}
	})
}

func TestUnwrittenBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := newSlow()
		c := newCoalescer(slow)
		chunk := make([]byte, 64<<10)
		sent := 0
		var mu sync.Mutex
		go func() {
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
				mu.Lock()
				sent += len(chunk)
				mu.Unlock()
			}
		}()
		synctest.Wait()
		mu.Lock()
		if sent > maxUnwritten+2*len(chunk) {
			t.Errorf("%d bytes collected behind a stuck socket", sent)
		}
		mu.Unlock()
		c.kill()
		synctest.Wait()
	})
}

func TestASocketErrorFailsEveryLaterWriteAndClosesTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := newSlow()
		c := newCoalescer(slow)
		_, _ = io.WriteString(c, "a")
		cause := errors.New("broken pipe")
		slow.permit <- cause
		synctest.Wait()
		if _, err := io.WriteString(c, "b"); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		select {
		case <-slow.closed:
		default:
			t.Error("the socket is open; its reader would never learn")
		}
		_ = c.Close()
	})
}

func TestCloseOfAStuckSocketTakesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoalescer(newSlow())
		_, _ = io.WriteString(c, "a")
		begin := time.Now()
		_ = c.Close()
		if took := time.Since(begin); took != closeFlush {
			t.Errorf("close took %v, want %v", took, closeFlush)
		}
	})
}

func TestHalfOpenSocketIsFoundByTheWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := &fakeBroker{serve: func(n int, _ *websocket.Conn, w *peer) {
			_, _ = w.read()
			w.write(ackFrame)
			if n == 1 {
				<-release // the pipe takes no bytes: what a dead peer looks like from here
				return
			}
			w.drain()
		}}
		defer startBroker(t, b)()
		defer close(release)
		r := &recorder{}
		l := testLink(t, b, r, nil)
		defer running(l)()
		time.Sleep(time.Second)
		for range 20 { // more than the far end's read buffer takes
			if err := l.Send(t.Context(), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if downs := r.phases(Backoff); len(downs) == 0 {
			t.Error("a socket that takes no bytes for ten seconds is still in use")
		}
	})
}
