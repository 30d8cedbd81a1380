package wire

import (
	"errors"
	"fmt"
)

const (
	// MaxFrame is the longest frame a client may send, in bytes (PROTOCOL 1.2). A broker on Node closes with 1009 above it.
	MaxFrame = 65_536
	// MaxRead is the longest frame accepted from a broker: frames to 16 MiB exist on Bun (PROTOCOL 1.2), peers_list of a large
	// mesh among them; one page on top leaves room for the framing.
	MaxRead = 16<<20 + 4096
)

var (
	// ErrTooLarge says that a frame is longer than [MaxFrame].
	ErrTooLarge = errors.New("frame too large")
	// ErrMalformed says that bytes aren't a frame: no JSON object, no string "type", duplicate names, invalid UTF-8, wrong type of a member.
	ErrMalformed = errors.New("malformed frame")
)

// CheckSize returns [ErrTooLarge] for a frame that a client mustn't send.
func CheckSize(n int) error {
	if n > MaxFrame {
		return fmt.Errorf("%w: %d bytes, the broker takes %d", ErrTooLarge, n, MaxFrame)
	}
	return nil
}
