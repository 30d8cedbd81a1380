package sdk

import (
	"context"
	"time"
)

// Outbox keeps messages from the moment that a sender was told "accepted" until
// the mesh has taken them (ARCHITECTURE 5). The state machine is the host's;
// a backend stores, orders and compares. All methods may be called concurrently.
//
// A queue is the live rows (pending or waiting) of one (lane, target) in the
// order of seq. Only the head of a queue is sent, so the due time and the
// waiting state of a queue are those of its head.
type Outbox interface {
	// Apply carries out ops one by one, each atomic by itself, and returns one
	// result for each, in order. A result other than an error of the call means
	// that the outcome is durable, if the backend is. An error of the call
	// means that nothing is known: the host repeats the same ops, so each op
	// must be idempotent: a repeated append of the same id is OpExists with
	// the same fingerprint, a repeated change of state OpAlready.
	Apply(ctx context.Context, ops []Op) ([]OpResult, error)
	// Acquire takes or renews the right to send a lane. The same incarnation
	// renews and keeps its epoch; a lane that is free, expired, or held by
	// another incarnation of the same owner is granted with epoch + 1; else the
	// answer is Held.
	Acquire(ctx context.Context, req AcquireRequest) (Lease, error)
	// Release gives a lane up if the caller still holds that epoch; otherwise
	// it does nothing.
	Release(ctx context.Context, req ReleaseRequest) error
	// Fetch returns due queues of a lane, the longest due first, each with its
	// first rows in seq order. Its cost depends on what it returns, not on what
	// is parked. ErrFenced if the epoch is no longer the lane's.
	Fetch(ctx context.Context, req FetchRequest) (FetchResult, error)
	// Lookup finds entries by the sender's own key; an entry that is not there
	// is nil at its place. Bodies are left out.
	Lookup(ctx context.Context, keys []MessageKey) ([]*Entry, error)
	// Get returns entries by id, whole; one that is not there is nil.
	Get(ctx context.Context, ids []string) ([]*Entry, error)
	// List pages through entries, newest first, bodies left out.
	List(ctx context.Context, req ListRequest) (ListPage, error)
	// Stats counts entries and bytes.
	Stats(ctx context.Context) (OutboxStats, error)
	// Prune removes records that are finished and older than the request says,
	// at most req.Limit of them, and reports how many went.
	Prune(ctx context.Context, req PruneRequest) (int, error)
}

// EntryState is the state of a row.
type EntryState string

// The states of a row. In flight is not one: it is the host's memory over a
// pending row.
const (
	StatePending   EntryState = "pending"
	StateWaiting   EntryState = "waiting" // no connected peer
	StateAccepted  EntryState = "accepted"
	StateDelivered EntryState = "delivered"
	StateDead      EntryState = "dead"
	StateExpired   EntryState = "expired"
	StateCancelled EntryState = "cancelled"
)

// Live reports whether rows of that state are part of a queue.
func (s EntryState) Live() bool { return s == StatePending || s == StateWaiting }

// Entry is one message in the outbox. Times are wall-clock, whole milliseconds;
// the zero time means "not yet".
type Entry struct {
	// ID is a UUIDv7 made by the host.
	ID string
	// ClientMessageID is unique per Mesh and Sender; it is what the peer sees.
	ClientMessageID string
	// Fingerprint identifies what was typed (PROTOCOL 4.9), 32 bytes.
	Fingerprint []byte
	// Mesh is the mesh's name in mesh.hcl.
	Mesh string
	// Sender says who asked: "member" or a session's id.
	Sender string
	// Lane is where it leaves: mesh and identity.
	Lane string
	// Target is the wire's targetSpec (PROTOCOL 4.3).
	Target string
	// Priority is now, next or low.
	Priority string
	// Nonce is the wire's nonce, base64.
	Nonce string
	// Body is the wire's ciphertext, sealed at rest by the host; opaque here.
	// It is empty once it is no longer needed.
	Body []byte

	EnqueuedAt time.Time
	// NotAfter is the moment from which the message is worth nothing.
	NotAfter time.Time
	// Attempts counts attempts that the mesh answered with a refusal.
	Attempts int
	// DueAt is when the row may be tried next, by the backend's clock.
	DueAt time.Time
	State EntryState
	// LastError is the last refusal, for people.
	LastError       string
	BrokerMessageID string
	AcceptedAt      time.Time
	DeliveredAt     time.Time
	// Seq is given by the backend in the commit, strictly increasing per lane;
	// the only order there is.
	Seq int64
}

// OpKind is what an Op does.
type OpKind string

// Append adds a row. Facts (accepted, delivered) are taken from any epoch.
// Schedule (defer, wait, wake, die, expire) is fenced: it needs the lane's
// current epoch. Cancel and requeue come from people and are not fenced.
const (
	// OpAppend stores Op.Entry as pending and due at once.
	// Results: OpStored, OpExists, OpFull, OpTooLarge.
	OpAppend OpKind = "append"
	// OpAccepted: the broker's ack. Live -> accepted. On a cancelled, dead or
	// expired row it records BrokerMessageID and At and leaves the state:
	// OpConflict. Op.Final says that no report of delivery can follow
	// (multicast): the body goes.
	OpAccepted OpKind = "accepted"
	// OpDelivered: accepted -> delivered; the body goes.
	OpDelivered OpKind = "delivered"
	// OpDefer: live -> pending, due in Op.After; Op.Count adds an attempt.
	OpDefer OpKind = "defer"
	// OpWait: live -> waiting, due for a probe in Op.After.
	OpWait OpKind = "wait"
	// OpWake: every waiting row of (Op.Lane, Op.Target) -> pending, due now.
	// OpApplied, or OpAlready if none waited. It has no ID.
	OpWake OpKind = "wake"
	// OpDie: live -> dead; the body stays until pruned.
	OpDie OpKind = "die"
	// OpExpire: live -> expired; the body goes.
	OpExpire OpKind = "expire"
	// OpCancel: pending, waiting, dead or expired -> cancelled; the body stays
	// so that it can be requeued, if it was still there.
	OpCancel OpKind = "cancel"
	// OpRequeue: dead, expired or cancelled -> pending with the same row and
	// client_message_id, attempts 0, a new seq, NotAfter as given. Conflict if
	// the body is gone.
	OpRequeue OpKind = "requeue"
)

// Fenced reports whether the op needs the lane's current epoch.
func (k OpKind) Fenced() bool {
	switch k {
	case OpDefer, OpWait, OpWake, OpDie, OpExpire:
		return true
	default:
		return false
	}
}

// MaxDelay is the most that Op.After asks for; a backend cuts what is longer. A
// due time that is farther ahead was set by a clock that has gone back since,
// and counts as due: no message may stay behind for that.
const MaxDelay = time.Hour

// Op is one change for Apply. Which fields count is said at the OpKind.
type Op struct {
	Kind  OpKind
	Entry *Entry // append
	ID    string // all but append and wake
	// Lane and Epoch are the fence of schedule ops.
	Lane   string
	Epoch  int64
	Target string        // wake
	After  time.Duration // defer, wait; at most MaxDelay
	Count  bool          // defer
	Error  string        // defer, wait, die
	// BrokerMessageID and At belong to accepted; At also to delivered.
	BrokerMessageID string
	At              time.Time
	Final           bool      // accepted
	NotAfter        time.Time // requeue
}

// OpCode is the outcome of an Op.
type OpCode string

// The outcomes of an Op.
const (
	OpStored   OpCode = "stored"   // append: Seq is set
	OpExists   OpCode = "exists"   // append: State, SameFingerprint, BrokerMessageID, ID, Seq of the row that is there
	OpApplied  OpCode = "applied"  // changed; Seq is set by requeue
	OpAlready  OpCode = "already"  // the row was there already
	OpConflict OpCode = "conflict" // State says what the row is instead
	OpFenced   OpCode = "fenced"   // another holder has the lane
	OpNotFound OpCode = "not_found"
	OpFull     OpCode = "full"      // a limit of the backend; nothing stored
	OpTooLarge OpCode = "too_large" // this entry exceeds a limit; nothing stored
)

// OpResult is the outcome of one Op.
type OpResult struct {
	Code OpCode
	Seq  int64
	// Prev, with OpStored, is the seq of the live row before this one in its
	// queue; 0 if this one is the head. By it the host knows whether what it
	// has in memory is the whole queue.
	Prev            int64
	ID              string
	State           EntryState
	SameFingerprint bool
	BrokerMessageID string
	// Detail is a sentence for people, with full, too_large and conflict.
	Detail string
}

// AcquireRequest asks for a lane.
type AcquireRequest struct {
	Lane string
	// Owner is the installation, Incarnation one run of it.
	Owner       string
	Incarnation string
	TTL         time.Duration
}

// Lease is the answer to Acquire.
type Lease struct {
	// Held is true when somebody else has the lane; then HeldBy says who and
	// RetryIn when to ask again. Otherwise Epoch is the caller's.
	Held    bool
	Epoch   int64
	HeldBy  string
	RetryIn time.Duration
	// Stolen is true when the epoch was taken from another live incarnation of
	// the same owner.
	Stolen bool
}

// ReleaseRequest gives a lane up.
type ReleaseRequest struct {
	Lane        string
	Owner       string
	Incarnation string
	Epoch       int64
}

// FetchRequest asks for work of a lane.
type FetchRequest struct {
	Lane  string
	Epoch int64
	// MaxQueues and MaxRows bound the answer; MaxRows is per call, and each
	// queue returned has at least its head.
	MaxQueues int
	MaxRows   int
	// Held are targets that the host has work of already; they are left out.
	Held []string
}

// FetchResult is work of a lane.
type FetchResult struct {
	Queues []Queue
	// NextDue is the time until the earliest head that is not due yet, held
	// targets left out; negative if there is none.
	NextDue time.Duration
	// More is true when due queues were left out by the bounds.
	More bool
}

// Queue is the first rows of one queue in seq order; the first is its head.
type Queue struct {
	Target string
	Rows   []Entry
	// More is true when the queue has further rows.
	More bool
}

// MessageKey finds an entry by what its sender chose.
type MessageKey struct {
	Mesh            string
	Sender          string
	ClientMessageID string
}

// ListRequest pages through entries.
type ListRequest struct {
	// States chooses; empty: all.
	States []EntryState
	// Mesh and Target choose where not empty.
	Mesh   string
	Target string
	// Limit is 1 to 500.
	Limit int
	// Before is the Next of the page before; empty: from the newest.
	Before string
}

// ListPage is one page.
type ListPage struct {
	Entries []Entry
	// Next goes into ListRequest.Before for the next page; empty at the end.
	Next string
}

// OutboxStats counts what is stored.
type OutboxStats struct {
	States map[EntryState]int64
	// Bytes is the sum of the bodies.
	Bytes int64
	// OldestLive is when the oldest live row was enqueued.
	OldestLive time.Time
}

// PruneRequest says which finished records may go: delivered, accepted,
// expired, cancelled and dead rows whose NotAfter is before Before.
type PruneRequest struct {
	Before time.Time
	Limit  int
}
