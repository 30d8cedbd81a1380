package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// fillRoom is the room in memory that makes the next scan worth it.
	fillRoom = 500
	// A scan that failed is repeated after fillRetry, doubling to fillRetryMax.
	fillRetry    = time.Second
	fillRetryMax = time.Minute
	// sweepEvery is how often the backend is looked through for rows that came
	// by another host's ack after the scan had passed them.
	sweepEvery = time.Hour
)

// fill is how far the ladder is with the rows that only the backend knows. The
// backend is gone through in passes, each as memory has room.
type fill struct {
	// more is true when the backend may have rows that memory lacks; missed when
	// the pass under way may have left some out.
	more, missed bool
	// first is true for the pass that follows a new lease: the steps that went by
	// were nobody's, so its rows are asked for at once.
	first    bool
	scanning bool
	cursor   string
	gen      int // of the lease; a scan of an earlier one is thrown away
	at       time.Time
	pause    time.Duration
	sweepAt  time.Time
	trouble  trouble
}

// errEnough ends a scan: there is no more room, or another lease.
var errEnough = errors.New("enough")

// scan starts to fill memory if there is room and need. Called with mu held.
func (d *ladder) scan(ctx context.Context, now time.Time) {
	f := &d.fill
	if !f.more && !f.sweepAt.IsZero() && !now.Before(f.sweepAt) {
		f.more = true
	}
	if !f.more || f.scanning || !d.holds(now) || now.Before(f.at) || len(d.rows) > maxLadderRows-fillRoom {
		return
	}
	f.scanning = true
	if f.cursor == "" { // a pass begins
		f.missed = false
	}
	gen, req := f.gen, sdk.ScanRequest{After: f.cursor, Lane: d.lane, Unconfirmed: true}
	d.calls.Go(func() {
		enough := false
		err := d.outbox.Scan(ctx, req, func(p sdk.ScanPage) error {
			if enough = !d.load(&p, gen); enough {
				return errEnough
			}
			return nil
		})
		if enough {
			err = errEnough
		}
		d.scanned(err, gen)
	})
}

// load takes a page; false if there is no more room.
func (d *ladder) load(p *sdk.ScanPage, gen int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if gen != d.fill.gen {
		return false
	}
	now := d.now()
	for i := range p.Entries {
		e := &p.Entries[i]
		r := rungOf(e)
		switch {
		case e.State != sdk.StateAccepted || e.Lane != d.lane || isMulticast(e.Target) || e.BrokerMessageID == "" || d.rows[e.ID] != nil:
			continue
		case !d.fill.first && (r.age(now) >= resendWithin || d.resent[e.ID] >= maxResends):
			continue // it was asked for in the first pass, and may be unknown for good
		case len(d.rows) >= maxLadderRows:
			return false // the cursor stays before this page: what is here already is known
		}
		d.rows[r.id] = r
		if d.fill.first {
			d.list(r, askMissed(r.age(now)))
		} else {
			d.list(r, askAfter(r.age(now)))
		}
	}
	d.fill.cursor = p.Cursor
	return true
}

// scanned notes how a scan ended.
func (d *ladder) scanned(err error, gen int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, now := &d.fill, d.now()
	f.scanning = false
	defer signal(d.wake)
	switch {
	case gen != f.gen || err == errEnough:
	case err != nil:
		f.pause = min(max(2*f.pause, fillRetry), fillRetryMax)
		f.at = now.Add(f.pause)
		d.logger.Debug("scan for unconfirmed messages failed", "lane", d.lane, "error", err)
		f.trouble.failed(d.logger, "the outbox does not tell which messages still lack a report of delivery", err)
	default:
		f.trouble.ended(d.logger, "the outbox tells again which messages still lack a report of delivery")
		f.more, f.missed, f.first, f.cursor, f.pause = f.missed, false, false, "", 0
		f.sweepAt = now.Add(sweepEvery)
	}
}

// sooner is the earlier one of a wait and what the fill waits for. Called with
// mu held.
func (d *ladder) sooner(wait time.Duration, ok bool, now time.Time) (time.Duration, bool) {
	f := &d.fill
	if f.scanning || !d.holds(now) {
		return wait, ok
	}
	at := f.sweepAt
	if f.more {
		at = f.at
	}
	if at.IsZero() || !at.After(now) { // room wakes us
		return wait, ok
	}
	if d := at.Sub(now); !ok || d < wait {
		return d, true
	}
	return wait, ok
}
