package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// trouble counts the failures of a backend that is up. The log hears of the
// second in a row, since one comes with each crash, which the supervisor tells
// of, and of the end.
type trouble int

func (t *trouble) failed(logger hclog.Logger, what string, err error) {
	if plugin.IsDown(err) {
		return
	}
	if *t++; *t == 2 {
		logger.Warn(what, "error", err)
	}
}

func (t *trouble) ended(logger hclog.Logger, what string) {
	if *t >= 2 {
		logger.Info(what)
	}
	*t = 0
}

// What a Committer does when calls fail.

// failed notes what a failed call means for the ops that it carried. While the
// backend is down longer than downGrace, senders hear so at once.
func (c *Committer) failed(batch []*pending, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
	if !errors.Is(err, sdk.ErrInvalid) { // that is the op's, and told of it
		c.trouble.failed(c.logger, "the outbox can't store or settle messages; the same is tried until it can", err)
	}
	down := plugin.IsDown(err)
	if !down {
		c.downSince = time.Time{}
	} else if c.downSince.IsZero() {
		c.downSince = time.Now()
	}
	for _, p := range batch {
		p.inCall = false
		// A backend that is down or refuses the batch as malformed did nothing.
		p.maybe = p.maybe || !down && !errors.Is(err, sdk.ErrInvalid)
	}
	if !down || !c.downTooLong() {
		return
	}
	for _, ps := range [][]*pending{batch, c.queue} {
		for _, p := range ps {
			if p.isAppend() && !p.maybe && !p.gone {
				p.gone = true
				p.tell(reply{err: c.unavailable()})
			}
		}
	}
}

// isolate applies ops one by one and sets aside those that the backend can't
// stand, so that they hold up nobody else. It returns what is to be repeated.
func (c *Committer) isolate(ctx context.Context, batch []*pending) []*pending {
	type refusal struct {
		p   *pending
		err error
	}
	var again []*pending
	var refused []refusal
	works := false
	for i, p := range batch {
		if !c.stays(p) {
			continue
		}
		err := c.carry(ctx, []*pending{p})
		switch {
		case err == nil:
			works = true
		case errors.Is(err, sdk.ErrInvalid), errors.Is(err, sdk.ErrInternal):
			refused = append(refused, refusal{p, err})
		default: // down, or nobody knows: no time to judge ops
			for _, r := range refused {
				again = append(again, r.p)
			}
			return append(append(again, p), batch[i+1:]...)
		}
	}
	for _, r := range refused {
		// An internal error of every op is the backend's trouble, not an op's.
		if !works && !errors.Is(r.err, sdk.ErrInvalid) {
			again = append(again, r.p)
			continue
		}
		c.refuse(r.p, r.err)
	}
	return again
}

// stays marks an op as carried by the next call, unless nobody waits for it any
// more.
func (c *Committer) stays(p *pending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.inCall = !p.gone
	if p.gone && p.maybe {
		c.doubtful(p.op.Entry)
	}
	return !p.gone
}

// refuse ends an op that the backend answers with an error whenever it comes.
func (c *Committer) refuse(p *pending, err error) {
	c.logger.Error("the outbox can't carry out an op", "op", p.op.Kind, "id", p.op.ID, "error", err)
	if !p.isAppend() {
		p.done(sdk.OpResult{ID: p.op.ID, Detail: err.Error()})
		return
	}
	c.mu.Lock()
	maybe, unknown := p.maybe, c.outcomeUnknown()
	c.mu.Unlock()
	if maybe {
		c.doubtful(p.op.Entry)
		p.tell(reply{err: unknown})
		return
	}
	p.tell(reply{err: sdk.Errorf(sdk.CodeInvalid, "outbox_refused", "the outbox does not take the message: %v", err).
		WithNext("Nothing was stored. This is a defect of the outbox plugin, or of the host.")})
}

// giveUp ends what the stop of the daemon left. Nobody was told "stored"; rows
// whose settlement is lost are sent again.
func (c *Committer) giveUp(batch []*pending, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logger.Warn("outbox ops were not settled before the stop; they will be repeated or sent again",
		"ops", len(batch)+len(c.queue), "error", err)
	for _, ps := range [][]*pending{batch, c.queue} {
		for _, p := range ps {
			switch {
			case !p.isAppend() || p.gone:
			case p.maybe:
				p.tell(reply{err: c.outcomeUnknown()})
			default:
				p.tell(reply{err: errStopping()})
			}
		}
	}
	c.queue, c.bytes = nil, 0
}
