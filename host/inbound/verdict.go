package inbound

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// A retry without After waits from minRetry doubling to maxRetry, with jitter; one with After at most maxAfter.
	minRetry = time.Second
	maxRetry = 5 * time.Minute
	maxAfter = 24 * time.Hour
	// maxReason bounds the reason of a dead letter, in bytes.
	maxReason = 1024
)

// verdict is what became of a call.
type verdict struct {
	outcomes []sdk.Outcome // one for each item; nil: they stay as they are
	down     bool          // the handler is unavailable
	failed   bool          // the call as a whole failed
}

// lost is the decision for an item whose push can't be had any more.
const lost sdk.Decision = "lost"

// settle carries out a verdict: in memory at once, in the journal with the committer's next transaction.
func (f *feeder) settle(taken []*lane, items []item, v verdict) {
	now := time.Now()
	marks := make([]store.Mark, 0, len(items))
	f.mu.Lock()
	f.work.settle(taken, func(i int) (item, bool) {
		it := items[i]
		if v.outcomes == nil {
			it.suspect = it.suspect || v.failed // a handler that is down tells nothing of an item: no suspicion ends by it
			return it, true
		}
		it.suspect = v.failed
		m, stays := f.outcome(&it, v.outcomes[i], now)
		marks = append(marks, m)
		if !stays && it.push != nil {
			f.r.cached.Add(int64(-it.size))
		}
		return it, stays
	})
	f.mu.Unlock()
	f.r.mark(marks)
	for i := range v.outcomes {
		if o := &v.outcomes[i]; o.Decision == sdk.Drop && o.Reason != "" {
			f.r.log.Info("inbound: a push handler dropped a push", "handler", f.name, "seq", items[i].seq, "reason", clipReason(o.Reason))
		}
	}
	for i := range marks {
		if marks[i].Kind == store.MarkDead {
			f.dead(&items[i], &marks[i])
		}
	}
}

// outcome turns a handler's answer for it into a mark; stays is true while the item remains open.
func (f *feeder) outcome(it *item, o sdk.Outcome, now time.Time) (m store.Mark, stays bool) {
	m = store.Mark{Kind: store.MarkDone, Seq: it.seq, Handler: f.id}
	o.Reason = clipReason(o.Reason)
	switch o.Decision {
	case sdk.Ack, sdk.Drop:
		return m, false
	case lost:
		m.Kind, m.Attempts, m.Reason = store.MarkDead, it.attempts, o.Reason
		return m, false
	}
	if o.Decision != sdk.Retry {
		o.Reason = fmt.Sprintf("the handler answered with the unknown decision %q", o.Decision)
	}
	it.attempts++
	m.Attempts = it.attempts
	if it.attempts >= f.r.opts.MaxAttempts {
		m.Kind, m.Reason = store.MarkDead, o.Reason
		return m, false
	}
	wait := min(o.After, maxAfter)
	if wait <= 0 {
		wait = jitter(min(minRetry<<min(it.attempts-1, 16), maxRetry))
	}
	it.due = now.Add(wait)
	m.Kind, m.Due = store.MarkRetry, it.due
	return m, true
}

func clipReason(s string) string {
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	return s
}

func (f *feeder) dead(it *item, m *store.Mark) {
	f.r.stats.dead.Add(1)
	f.r.log.Error("inbound: a push handler gave up a push; it is kept as a dead letter", "handler", f.name, "seq", m.Seq, "attempts", m.Attempts, "reason", m.Reason)
	data := map[string]any{"handler": f.name, "seq": m.Seq, "attempts": m.Attempts, "reason": m.Reason}
	mesh := ""
	if it.push != nil {
		data["id"], mesh = it.push.ID, it.push.Mesh
	}
	f.r.publish("dead_letter", mesh, data)
}

// jitter returns a duration between d/2 and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
