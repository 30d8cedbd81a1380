package outboxstate

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// Lane is who may schedule the rows of a lane. Its zero value is a lane that
// nobody ever held.
type Lane struct {
	// Owner is empty when nobody holds the lane.
	Owner       string
	Incarnation string
	// Epoch is the last one granted; it never goes back.
	Epoch int64
	// Expires is in Unix milliseconds of the backend's clock. An expired holder
	// keeps the lane until somebody else asks.
	Expires int64
}

// LaneMemory is how long a lane without rows is remembered after its last lease
// ended. It is far longer than any holder believes that it still has it.
const LaneMemory = 30 * 24 * time.Hour

// maxLease bounds a lease; hosts ask for 15 s.
const maxLease = time.Hour

// CheckAcquire refuses a request that names nobody. The error is ErrInvalid.
func CheckAcquire(req sdk.AcquireRequest) error {
	if req.Lane == "" || req.Owner == "" || req.Incarnation == "" || req.TTL < time.Millisecond {
		return sdk.Errorf(sdk.CodeInvalid, "bad_acquire", "outbox: acquire needs lane, owner, incarnation and a ttl of at least 1ms")
	}
	return nil
}

// Acquire grants or refuses the lane and returns what to store; when the answer
// is Held nothing changed.
func (l Lane) Acquire(req sdk.AcquireRequest, now time.Time) (Lane, sdk.Lease) {
	ms := Millis(now)
	live := l.Live(ms)
	mine := l.Owner == req.Owner
	if live && !mine {
		return l, sdk.Lease{Held: true, HeldBy: l.Owner, RetryIn: time.Duration(l.Expires-ms) * time.Millisecond}
	}
	next := Lane{Owner: req.Owner, Incarnation: req.Incarnation, Epoch: l.Epoch + 1, Expires: Millis(now.Add(min(req.TTL, maxLease)))}
	if mine && l.Incarnation == req.Incarnation {
		next.Epoch = l.Epoch
		return next, sdk.Lease{Epoch: next.Epoch}
	}
	return next, sdk.Lease{Epoch: next.Epoch, Stolen: live}
}

// Live reports whether the lease runs at now, in Unix milliseconds. An end that
// no lease can have was set by a clock that has gone back.
func (l Lane) Live(now int64) bool {
	return l.Owner != "" && now < l.Expires && l.Expires <= now+maxLease.Milliseconds()
}

// Release gives the lane up if the caller still holds it; ok says whether
// anything changed.
func (l Lane) Release(req sdk.ReleaseRequest) (next Lane, ok bool) {
	if l.Owner == "" || l.Owner != req.Owner || l.Incarnation != req.Incarnation || l.Epoch != req.Epoch {
		return l, false
	}
	return Lane{Epoch: l.Epoch}, true
}

// Holds reports whether epoch may schedule the lane: it is the last one granted
// and was not given up. Expiry alone takes nothing away; only a new holder does.
func (l Lane) Holds(epoch int64) bool { return l.Owner != "" && l.Epoch == epoch }

// FencedError is the error of a Fetch whose epoch is no longer the lane's.
func FencedError(lane string, epoch int64) error {
	return sdk.Errorf(sdk.CodeFenced, "fenced", "outbox: epoch %d of lane %s is over: another holder has the lane", epoch, lane)
}
