package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
)

// Numbers of ARCHITECTURE 7.
const (
	SendTimeout    = 15 * time.Second // until an ack; then the outcome is unknown
	RequestTimeout = 5 * time.Second  // until a reply
	nudgeDelay     = 36 * time.Second // after an ack; claims of a grace period last 30 s (PROTOCOL 4.6)
	attestationTTL = 12 * time.Hour   // PROTOCOL 3.2
)

// Bounds of a connection.
const (
	maxPending     = 8192     // sends and requests in flight
	maxOwedAcks    = 16_384   // client_acks that can't be written yet
	maxQueuedFrame = 8192     // pushes, and as many other frames, that nobody has taken yet
	maxQueuedBytes = 64 << 20 // of pushes, and of other frames
	maxBatch       = 1024     // pushes handed over at once
)

// The frames that cross this package's border, under the names that rooms above use.
type (
	// Push is a message or an event from the broker.
	Push = wire.Push
	// Peer is a row of a peer list.
	Peer = wire.Peer
	// Send is a message for the broker.
	Send = wire.Send
	// Group is a membership of a presence.
	Group = wire.Group
	// Frame is an unsolicited frame other than a push.
	Frame = wire.Frame
	// State is the state of a connection.
	State = link.State
)

var (
	// ErrTooLarge says that a frame is longer than the broker takes.
	ErrTooLarge = wire.ErrTooLarge
	// ErrMalformed says that a request's body, or an answer, isn't what it has to be.
	ErrMalformed = wire.ErrMalformed
)

// Presence is how a connection introduces itself (PROTOCOL 2.1). SessionID, PID and Cwd are needed: without one the broker
// says nothing. Keep SessionID and PID over restarts, or the next run meets its own ghost (PROTOCOL 2.7); (Cwd, PID) must be
// distinct for each connection, since the nudge finds a presence by it (PROTOCOL 4.6).
type Presence struct {
	SessionID   string
	PID         int32
	Cwd         string
	DisplayName string
	Hostname    string
	PeerType    string
	Channel     string
	Model       string
	Groups      []wire.Group
}

func (p Presence) check() error {
	if p.SessionID == "" || p.Cwd == "" || p.PID <= 0 {
		return errors.New("broker: SessionID, PID and Cwd are required")
	}
	return nil
}

// Handlers get what comes in. Any may be nil.
type Handlers struct {
	// OnPush gets pushes in arrival order, as many as have come in since the last call, at most 1024. Calls are serial per
	// connection; it may block. The pushes are the callee's. Ack each by [Conn.ClientAck] when it is stored.
	OnPush func(*Conn, []*Push)
	// OnFrame gets each unsolicited frame that is no push: state_change, stream_data, unknown types. Serial per connection,
	// not ordered with pushes; it may block. The frame is the callee's.
	OnFrame func(*Conn, Frame)
	// OnState gets each change of a connection's state. A ready state whose PresenceID differs from the last one means that
	// the desired presence has to be applied again (PROTOCOL 2.6).
	OnState func(*Conn, State)
	// OnLateAck gets the ack of a send whose outcome was reported as Unknown when its time was up.
	OnLateAck func(c *Conn, id, messageID string)
	// OnDropped gets the number of frames of a type just dropped because nobody takes them: "push" or "frame".
	OnDropped func(c *Conn, kind string, n int)
}

// Options of a mesh. MeshID, MemberID, Key, URL and Presence are required.
type Options struct {
	MeshID         string
	Slug           string // the mesh's name in logs
	MemberID       string
	Key            *identity.Key // the member's
	URL            string
	InsecureRemote bool     // allow ws:// beyond loopback
	Presence       Presence // the member connection's

	Dial     func(context.Context) (net.Conn, error) // nil dials URL's host
	TLS      *tls.Config                             // base for wss:// and https://; may be nil
	Logger   hclog.Logger
	Random   func() float64 // in [0,1), for jitter
	Handlers Handlers
}

func (o *Options) check() error {
	switch {
	case o.MeshID == "" || o.MemberID == "":
		return errors.New("broker: MeshID and MemberID are required")
	case o.Key == nil:
		return errors.New("broker: Key is required")
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if err := o.Presence.check(); err != nil {
		return fmt.Errorf("%w of the member connection", err)
	}
	return nil
}
