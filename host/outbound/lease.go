package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// Lease times (ARCHITECTURE 5). The holder stops a second early by its own
// monotonic clock, so two holders never overlap.
const (
	leaseTTL    = 15 * time.Second
	leaseRenew  = 5 * time.Second
	leaseMargin = time.Second
	leaseRetry  = 250 * time.Millisecond
	// Two steals within cloneWindow mean that two daemons run on copies of one
	// data directory.
	cloneWindow = 5 * time.Minute
)

type leaseOptions struct {
	owner       string
	incarnation string
}

// leased is what a lane knows of its right to send.
type leased struct {
	// epoch is 0 when none was granted or the last one is known to be over:
	// what is in memory then is of no use.
	epoch int64
	until time.Time // by our monotonic clock, margin taken off
	// wall is the same by the wall clock, as the monotonic one may stand still while
	// the machine is suspended.
	wall    time.Time
	nextAt  time.Time // when to ask next; zero: at once
	asking  bool
	holder  string // who has the lane, if another
	stolen  []time.Time
	stopped bool
}

func (l *leased) valid(now time.Time) bool { return !l.until.IsZero() && now.Before(l.until) }

// slept ends a lease that ran out by the wall clock alone: the machine was
// suspended, or its clock was set ahead. It is asked for at once; the same epoch
// means that nobody had the lane meanwhile.
func (l *leased) slept(now, wall time.Time) {
	if l.valid(now) && wall.After(l.wall) {
		l.until, l.nextAt = time.Time{}, time.Time{}
	}
}

// lost forgets the lease and asks anew.
func (l *leased) lost() { l.epoch, l.until, l.nextAt = 0, time.Time{}, time.Time{} }

// failed forgets the lease if err says that it is gone.
func (l *leased) failed(err error) {
	if errors.Is(err, sdk.ErrFenced) {
		l.lost()
	}
}

// renew asks for the lease when it is time.
func (l *Lane) renew(ctx context.Context, now time.Time) {
	ls := &l.leased
	if ls.asking || ls.stopped || !l.online || now.Before(ls.nextAt) {
		return
	}
	ls.asking = true
	wall := l.wall()
	req := sdk.AcquireRequest{Lane: l.name, Owner: l.lease.owner, Incarnation: l.lease.incarnation, TTL: leaseTTL}
	l.calls.Go(func() {
		res, err := l.outbox.Acquire(ctx, req)
		if err == nil && !res.Held && res.Epoch <= 0 {
			err = sdk.Errorf(sdk.CodeInternal, "bad_reply", "the outbox granted the lane with epoch %d", res.Epoch)
		}
		l.post(mailLease{res, err, now, wall})
	})
}

func (l *Lane) onLease(m mailLease) {
	ls := &l.leased
	ls.asking = false
	now := l.now()
	if m.err != nil {
		ls.nextAt = now.Add(leaseRetry)
		l.logger.Debug("lease not renewed", "lane", l.name, "error", m.err)
		l.unleased.failed(l.logger, "the outbox does not let messages be sent", m.err)
		return
	}
	l.unleased.ended(l.logger, "the outbox lets messages be sent: it works again")
	switch {
	case m.res.Held:
		ls.epoch, ls.until = 0, time.Time{}
		ls.nextAt = now.Add(min(max(m.res.RetryIn, leaseRetry), leaseTTL))
		if ls.holder != m.res.HeldBy {
			ls.holder = m.res.HeldBy
			l.logger.Info("another host sends this lane", "lane", l.name, "holder", m.res.HeldBy, "retry_in", m.res.RetryIn.String())
		}
	default:
		ls.holder = ""
		if m.res.Stolen && l.cloned(now) {
			return
		}
		if m.res.Epoch != ls.epoch {
			ls.epoch = m.res.Epoch
			l.stale()
			l.reseed = true
		}
		ls.until, ls.wall = m.at.Add(leaseTTL-leaseMargin), m.wall.Add(leaseTTL-leaseMargin)
		ls.nextAt = m.at.Add(leaseRenew)
		if !ls.valid(now) { // the answer took longer than the lease
			ls.nextAt = now
		}
	}
}

// cloned notes a steal and stops the lane at the second one in cloneWindow.
func (l *Lane) cloned(now time.Time) bool {
	ls := &l.leased
	ls.stolen = append(ls.stolen, now)
	for len(ls.stolen) > 0 && now.Sub(ls.stolen[0]) > cloneWindow {
		ls.stolen = ls.stolen[1:]
	}
	if len(ls.stolen) < 2 {
		return false
	}
	ls.stopped, ls.epoch, ls.until = true, 0, time.Time{}
	l.logger.Error("two daemons share one identity and steal this lane from each other: data_dir was copied; "+
		"stop one of them, delete its data_dir and start it again", "lane", l.name, "owner", l.lease.owner)
	return true
}

// release gives the lease up at the stop, so that another host need not wait.
func (l *Lane) release(ctx context.Context) {
	if l.leased.until.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := l.outbox.Release(ctx, sdk.ReleaseRequest{
		Lane: l.name, Owner: l.lease.owner, Incarnation: l.lease.incarnation, Epoch: l.leased.epoch,
	})
	if err != nil {
		l.logger.Debug("lease not released; it runs out by itself", "lane", l.name, "error", err)
	}
}
