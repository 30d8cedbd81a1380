package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/wire"
)

// ErrNotReady says that nothing was written, since there is no socket whose hello was acked.
var ErrNotReady = errors.New("not connected to the broker")

// Socket is one WebSocket of a link, from its upgrade to its end.
type Socket struct {
	generation uint64
	conn       *websocket.Conn
	transport  *coalescer
	epoch      time.Time // what lastPing counts from

	lastPing atomic.Int64 // ns since epoch; 0 before the first broker ping
	ready    atomic.Bool  // the hello was acked: errors belong to requests from here on

	events chan event    // from the reader to the owner; unbuffered
	gone   chan struct{} // closed by the owner when it stops listening
	read   chan struct{} // closed when the reader is gone
}

// Generation numbers a link's sockets from 1.
func (s *Socket) Generation() uint64 { return s.generation }

// Write hands one frame to the socket; it may wait while a megabyte is unwritten, for ten seconds at most. [wire.ErrTooLarge]
// and any other error mean that the broker won't see the frame. Success means that it may. Frame isn't kept.
func (s *Socket) Write(frame []byte) error {
	if err := wire.CheckSize(len(frame)); err != nil {
		return err
	}
	// No caller's context: its end would close the socket. The transport's write deadline bounds the wait.
	if err := s.conn.Write(context.Background(), websocket.MessageText, frame); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// event is what the reader tells the owner; the reader waits for done, so that later frames meet the new state.
type event struct {
	ack    *wire.HelloAck
	reject *wire.Error
	err    error // the reader's end
	done   chan struct{}
}

// tell hands an event to the owner and waits until it was dealt with; false when the owner is gone.
func (s *Socket) tell(e event) bool {
	e.done = make(chan struct{})
	select {
	case s.events <- e:
	case <-s.gone:
		return false
	}
	select {
	case <-e.done:
		return true
	case <-s.gone:
		return false
	}
}

func (s *Socket) pinged() { s.lastPing.Store(max(1, int64(time.Since(s.epoch)))) }

// pingAt returns when the last broker ping came, zero before the first.
func (s *Socket) pingAt() time.Time {
	if ns := s.lastPing.Load(); ns != 0 {
		return s.epoch.Add(time.Duration(ns))
	}
	return time.Time{}
}

// readFrames reads until the socket ends. The frame handed on lies in a buffer that the next one overwrites.
func (l *Link) readFrames(s *Socket) {
	defer close(s.read)
	var buf []byte
	for {
		var err error
		if buf, err = readMessage(s.conn, buf); err != nil {
			s.tell(event{err: err})
			return
		}
		f, err := wire.Classify(buf)
		if err != nil && wire.MendSurrogates(buf) {
			f, err = wire.Classify(buf)
		}
		if err != nil {
			// Not the socket's end: the broker would repeat the same frame on the next one.
			l.unread("frame", len(buf), err)
			continue
		}
		switch {
		case f.Kind == wire.KindHelloAck:
			ack, err := wire.DecodeHelloAck(f.Raw)
			if err != nil {
				l.unread("hello_ack", len(buf), err)
				continue
			}
			if !s.tell(event{ack: ack}) {
				return
			}
		case f.Kind == wire.KindError && !s.ready.Load():
			e := f.Error()
			if !s.tell(event{reject: &e}) {
				return
			}
		default:
			l.opts.OnFrame(s, &f)
		}
		if cap(buf) > maxKeptBuffer {
			buf = nil
		}
	}
}

// unread logs what can't be read, at 1, 2, 4, 8 … of it: a flood must not flood the log.
func (l *Link) unread(what string, bytes int, err error) {
	l.unreadable++
	if n := l.unreadable; n&(n-1) == 0 {
		l.log.Warn("broker sent what can't be read", "what", what, "bytes", bytes, "error", err, "so_far", n)
	}
}

// maxKeptBuffer bounds the read buffer that a link keeps between frames; longer frames are rare.
const maxKeptBuffer = 256 << 10

func readMessage(conn *websocket.Conn, buf []byte) ([]byte, error) {
	_, r, err := conn.Reader(context.Background())
	if err != nil {
		return buf, err
	}
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}
