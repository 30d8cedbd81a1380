package outboxstate

import (
	"fmt"

	"github.com/meshhost/meshhost/sdk"
)

// maxKey bounds each short text of an entry (ids, mesh, sender, lane, target,
// priority, nonce), in bytes: they are index keys, and no protocol field comes
// near it.
const maxKey = 1024

// CheckOps refuses a batch that has an op nobody can carry out: a defect of the
// caller, found before anything is written. The error is ErrInvalid.
func CheckOps(ops []sdk.Op) error {
	for i := range ops {
		if err := checkOp(&ops[i]); err != nil {
			return sdk.Errorf(sdk.CodeInvalid, "bad_op", "outbox: op %d of %d (%s): %v", i+1, len(ops), ops[i].Kind, err)
		}
	}
	return nil
}

func checkOp(op *sdk.Op) error {
	switch op.Kind {
	case sdk.OpAppend:
		return checkEntry(op.Entry)
	case sdk.OpWake:
		if op.Lane == "" || op.Target == "" {
			return fmt.Errorf("lane and target must be set")
		}
		return nil
	case sdk.OpSeal:
		if op.Error == "" {
			return fmt.Errorf("error must say where the rows are")
		}
		return nil
	case sdk.OpUnseal:
		return nil
	case sdk.OpReroute:
		if e := op.Entry; op.ID == "" || op.Lane == "" || e == nil || e.Lane == "" || len(e.Lane) > maxKey || len(e.Nonce) > maxKey || len(e.Body) == 0 {
			return fmt.Errorf("id, lane and an entry with lane and body must be set, lane and nonce of at most %d bytes", maxKey)
		}
		return nil
	case sdk.OpAccepted, sdk.OpDelivered, sdk.OpDefer, sdk.OpWait, sdk.OpDie, sdk.OpExpire, sdk.OpCancel, sdk.OpRequeue, sdk.OpResend:
		if op.ID == "" {
			return fmt.Errorf("id must be set")
		}
		if op.Kind.Fenced() && op.Lane == "" {
			return fmt.Errorf("lane must be set")
		}
		return nil
	default:
		return fmt.Errorf("unknown kind of op %q", op.Kind)
	}
}

func checkEntry(e *sdk.Entry) error {
	if e == nil {
		return fmt.Errorf("entry must be set")
	}
	for _, f := range []struct{ name, value string }{
		{"id", e.ID},
		{"client_message_id", e.ClientMessageID},
		{"mesh", e.Mesh},
		{"sender", e.Sender},
		{"lane", e.Lane},
		{"target", e.Target},
	} {
		if f.value == "" {
			return fmt.Errorf("%s must be set", f.name)
		}
		if len(f.value) > maxKey {
			return fmt.Errorf("%s has %d bytes; at most %d", f.name, len(f.value), maxKey)
		}
	}
	if len(e.Priority) > maxKey || len(e.Nonce) > maxKey || len(e.Fingerprint) > maxKey {
		return fmt.Errorf("priority, nonce and fingerprint may have %d bytes each", maxKey)
	}
	return nil
}

// CheckFetch refuses a request without bounds. The error is ErrInvalid.
func CheckFetch(req sdk.FetchRequest) error {
	if req.Lane == "" || req.MaxQueues < 1 || req.MaxRows < 1 {
		return sdk.Errorf(sdk.CodeInvalid, "bad_fetch", "outbox: fetch needs a lane, max_queues and max_rows of at least 1; got %q, %d, %d",
			req.Lane, req.MaxQueues, req.MaxRows)
	}
	return nil
}

// CheckList refuses a page size outside 1 to 500. The error is ErrInvalid.
func CheckList(req sdk.ListRequest) error {
	if req.Limit < 1 || req.Limit > 500 {
		return sdk.Errorf(sdk.CodeInvalid, "bad_limit", "outbox: list limit is %d; it must be 1 to 500", req.Limit)
	}
	return nil
}

// CheckPrune refuses a request without a bound, and one that does not choose in
// exactly one way. The error is ErrInvalid.
func CheckPrune(req sdk.PruneRequest) error {
	if req.Limit < 1 {
		return sdk.Errorf(sdk.CodeInvalid, "bad_limit", "outbox: prune limit is %d; it must be at least 1", req.Limit)
	}
	ways := 0
	for _, chosen := range []bool{!req.Before.IsZero(), req.Label != "", req.All} {
		if chosen {
			ways++
		}
	}
	if ways != 1 {
		return sdk.Errorf(sdk.CodeInvalid, "bad_prune", "outbox: prune chooses by exactly one of before, label and all; got %d", ways)
	}
	return nil
}

// Replay is the answer to an append that finds a row of its id or key.
// fingerprint and key belong to the row that is there.
func Replay(e *sdk.Entry, id string, key sdk.MessageKey, fingerprint []byte, seq int64, row *Row) sdk.OpResult {
	same := key == Key(e) && string(fingerprint) == string(e.Fingerprint)
	return sdk.OpResult{
		Code: sdk.OpExists, ID: id, Seq: seq, State: row.State,
		SameFingerprint: same, BrokerMessageID: row.BrokerMessageID,
	}
}

// Key is what the sender of e calls it.
func Key(e *sdk.Entry) sdk.MessageKey {
	return sdk.MessageKey{Mesh: e.Mesh, Sender: e.Sender, ClientMessageID: e.ClientMessageID}
}
