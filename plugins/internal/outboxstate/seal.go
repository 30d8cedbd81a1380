package outboxstate

import "github.com/meshhost/meshhost/sdk"

// Seal carries out a seal or unseal on a store whose seal is sealed, empty if it
// has none, and returns what it is then.
func Seal(sealed string, op *sdk.Op) (next string, res sdk.OpResult) {
	if op.Kind == sdk.OpUnseal {
		if sealed == "" {
			return "", sdk.OpResult{Code: sdk.OpAlready}
		}
		return "", sdk.OpResult{Code: sdk.OpApplied}
	}
	if sealed != "" {
		return sealed, sdk.OpResult{Code: sdk.OpAlready, Detail: sealed}
	}
	return Shorten(op.Error), sdk.OpResult{Code: sdk.OpApplied}
}

// RefuseSealed says why a sealed store does not carry out op; ok is false when
// it does: facts are taken, and seal and unseal are Seal's.
func RefuseSealed(sealed string, op *sdk.Op) (res sdk.OpResult, ok bool) {
	if sealed == "" {
		return res, false
	}
	switch op.Kind {
	case sdk.OpAccepted, sdk.OpDelivered, sdk.OpSeal, sdk.OpUnseal:
		return res, false
	}
	id := op.ID
	if op.Kind == sdk.OpAppend {
		id = op.Entry.ID
	}
	return sdk.OpResult{Code: sdk.OpSealed, ID: id, Detail: sealed}, true
}

// SealedError is the error of Acquire, Fetch and Import on a sealed store.
func SealedError(sealed string) error {
	return sdk.Errorf(sdk.CodeSealed, "sealed", "outbox: it is sealed: %s", sealed)
}

// NotSealedError is the error of a Prune of all entries of a store in use.
func NotSealedError() error {
	return sdk.Errorf(sdk.CodeConflict, "not_sealed", "outbox: only a sealed outbox gives up all of its rows; seal it first")
}
