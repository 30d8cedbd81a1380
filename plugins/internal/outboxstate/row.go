package outboxstate

import (
	"time"
	"unicode/utf8"

	"github.com/meshhost/meshhost/sdk"
)

// maxError bounds Entry.LastError, in bytes: it is a sentence for people, and
// a mesh chooses its text.
const maxError = 1000

// Row is the part of a stored entry that ops change. Times are Unix
// milliseconds; 0 means "not yet".
type Row struct {
	State           sdk.EntryState
	Attempts        int
	DueAt           int64
	NotAfter        int64
	AcceptedAt      int64
	DeliveredAt     int64
	LastError       string
	BrokerMessageID string
	// Size is the length of the body in bytes; 0 means that it is gone.
	Size int64
}

// Effect says what Decide did to a row.
type Effect struct {
	// Changed is true when the row must be stored.
	Changed bool
	// DropBody is true when the body goes.
	DropBody bool
	// NewSeq is true when the row goes to the end of its queue.
	NewSeq bool
}

// Decide carries out any op but append and wake on row, which it changes, and
// returns its result. The fence is the caller's to check, before. now is the
// backend's clock.
func Decide(row *Row, op *sdk.Op, now time.Time) (sdk.OpResult, Effect) {
	switch op.Kind {
	case sdk.OpAccepted:
		return accepted(row, op)
	case sdk.OpDelivered:
		return delivered(row, op)
	case sdk.OpDefer, sdk.OpWait:
		return postpone(row, op, now)
	case sdk.OpDie:
		return finish(row, sdk.StateDead, op.Error, false)
	case sdk.OpExpire:
		return finish(row, sdk.StateExpired, row.LastError, true)
	case sdk.OpCancel:
		return cancel(row)
	case sdk.OpResend:
		return resend(row, now)
	case sdk.OpReroute:
		return reroute(row, op, now)
	default: // requeue: CheckOps lets nothing else through
		return requeue(row, op, now)
	}
}

func result(code sdk.OpCode, row *Row) sdk.OpResult {
	return sdk.OpResult{Code: code, State: row.State, BrokerMessageID: row.BrokerMessageID}
}

func conflict(row *Row, detail string) (sdk.OpResult, Effect) {
	r := result(sdk.OpConflict, row)
	r.Detail = detail
	return r, Effect{}
}

func accepted(row *Row, op *sdk.Op) (sdk.OpResult, Effect) {
	switch row.State {
	case sdk.StateAccepted, sdk.StateDelivered:
		return result(sdk.OpAlready, row), Effect{}
	case sdk.StatePending, sdk.StateWaiting:
		row.State = sdk.StateAccepted
		row.BrokerMessageID, row.AcceptedAt = op.BrokerMessageID, Millis(op.At)
		return result(sdk.OpApplied, row), dropIf(row, op.Final)
	default:
		// A late ack tells what happened to a row that was given up; it does
		// not revive it.
		changed := row.BrokerMessageID != op.BrokerMessageID || row.AcceptedAt != Millis(op.At)
		row.BrokerMessageID, row.AcceptedAt = op.BrokerMessageID, Millis(op.At)
		res, _ := conflict(row, "the mesh took a message that was "+string(row.State)+" here; the ack is recorded")
		return res, Effect{Changed: changed}
	}
}

func delivered(row *Row, op *sdk.Op) (sdk.OpResult, Effect) {
	switch row.State {
	case sdk.StateDelivered:
		return result(sdk.OpAlready, row), Effect{}
	case sdk.StateAccepted:
		row.State, row.DeliveredAt = sdk.StateDelivered, Millis(op.At)
		return result(sdk.OpApplied, row), dropIf(row, true)
	default:
		return conflict(row, "only an accepted message can be delivered; this one is "+string(row.State))
	}
}

func postpone(row *Row, op *sdk.Op, now time.Time) (sdk.OpResult, Effect) {
	if !row.State.Live() {
		return conflict(row, "the message has left its queue: it is "+string(row.State))
	}
	row.State = sdk.StatePending
	if op.Kind == sdk.OpWait {
		row.State = sdk.StateWaiting
	} else if op.Count {
		row.Attempts++
	}
	row.DueAt = Millis(now.Add(min(max(op.After, 0), sdk.MaxDelay)))
	row.LastError = Shorten(op.Error)
	return result(sdk.OpApplied, row), Effect{Changed: true}
}

func finish(row *Row, state sdk.EntryState, reason string, drop bool) (sdk.OpResult, Effect) {
	switch {
	case row.State == state:
		return result(sdk.OpAlready, row), Effect{}
	case !row.State.Live():
		return conflict(row, "the message has left its queue: it is "+string(row.State))
	}
	row.State, row.LastError = state, Shorten(reason)
	return result(sdk.OpApplied, row), dropIf(row, drop)
}

func cancel(row *Row) (sdk.OpResult, Effect) {
	switch row.State {
	case sdk.StateCancelled:
		return result(sdk.OpAlready, row), Effect{}
	case sdk.StateAccepted, sdk.StateDelivered:
		return conflict(row, "the mesh has the message already")
	}
	row.State = sdk.StateCancelled
	return result(sdk.OpApplied, row), Effect{Changed: true}
}

func requeue(row *Row, op *sdk.Op, now time.Time) (sdk.OpResult, Effect) {
	switch row.State {
	case sdk.StatePending, sdk.StateWaiting:
		return result(sdk.OpAlready, row), Effect{}
	case sdk.StateAccepted, sdk.StateDelivered:
		return conflict(row, "the mesh has the message already")
	}
	if row.Size == 0 {
		return conflict(row, "the body of the message is gone; send it again")
	}
	*row = Row{
		State:    sdk.StatePending,
		DueAt:    Millis(now),
		NotAfter: Millis(op.NotAfter),
		Size:     row.Size,
	}
	return result(sdk.OpApplied, row), Effect{Changed: true, NewSeq: true}
}

func resend(row *Row, now time.Time) (sdk.OpResult, Effect) {
	switch {
	case row.State.Live():
		return result(sdk.OpAlready, row), Effect{}
	case row.State != sdk.StateAccepted:
		return conflict(row, "only an accepted message can be sent once more; this one is "+string(row.State))
	case row.Size == 0:
		return conflict(row, "the body of the message is gone")
	}
	row.State, row.DueAt = sdk.StatePending, Millis(now)
	row.BrokerMessageID, row.AcceptedAt = "", 0
	return result(sdk.OpApplied, row), Effect{Changed: true, NewSeq: true}
}

// reroute gives a row that another lane has the body of op. The caller has
// answered OpAlready for a row that is in the lane of op.Entry, and stores the
// lane and the nonce.
func reroute(row *Row, op *sdk.Op, now time.Time) (sdk.OpResult, Effect) {
	if !row.State.Live() {
		return conflict(row, "the message has left its queue: it is "+string(row.State))
	}
	row.State, row.DueAt, row.Size = sdk.StatePending, Millis(now), int64(len(op.Entry.Body))
	return result(sdk.OpApplied, row), Effect{Changed: true, NewSeq: true}
}

func dropIf(row *Row, drop bool) Effect {
	eff := Effect{Changed: true, DropBody: drop && row.Size > 0}
	if drop {
		row.Size = 0
	}
	return eff
}

// Due reports whether a row of that due time may be tried: it is past, or
// beyond what any delay can set, since the clock that set it has gone back.
func Due(dueAt, now int64) bool { return dueAt <= now || dueAt > Horizon(now) }

// Horizon is the last due time that an op can set now.
func Horizon(now int64) int64 { return now + sdk.MaxDelay.Milliseconds() }

// Wake makes a waiting row pending and due now.
func Wake(row *Row, now time.Time) {
	row.State, row.DueAt = sdk.StatePending, Millis(now)
}

// Millis is t in Unix milliseconds; the zero time is 0.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time is the inverse of Millis, in UTC.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Shorten cuts text for people at maxError bytes, never inside a character.
func Shorten(s string) string {
	if len(s) <= maxError {
		return s
	}
	cut := maxError
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
