package outbound

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// probeEvery is how often a message for an absent peer is tried at most.
	probeEvery = 10 * time.Minute
	// probeSpace is the time between any two probes, on average: they share the
	// member's rate (1/s, PROTOCOL 1.7) with what can be delivered.
	probeSpace = 6 * time.Second
	// maxProbes bounds the probes in memory; others are put off.
	maxProbes = 64
	// probeRank is the last of Lane.ready.
	probeRank = 3
	// relistEvery is how often the peers are listed while something waits.
	relistEvery = time.Minute
	// maxWaitingTargets bounds the targets whose coming a lane watches for.
	maxWaitingTargets = 10000
	seedPage          = 500
)

// onOnline follows the connection. A fresh one forgets the learned rate.
func (l *Lane) onOnline(m mailOnline) {
	was := l.online
	l.online = m.online
	l.ladder.setOnline(m.online)
	if !m.online || was {
		return
	}
	if m.fresh {
		l.pacer.Forget()
	}
	l.holdTo = time.Time{}
	l.dirty = true
	l.relistAt, l.helloAt, l.helloWall = l.now(), l.now(), l.wall()
	if !l.leased.valid(l.now()) {
		l.leased.nextAt = time.Time{}
	}
}

// absent is the head of a queue that waits for its peer.
type absent struct{ target, id, clientMessageID string }

// watch remembers that rows wait for a key.
func (l *Lane) watch(target, id, clientMessageID string) {
	if len(l.waiting) >= maxWaitingTargets {
		return // its probe every ten minutes still finds it
	}
	if len(l.waiting) == 0 {
		l.relistAt = l.now().Add(relistEvery)
	}
	l.waiting[target] = absent{target, id, clientMessageID}
}

// probeIn is the time until a queue without a peer is tried again.
func (l *Lane) probeIn() time.Duration {
	return min(max(probeEvery, time.Duration(len(l.waiting))*probeSpace), sdk.MaxDelay)
}

// putOff leaves a queue whose probe is due in the backend. Many are due at once
// after a time offline: they are spread.
func (l *Lane) putOff(q *queue, head *sdk.Entry) {
	l.watch(q.target, head.ID, head.ClientMessageID)
	after := time.Duration(l.jitter() * float64(l.probeIn()))
	l.park(q, rowOf(head, "", ""), sdk.Op{Kind: sdk.OpWait, After: after, Error: head.LastError})
}

// onPeers wakes the queues of peers that are there. Without the lease nothing
// can be woken; the list that follows the lease does it.
func (l *Lane) onPeers(keys []string) {
	if l.leased.epoch == 0 || l.draining {
		return
	}
	for _, key := range keys {
		head, ok := l.waiting[key]
		if !ok {
			continue
		}
		delete(l.waiting, key)
		op := sdk.Op{Kind: sdk.OpWake, Lane: l.name, Epoch: l.leased.epoch, Target: key}
		_ = l.committer.Settle(op, func(res sdk.OpResult) { l.post(mailWoken{head, op.Epoch, res}) })
	}
}

// cameBack gives a queue in memory whose peer is there the rank of its priority.
func (l *Lane) cameBack(target string) {
	if q := l.queues[target]; q != nil {
		for _, r := range q.rows {
			l.endProbe(q, r)
		}
		l.enlist(q)
	}
}

// endProbe takes a queue whose head r is no probe any more out of the list of
// those, which is short; enlist finds its new place.
func (l *Lane) endProbe(q *queue, r *row) {
	if !r.probe {
		return
	}
	r.probe = false
	l.probes--
	if q.ready {
		l.ready[probeRank].drop(q)
		q.ready = false
	}
}

func (l *Lane) onWoken(m mailWoken) {
	switch m.res.Code {
	case sdk.OpApplied:
		l.changed(&change{
			ID: m.id, ClientMessageID: m.clientMessageID, Target: m.target, State: sdk.StatePending,
			Detail: "the peer is there", mesh: l.mesh, hop: HopWoken,
		})
		l.cameBack(m.target)
		l.onGrew(m.target)
	case sdk.OpFenced:
		l.fenced(m.epoch)
		l.watch(m.target, m.id, m.clientMessageID)
	}
}

// seed asks, once per lease, for whom rows of an earlier run or of another
// holder wait.
func (l *Lane) seed(ctx context.Context) {
	if !l.reseed || l.seeding {
		return
	}
	l.reseed, l.seeding = false, true
	l.calls.Go(func() {
		req := sdk.ListRequest{States: []sdk.EntryState{sdk.StateWaiting}, Mesh: l.mesh, Limit: seedPage}
		for seen := 0; ; {
			page, err := l.outbox.List(ctx, req)
			if err != nil {
				if !pause(ctx, time.Second) {
					return
				}
				continue
			}
			var heads []absent
			for i := range page.Entries {
				if e := &page.Entries[i]; e.Lane == l.name {
					heads = append(heads, absent{e.Target, e.ID, e.ClientMessageID})
				}
			}
			seen += len(page.Entries)
			last := page.Next == "" || len(page.Entries) == 0 || seen >= maxWaitingTargets
			l.post(mailWaiting{heads, last})
			if last {
				return
			}
			req.Before = page.Next
		}
	})
}

func (l *Lane) onWaiting(m mailWaiting) {
	for _, h := range m.heads {
		l.watch(h.target, h.id, h.clientMessageID)
		l.relistAt = l.now()
	}
	if m.last {
		l.seeding = false
	}
}
