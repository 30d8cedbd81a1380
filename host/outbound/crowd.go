package outbound

import (
	"context"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

// crowd are appends whose caller waits for all of them at once, whatever their
// number.
type crowd struct {
	c  *Committer
	ps []pending

	mu      sync.Mutex
	replies []reply
	told    []bool
	left    int           // those without a reply
	all     chan struct{} // closed when left is 0
}

// appendAll hands entries over; they reach the backend in their order. After one
// that is refused here none follows: it would pass it. wait has the outcomes.
func (c *Committer) appendAll(entries []*sdk.Entry) *crowd {
	g := &crowd{
		c: c, ps: make([]pending, len(entries)), replies: make([]reply, len(entries)),
		told: make([]bool, len(entries)), left: len(entries), all: make(chan struct{}),
	}
	if len(entries) == 0 {
		close(g.all)
		return g
	}
	n, err := c.addAll(g, entries)
	for ; err != nil && n < len(entries); n++ {
		g.tell(n, reply{err: err})
	}
	return g
}

// addAll returns how many entries found room.
func (c *Committer) addAll(g *crowd, entries []*sdk.Entry) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer signal(c.wake)
	for i, e := range entries {
		p := &g.ps[i]
		*p = pending{op: sdk.Op{Kind: sdk.OpAppend, Entry: e}, size: len(e.Body) + len(e.Target) + 512, crowd: g, at: i}
		if err := c.enqueue(p); err != nil {
			return i, err
		}
	}
	return len(entries), nil
}

// tell hands out the outcome of the i-th entry; only the first word counts.
func (g *crowd) tell(i int, r reply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told[i] {
		return
	}
	g.told[i], g.replies[i] = true, r
	if g.left--; g.left == 0 {
		close(g.all)
	}
}

// wait returns what became of the entries, in their order. When ctx ends first,
// the error's Reason says what is known of those without an answer.
func (g *crowd) wait(ctx context.Context) []reply {
	if ackBeforeStore {
		for i := range g.ps {
			g.tell(i, reply{res: sdk.OpResult{Code: sdk.OpStored, ID: g.ps[i].op.Entry.ID}})
		}
	}
	select {
	case <-g.all:
		return g.replies
	case <-ctx.Done():
	}
	for i := range g.ps {
		g.mu.Lock()
		told := g.told[i]
		g.mu.Unlock()
		if !told {
			g.tell(i, reply{err: g.c.leave(&g.ps[i])}) // unless it came at the last moment
		}
	}
	<-g.all
	return g.replies
}
