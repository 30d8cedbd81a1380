package outboxstate

import (
	"fmt"
	"maps"

	"github.com/meshhost/meshhost/sdk"
)

// maxImport bounds the entries of one Import.
const maxImport = 500

// MaxSeq bounds the seq that an imported entry brings, so that there is room for
// all that come after it.
const MaxSeq = 1 << 62

// CheckImport refuses a request with an entry that nobody can store. The error
// is ErrInvalid.
func CheckImport(req sdk.ImportRequest) error {
	switch {
	case req.Label == "" || len(req.Label) > maxKey:
		return sdk.Errorf(sdk.CodeInvalid, "bad_import", "outbox: import needs a label of 1 to %d bytes", maxKey)
	case len(req.Entries) > maxImport:
		return sdk.Errorf(sdk.CodeInvalid, "bad_import", "outbox: import of %d entries; at most %d at a time", len(req.Entries), maxImport)
	}
	for i := range req.Entries {
		if err := checkImported(&req.Entries[i]); err != nil {
			return sdk.Errorf(sdk.CodeInvalid, "bad_import", "outbox: import, entry %d of %d: %v", i+1, len(req.Entries), err)
		}
	}
	return nil
}

func checkImported(e *sdk.Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if !known(e.State) {
		return fmt.Errorf("unknown state %q", e.State)
	}
	if len(e.BrokerMessageID) > maxKey || len(e.LastError) > 2*maxError {
		return fmt.Errorf("broker_message_id may have %d bytes, last_error %d", maxKey, 2*maxError)
	}
	return nil
}

func known(state sdk.EntryState) bool {
	switch state {
	case sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled:
		return true
	default:
		return false
	}
}

// CheckScan refuses a request that nobody can answer. The error is ErrInvalid.
func CheckScan(req sdk.ScanRequest) error {
	if req.Unconfirmed && req.Lane == "" {
		return sdk.Errorf(sdk.CodeInvalid, "bad_scan", "outbox: a scan of unconfirmed entries needs a lane")
	}
	for _, state := range req.States {
		if !known(state) {
			return sdk.Errorf(sdk.CodeInvalid, "bad_scan", "outbox: scan for unknown state %q", state)
		}
	}
	return nil
}

// Without is what is stored when a row of that state and size has gone.
func (u Usage) Without(state sdk.EntryState, size int64) Usage {
	u.States = maps.Clone(u.States)
	u.States[state]--
	u.Bytes -= size
	return u
}

// RefuseImport says why e cannot be imported beside what is stored; ok is false
// when it can. Only live rows count as rows.
func (l Limits) RefuseImport(u Usage, e *sdk.Entry) (res sdk.OpResult, ok bool) {
	if !e.State.Live() {
		l.Rows = 0
	}
	res, ok = l.Refuse(u, e)
	res.ID = e.ID
	return res, ok
}
