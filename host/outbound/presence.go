package outbound

import "github.com/meshhost/meshhost/sdk"

// onOnline follows the connection. A fresh one forgets the learned rate.
func (l *Lane) onOnline(m mailOnline) {
	l.online = m.online
	if !m.online {
		return
	}
	if m.fresh {
		l.pacer.Forget()
	}
	l.dirty = true
	l.relistAt = l.now()
	for _, q := range l.queues {
		l.enlist(q)
	}
}

// watch remembers that rows wait for a key.
func (l *Lane) watch(target string) {
	if len(l.waiting) >= maxWaitingTargets {
		return // its probe every ten minutes still finds it
	}
	if len(l.waiting) == 0 {
		l.relistAt = l.now().Add(relistEvery)
	}
	l.waiting[target] = struct{}{}
}

// onPeers wakes the queues of peers that are there.
func (l *Lane) onPeers(keys []string) {
	for _, key := range keys {
		if _, ok := l.waiting[key]; !ok {
			continue
		}
		delete(l.waiting, key)
		op := sdk.Op{Kind: sdk.OpWake, Lane: l.name, Epoch: l.leased.epoch, Target: key}
		l.committer.Settle(op, func(res sdk.OpResult) { l.post(mailApplied{op: op, res: res}) })
	}
}
