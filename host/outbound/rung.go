package outbound

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// askSteps are the first asks, by the time since the broker accepted.
var askSteps = [...]time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// askAfter is the first step later than age.
func askAfter(age time.Duration) time.Duration {
	for _, s := range askSteps {
		if s > age {
			return s
		}
	}
	last := askSteps[len(askSteps)-1]
	return last + askEvery*((age-last)/askEvery+1)
}

// askMissed is the last step that age has reached, or the first of all.
func askMissed(age time.Duration) time.Duration {
	last := askSteps[len(askSteps)-1]
	if age >= last {
		return last + askEvery*((age-last)/askEvery)
	}
	missed := askSteps[0]
	for _, s := range askSteps {
		if s <= age {
			missed = s
		}
	}
	return missed
}

// rung is an accepted row of which a report of delivery may follow.
type rung struct {
	id, clientMessageID, target, brokerMessageID string
	// acceptedAt is by the wall clock; the step that the row is at follows from
	// it, so that asking writes nothing.
	acceptedAt time.Time
	due        time.Time
	turn       int // among those that are due at the same time
	at         int // place in the heap; -1 while it is asked for or settled
	// elsewhere is the outbox of a row that was accepted before its mesh moved to
	// the lane's; nil: it is in the lane's.
	elsewhere *box
}

func rungOf(e *sdk.Entry) *rung {
	return &rung{
		id: e.ID, clientMessageID: e.ClientMessageID, target: e.Target, brokerMessageID: e.BrokerMessageID,
		acceptedAt: e.AcceptedAt, at: -1,
	}
}

func (r *rung) age(now time.Time) time.Duration { return max(now.Sub(r.acceptedAt), 0) }

// rungs is a heap by due time.
type rungs []*rung

func (h rungs) Len() int { return len(h) }
func (h rungs) Less(i, j int) bool {
	if c := h[i].due.Compare(h[j].due); c != 0 {
		return c < 0
	}
	return h[i].turn < h[j].turn
}

func (h rungs) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *rungs) Push(x any) {
	r := x.(*rung)
	r.at = len(*h)
	*h = append(*h, r)
}

func (h *rungs) Pop() any {
	old := *h
	n := len(old) - 1
	r := old[n]
	old[n] = nil
	*h, r.at = old[:n], -1
	return r
}
