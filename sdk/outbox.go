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
	// List pages through entries, newest first, that is by seq descending, bodies
	// left out.
	List(ctx context.Context, req ListRequest) (ListPage, error)
	// Stats counts entries and bytes.
	Stats(ctx context.Context, req StatsRequest) (OutboxStats, error)
	// Prune removes entries that the request chooses, at most req.Limit of them,
	// and reports how many went.
	Prune(ctx context.Context, req PruneRequest) (int, error)
	// Scan hands over the chosen entries in the order of seq, page by page, until
	// there are no more, page fails, or ctx ends. An entry that is there all the
	// time and keeps its seq is seen once; one that comes, or gets a new seq,
	// while the scan runs may be seen at its new place too.
	Scan(ctx context.Context, req ScanRequest, page func(ScanPage) error) error
	// Watch tells what others than this process's callers did to the store, until
	// ctx ends or tell fails. The first event is WatchGap. A backend that only
	// one process can use has nothing more to tell.
	Watch(ctx context.Context, tell func(WatchEvent) error) error
	// Import stores entries of another outbox as they are, in order, and returns
	// one result for each: OpStored, OpApplied for an entry that an earlier
	// Import had brought and nothing has changed since, which is replaced,
	// OpExists for any other row of that id or MessageKey, which stays as it is,
	// OpFull or OpTooLarge. An entry keeps its Seq where that is above every seq
	// that its lane ever had and no other row has it; one that is replaced keeps
	// its place otherwise, and any other gets a new seq. Durable and repeatable
	// like Apply. ErrSealed if the store is sealed.
	Import(ctx context.Context, req ImportRequest) ([]OpResult, error)
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
	// the only order there is. Requeue, resend and reroute give a new one, and
	// with it a new place. A backend whose lanes count apart orders rows of the
	// same seq by id.
	Seq int64
}

// OpKind is what an Op does.
type OpKind string

// Append adds a row. Facts (accepted, delivered) are taken from any epoch.
// Schedule (defer, wait, wake, die, expire, resend, reroute) is fenced: it needs
// the lane's current epoch. Cancel, requeue, seal and unseal come from people
// and are not fenced.
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
	// OpResend: accepted -> pending, due at once, with a new seq and without
	// BrokerMessageID and AcceptedAt: the mesh has lost the message. Conflict if
	// the body is gone.
	OpResend OpKind = "resend"
	// OpReroute: live -> pending, due at once, in the lane Op.Entry.Lane with
	// Op.Entry.Nonce and Op.Entry.Body, the only fields of Op.Entry that count,
	// and a new seq there. Already if it is in that lane, whatever its state.
	OpReroute OpKind = "reroute"
	// OpSeal closes the store for good, Op.Error saying why and where its rows
	// are now: from then on Apply answers OpSealed to all ops but facts, seal and
	// unseal, and Acquire, Fetch and Import fail with ErrSealed. Already if it is
	// sealed, with Detail what was said then, which stays. It has no ID.
	OpSeal OpKind = "seal"
	// OpUnseal opens a sealed store again. It has no ID.
	OpUnseal OpKind = "unseal"
)

// Fenced reports whether the op needs the lane's current epoch.
func (k OpKind) Fenced() bool {
	switch k {
	case OpDefer, OpWait, OpWake, OpDie, OpExpire, OpResend, OpReroute:
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
	Entry *Entry // append; of reroute: Lane, Nonce and Body
	ID    string // all but append, wake, seal and unseal
	// Lane and Epoch are the fence of schedule ops.
	Lane   string
	Epoch  int64
	Target string        // wake
	After  time.Duration // defer, wait; at most MaxDelay
	Count  bool          // defer
	Error  string        // defer, wait, die, seal
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
	OpApplied  OpCode = "applied"  // changed; Seq is set by requeue, resend and reroute
	OpAlready  OpCode = "already"  // the row was there already
	OpConflict OpCode = "conflict" // State says what the row is instead
	OpFenced   OpCode = "fenced"   // another holder has the lane
	OpNotFound OpCode = "not_found"
	OpFull     OpCode = "full"      // a limit of the backend; nothing stored
	OpTooLarge OpCode = "too_large" // this entry exceeds a limit; nothing stored
	OpSealed   OpCode = "sealed"    // the store is closed for good; Detail says where its rows are
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
	// Detail is a sentence for people, with full, too_large, conflict and sealed.
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

// StatsRequest chooses what is counted.
type StatsRequest struct {
	// Lane chooses the live rows of one lane; empty: all that is stored.
	Lane string
}

// OutboxStats counts what is stored.
type OutboxStats struct {
	// States counts entries; with StatsRequest.Lane live ones only.
	States map[EntryState]int64
	// Bytes is the sum of the bodies.
	Bytes int64
	// OldestLive is when the live row that is first by seq was enqueued.
	OldestLive time.Time
	// LastNotAfter is the latest NotAfter of the live rows, with
	// StatsRequest.Lane only: from then on the lane has nothing to send.
	LastNotAfter time.Time
	// Sealed says where the rows are if the store is sealed; empty: it is not.
	Sealed string
	// Holders are the owners whose lease of a lane has not run out, each once.
	Holders []string
}

// PruneRequest chooses entries to remove; exactly one of Before, Label and All
// does. Lanes that nobody held for long and that have no rows may go as well.
type PruneRequest struct {
	// Before: records that are finished (delivered, accepted, expired, cancelled,
	// dead) and whose NotAfter is before.
	Before time.Time
	// Label: entries that an Import of that label brought and nothing has changed
	// since.
	Label string
	// All: every entry of a sealed store. ErrConflict if it is not sealed.
	All bool
	// Limit is the most to remove, at least 1.
	Limit int
}

// ScanRequest chooses entries; empty fields choose all.
type ScanRequest struct {
	// After is the Cursor of an earlier page: go on behind it.
	After string
	// Lane and States choose.
	Lane   string
	States []EntryState
	// Unconfirmed chooses accepted rows that still have their body: a report of
	// delivery may follow. It needs Lane, and costs what it returns.
	Unconfirmed bool
	// Bodies is true when the bodies are wanted.
	Bodies bool
}

// ScanPage is some of the entries of a Scan.
type ScanPage struct {
	Entries []Entry
	// Cursor is the place behind the last of Entries.
	Cursor string
}

// ImportRequest brings entries of another outbox.
type ImportRequest struct {
	// Label names the move that they belong to, for PruneRequest.Label.
	Label string
	// Entries are at most 500, in the order of Seq within each lane, in any state
	// and with the body if they still have it.
	Entries []Entry
}

// WatchKind is what a WatchEvent tells.
type WatchKind string

// The kinds of a WatchEvent.
const (
	// WatchGap: anything may have changed, as the watch begins or was
	// interrupted.
	WatchGap WatchKind = "gap"
	// WatchGrew: rows came to the end of the queue (Lane, Target).
	WatchGrew WatchKind = "grew"
	// WatchChanged: rows of the queue (Lane, Target) changed or left it.
	WatchChanged WatchKind = "changed"
	// WatchReleased: Lane is free.
	WatchReleased WatchKind = "released"
)

// WatchEvent tells of a change by another process.
type WatchEvent struct {
	Kind   WatchKind
	Lane   string // all but gap
	Target string // grew, changed
}
