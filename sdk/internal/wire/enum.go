package wire

import (
	"fmt"

	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

// Enum is a table of words, indexed by the number of a generated enum. Index 0,
// "unspecified", has no word.
type Enum[N ~int32] []string

// Number is the number of a word, 0 if there is none.
func (e Enum[N]) Number(word string) N {
	if word == "" {
		return 0
	}
	for i := 1; i < len(e); i++ {
		if e[i] == word {
			return N(i)
		}
	}
	return 0
}

// Word is the word of a number; an unknown or unspecified one is an error.
func (e Enum[N]) Word(n N) (string, error) {
	if n <= 0 || int(n) >= len(e) {
		return "", fmt.Errorf("unknown %T %d", n, int32(n))
	}
	return e[n], nil
}

// WordOrNone is Word, with "" for unspecified.
func (e Enum[N]) WordOrNone(n N) (string, error) {
	if n == 0 {
		return "", nil
	}
	return e.Word(n)
}

// The tables, in the order of the protos; none is ever written to. The words
// are the constants of package sdk.
var (
	Kinds       = Enum[lifecyclev1.Kind]{"", "outbox", "push_handler", "peer_filter", "rpc_feature"}
	TypeNames   = Enum[lifecyclev1.TypeName]{"", "string", "number", "bool", "list", "map", "object", "duration", "bytes", "path", "secret", "expr"}
	Severities  = Enum[lifecyclev1.Severity]{"", "error", "warning"}
	EntryStates = Enum[outboxv1.EntryState]{"", "pending", "waiting", "accepted", "delivered", "dead", "expired", "cancelled"}
	OpKinds     = Enum[outboxv1.OpKind]{"", "append", "accepted", "delivered", "defer", "wait", "wake", "die", "expire", "cancel", "requeue", "resend", "reroute", "seal", "unseal"}
	OpCodes     = Enum[outboxv1.OpCode]{"", "stored", "exists", "applied", "already", "conflict", "fenced", "not_found", "full", "too_large", "sealed"}
	WatchKinds  = Enum[outboxv1.WatchKind]{"", "gap", "grew", "changed", "released"}
	PushKinds   = Enum[pushv1.PushKind]{"", "direct", "broadcast", "system", "webhook"}
	Decisions   = Enum[pushv1.Decision]{"", "ack", "retry", "drop"}
)
