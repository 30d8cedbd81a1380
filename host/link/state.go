package link

import (
	"fmt"
	"time"

	"github.com/meshhost/meshhost/host/wire"
)

// Phase is where a link stands in its life.
type Phase uint8

// The phases, in the order in which a healthy link meets them.
const (
	Idle      Phase = iota // Run hasn't begun
	Dialing                // TCP, TLS and the upgrade
	Helloing               // hello written, ack awaited
	Ready                  // frames may be written
	Backoff                // waiting for RetryAt
	Suspended              // a rejection that trying again won't cure; Resume, or RetryAt if it is set
	Stopped                // Run has returned
)

// String names the phase for logs and the API.
func (p Phase) String() string {
	names := [...]string{"idle", "dialing", "helloing", "ready", "backoff", "suspended", "stopped"}
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// State is a link's state at one moment.
type State struct {
	Phase      Phase
	Since      time.Time      // when the phase began
	Reason     string         // why it is backing off or suspended: a stable word such as "banned", "capacity", "watchdog"
	Attempts   int            // connections tried since the link was last healthy for 60 s
	LastError  string         // a sentence about the last loss; empty if there was none
	RetryAt    time.Time      // Backoff, and Suspended with an end: when the next attempt begins
	Generation uint64         // of the current or last socket; 0 before the first
	CloseCode  int            // Backoff, Suspended: of the close frame that ended the last socket; 0 without one
	Ack        *wire.HelloAck // Ready: the broker's answer to the last hello; not to be changed
}

// PresenceID returns the presence that the broker knows this connection by, "" unless the link is ready.
func (s State) PresenceID() string {
	if s.Ack == nil {
		return ""
	}
	return s.Ack.PresenceID
}
