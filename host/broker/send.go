package broker

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

// Outcome is what became of a send.
type Outcome uint8

// The outcomes.
const (
	Accepted    Outcome = iota + 1 // queued by the broker; MessageID names the row
	RateLimited                    // nothing stored; Rate is what the broker allows
	NoPeer                         // nothing stored: nobody is connected under the target's key
	Permanent                      // nothing stored, and the same frame will be refused again
	Transient                      // nothing stored, for a reason that may pass; Text has the broker's words
	Unknown                        // written, but no ack: timed out, or the connection ended
	NotSent                        // nothing written; Err says why
)

// String names the outcome for logs.
func (o Outcome) String() string {
	names := [...]string{"", "accepted", "rate_limited", "no_peer", "permanent", "transient", "unknown", "not_sent"}
	if int(o) < len(names) {
		return names[o]
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}

// Rate is what a rate-limit answer names; zero where it doesn't.
type Rate struct {
	PerMinute int
	Burst     int
}

// SendResult is a send's outcome with what belongs to it.
type SendResult struct {
	Outcome   Outcome
	MessageID string // Accepted
	Text      string // the broker's words, for people
	Rate      Rate   // RateLimited
	Err       error  // NotSent, and Unknown: ErrTimeout or ErrConnectionLost
	// Poisoned comes with Unknown: the broker closed the socket over what it read (1002, 1003, 1007, 1009), and this frame was
	// among what it had to read.
	Poisoned bool
}

// frames are reused: a frame is copied when it is written.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// SendAsync writes a send and calls done exactly once: from the connection's reader, its clock, or before SendAsync returns.
// done must not block, so it mustn't send either: SendAsync waits while a megabyte is unwritten, for ten seconds at most. The
// send's ID correlates, and must be unique among what is in flight.
func (c *Conn) SendAsync(s *wire.Send, done func(SendResult)) {
	socket := c.link.Ready()
	if socket == nil {
		done(SendResult{Outcome: NotSent, Err: ErrNotConnected})
		return
	}
	buf := frames.Get().(*[]byte)
	frame, err := wire.AppendSend((*buf)[:0], s)
	if err == nil {
		err = wire.CheckSize(len(frame))
	}
	if err != nil {
		frames.Put(buf)
		done(SendResult{Outcome: Permanent, Text: err.Error(), Err: err})
		return
	}
	t := &trip{id: s.ID, done: done}
	if err = c.flight.add(t, &c.flight.sends); err == nil {
		if err = socket.Write(frame); err != nil && !c.flight.takeThis(t) {
			err = nil // the connection's end has settled it
		}
	}
	*buf = frame[:0]
	frames.Put(buf)
	if err != nil {
		if errors.Is(err, link.ErrNotReady) {
			err = ErrNotConnected
		}
		done(SendResult{Outcome: NotSent, Err: err})
	}
}

// Send is [Conn.SendAsync] for a caller that waits. A context that ends first gives Unknown with the context's error.
func (c *Conn) Send(ctx context.Context, s *wire.Send) SendResult {
	result := make(chan SendResult, 1)
	c.SendAsync(s, func(r SendResult) { result <- r })
	select {
	case r := <-result:
		return r
	case <-ctx.Done():
		return SendResult{Outcome: Unknown, Err: ctx.Err()}
	}
}

// settle gives an answer to whoever waits for it; false if nobody does.
func (c *Conn) settle(f *wire.Frame) bool {
	id := f.CorrelationID()
	t := c.flight.take(id, f.Kind)
	switch {
	case t == nil && f.Kind == wire.KindAck:
		ack := f.Ack()
		if ack.Error == "" && ack.MessageID != "" && c.flight.wasOverdue(id) {
			if h := c.mesh.opts.Handlers.OnLateAck; h != nil {
				h(c, id, ack.MessageID)
			}
		}
		return false // the broker also acks scheduled messages under ids of its own (PROTOCOL 4.2)
	case t == nil:
		if f.Kind == wire.KindError {
			c.strays++
			if n := c.strays; n&(n-1) == 0 {
				e := f.Error()
				c.log.Warn("broker reports an error that belongs to no request", "code", e.Code, "message", e.Message, "so_far", n)
			}
		}
		return false
	case t.done != nil:
		t.done(sendResult(f))
	default:
		t.reply <- replyOf(f)
	}
	return true
}

func sendResult(f *wire.Frame) SendResult {
	if f.Kind == wire.KindError {
		e := f.Error()
		return SendResult{Outcome: Transient, Text: e.Code + ": " + e.Message}
	}
	ack := f.Ack()
	switch {
	case ack.Error == "" && ack.MessageID == "":
		return SendResult{Outcome: Unknown, Text: "ack without a messageId", Err: wire.ErrMalformed}
	case ack.Error == "":
		return SendResult{Outcome: Accepted, MessageID: ack.MessageID}
	}
	r := SendResult{Outcome: Transient, Text: ack.Error}
	switch { // stable prefixes (PROTOCOL 4.4)
	case strings.HasPrefix(ack.Error, "rate_limit"):
		r.Outcome, r.Rate = RateLimited, parseRate(ack.Error)
	case strings.HasPrefix(ack.Error, "no connected peer"):
		r.Outcome = NoPeer
	case strings.HasPrefix(ack.Error, "payload too large"), strings.HasPrefix(ack.Error, "blocked by"):
		r.Outcome = Permanent
	}
	return r
}

var rateText = regexp.MustCompile(`max (\d{1,9}) msg/min(?: \(burst (\d{1,9})\))?`)

func parseRate(text string) Rate {
	m := rateText.FindStringSubmatch(text)
	if m == nil {
		return Rate{}
	}
	var r Rate
	r.PerMinute, _ = strconv.Atoi(m[1]) // at most nine digits
	r.Burst, _ = strconv.Atoi(m[2])     // empty gives zero
	return r
}

func (c *Conn) timedOut(t *trip) {
	if t.done != nil {
		t.done(SendResult{Outcome: Unknown, Err: ErrTimeout})
		return
	}
	t.reply <- reply{err: ErrTimeout}
}

// lost settles everything that was in flight on the socket that is gone.
func (c *Conn) lost(s link.State) {
	poisoned := false
	switch websocket.StatusCode(s.CloseCode) {
	case websocket.StatusProtocolError, websocket.StatusUnsupportedData, websocket.StatusInvalidFramePayloadData, websocket.StatusMessageTooBig:
		poisoned = true
	}
	for _, t := range c.flight.takeAll() {
		if t.done != nil {
			t.done(SendResult{Outcome: Unknown, Err: ErrConnectionLost, Poisoned: poisoned})
		} else {
			t.reply <- reply{err: ErrConnectionLost}
		}
	}
}
