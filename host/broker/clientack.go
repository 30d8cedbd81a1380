package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/link"
)

// ackFlush bounds the wait for acks that are still to be written when the connection ends.
const ackFlush = time.Second

// owedAcks are client_acks on their way to the socket. One goroutine writes them, so that who acks never waits for a broker
// that has stopped reading; those that can't be written leave right after the next hello_ack. The broker takes them on any
// connection of the same identity (PROTOCOL 5.3), and repeats a push whose ack it never sees.
type owedAcks struct {
	wake    chan struct{}      // holds one: something is there, or the connection is ready
	flushes chan chan struct{} // closed in answer when there is nothing left that can be written

	mu   sync.Mutex
	acks [][2]string // client id, broker id; at most maxOwedAcks, the oldest goes first
}

func (o *owedAcks) init() { o.wake, o.flushes = make(chan struct{}, 1), make(chan chan struct{}) }

func (o *owedAcks) add(clientID, brokerID string) {
	o.mu.Lock()
	if len(o.acks) >= maxOwedAcks {
		o.acks = o.acks[1:]
	}
	o.acks = append(o.acks, [2]string{clientID, brokerID})
	o.mu.Unlock()
	o.signal()
}

func (o *owedAcks) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *owedAcks) takeAll() [][2]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	acks := o.acks
	o.acks = nil
	return acks
}

// putBack returns what was taken and not written to its place.
func (o *owedAcks) putBack(acks [][2]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	acks = append(acks, o.acks...)
	o.acks = acks[max(len(acks)-maxOwedAcks, 0):]
}

// ClientAck tells the broker that a push is stored; give both ids if both are known (PROTOCOL 5.3). While the connection is
// down the ack is kept for the next one. It doesn't wait and doesn't fail: an ack that is lost after all means a repeated push.
func (c *Conn) ClientAck(clientMessageID, brokerMessageID string) {
	if clientMessageID == "" && brokerMessageID == "" {
		return
	}
	c.owed.add(clientMessageID, brokerMessageID)
}

// writeAcks writes what is owed until ctx ends.
func (c *Conn) writeAcks(ctx context.Context) {
	for {
		var flush chan struct{}
		select {
		case <-c.owed.wake:
		case flush = <-c.owed.flushes:
		case <-ctx.Done():
			return
		}
		c.payOwedAcks()
		if flush != nil {
			close(flush)
		}
	}
}

// flushAcks returns when what is owed has been written, as far as it can be within a second.
func (c *Conn) flushAcks() {
	limit := time.NewTimer(ackFlush)
	defer limit.Stop()
	flushed := make(chan struct{})
	select {
	case c.owed.flushes <- flushed:
	case <-limit.C:
		return
	}
	select {
	case <-flushed:
	case <-limit.C:
	}
}

func (c *Conn) payOwedAcks() {
	for {
		socket := c.link.Ready()
		if socket == nil {
			return
		}
		acks := c.owed.takeAll()
		if len(acks) == 0 {
			return
		}
		for i, ids := range acks {
			buf := frames.Get().(*[]byte)
			frame, err := appendClientAck((*buf)[:0], ids[0], ids[1])
			if err == nil {
				err = socket.Write(frame)
				*buf = frame[:0]
			}
			frames.Put(buf)
			if errors.Is(err, link.ErrNotReady) {
				c.owed.putBack(acks[i:])
				return // the next hello_ack comes back to it
			}
			// Any other error: ids that are no text, or too long for a frame, can't be acked, ever.
		}
	}
}

func appendClientAck(dst []byte, clientID, brokerID string) ([]byte, error) {
	dst = append(dst, `{"type":"client_ack"`...)
	var err error
	if clientID != "" {
		dst = append(dst, `,"clientMessageId":`...)
		if dst, err = jsontext.AppendQuote(dst, clientID); err != nil {
			return nil, err
		}
	}
	if brokerID != "" {
		dst = append(dst, `,"brokerMessageId":`...)
		if dst, err = jsontext.AppendQuote(dst, brokerID); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}
