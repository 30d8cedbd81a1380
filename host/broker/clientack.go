package broker

import (
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// owedAcks are client_acks that couldn't be written when the push was stored: they leave right after the next hello_ack. The
// broker takes them on any connection of the same identity (PROTOCOL 5.3), and repeats a push whose ack it never sees.
type owedAcks struct {
	mu   sync.Mutex
	acks [][2]string // client id, broker id; at most maxOwedAcks, the oldest goes first
}

func (o *owedAcks) add(clientID, brokerID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.acks) >= maxOwedAcks {
		o.acks = append(o.acks[:0], o.acks[1:]...)
	}
	o.acks = append(o.acks, [2]string{clientID, brokerID})
}

func (o *owedAcks) takeAll() [][2]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	acks := o.acks
	o.acks = nil
	return acks
}

// ClientAck tells the broker that a push is stored; give both ids if both are known (PROTOCOL 5.3). While the connection is
// down the ack is kept for the next one. It doesn't fail: an ack that is lost after all means a repeated push.
func (c *Conn) ClientAck(clientMessageID, brokerMessageID string) {
	if clientMessageID == "" && brokerMessageID == "" {
		return
	}
	if !c.writeClientAck(clientMessageID, brokerMessageID) {
		c.owed.add(clientMessageID, brokerMessageID)
	}
}

func (c *Conn) writeClientAck(clientID, brokerID string) bool {
	socket := c.link.Ready()
	if socket == nil {
		return false
	}
	buf := frames.Get().(*[]byte)
	frame, err := appendClientAck((*buf)[:0], clientID, brokerID)
	written := err == nil && socket.Write(frame) == nil
	if err == nil {
		*buf = frame[:0]
	}
	frames.Put(buf)
	return written || err != nil // ids that are no text can't be acked, ever
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

func (c *Conn) payOwedAcks() {
	for _, ids := range c.owed.takeAll() {
		c.ClientAck(ids[0], ids[1])
	}
}
