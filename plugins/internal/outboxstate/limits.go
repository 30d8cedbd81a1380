package outboxstate

import (
	"fmt"

	"github.com/meshhost/meshhost/sdk"
)

// Limits bound what a backend stores; 0 means no limit.
type Limits struct {
	// Rows bounds live rows, Bytes the sum of the bodies, Entry one entry.
	Rows  int64
	Bytes int64
	Entry int64
}

// Usage is what is stored.
type Usage struct {
	States map[sdk.EntryState]int64
	Bytes  int64
}

// Live counts the rows in queues.
func (u Usage) Live() int64 { return u.States[sdk.StatePending] + u.States[sdk.StateWaiting] }

// Refuse says why e cannot be appended to what is stored; ok is false when it
// can.
func (l Limits) Refuse(u Usage, e *sdk.Entry) (res sdk.OpResult, ok bool) {
	if n := entrySize(e); l.Entry > 0 && n > l.Entry {
		return sdk.OpResult{Code: sdk.OpTooLarge, Detail: fmt.Sprintf("the message has %d bytes; max_entry is %d", n, l.Entry)}, true
	}
	if l.Bytes > 0 && u.Bytes+int64(len(e.Body)) > l.Bytes {
		return sdk.OpResult{Code: sdk.OpFull, Detail: fmt.Sprintf("the outbox holds %d bytes of messages; max_bytes is %d", u.Bytes, l.Bytes)}, true
	}
	return l.RefuseLive(u)
}

// RefuseLive says why no row may become live.
func (l Limits) RefuseLive(u Usage) (res sdk.OpResult, ok bool) {
	if l.Rows > 0 && u.Live() >= l.Rows {
		return sdk.OpResult{Code: sdk.OpFull, Detail: fmt.Sprintf("%d messages wait in the outbox; max_rows is %d", u.Live(), l.Rows)}, true
	}
	return sdk.OpResult{}, false
}

// entrySize is what an entry costs, in bytes: its texts and its body.
func entrySize(e *sdk.Entry) int64 {
	return int64(len(e.ID) + len(e.ClientMessageID) + len(e.Fingerprint) + len(e.Mesh) + len(e.Sender) +
		len(e.Lane) + len(e.Target) + len(e.Priority) + len(e.Nonce) + len(e.Body))
}

// FetchBytes bounds the bodies in one answer to Fetch: a message between
// processes should stay far below gRPC's limits. The first row comes always.
const FetchBytes = 2 << 20

// Share is how many of the rows that are left a queue may fill when others come
// after it: each gets at least its head, and what a short queue leaves goes to
// the next.
func Share(rowsLeft, queuesLeft int) int {
	return max(1, rowsLeft/max(1, queuesLeft))
}

// CheckLimits refuses limits under which nothing could be stored, or with which
// a row could not cross to the host.
func CheckLimits(l Limits) sdk.Diagnostics {
	var d sdk.Diagnostics
	if l.Rows < 1 {
		d = append(d, sdk.Invalid([]string{"max_rows"}, "max_rows is too small", "At least 1 message must fit. Leave it out for the default."))
	}
	if l.Bytes < l.Entry {
		d = append(d, sdk.Invalid([]string{"max_bytes"}, "max_bytes is too small", "It must be at least max_entry, or the largest message could never be stored."))
	}
	// The largest frame is 64 KiB (PROTOCOL 4.1); a row that is sealed for it is larger.
	if l.Entry < 1<<10 || l.Entry > FetchBytes {
		d = append(d, sdk.Invalid([]string{"max_entry"}, "max_entry is out of range", "Set it to 1KiB up to 2MiB; a frame of the mesh has at most 64KiB."))
	}
	return d
}
