package outbound

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// What the answers to the ladder's asks change.

// resentDetail is what the event of a message says that goes again.
const resentDetail = "resent: the broker no longer knows the message"

// delivered records that the recipient has acknowledged a row. It is a fact:
// whoever has the lane.
func (d *ladder) delivered(ctx context.Context, r *rung, at time.Time) {
	op := sdk.Op{Kind: sdk.OpDelivered, ID: r.id, At: at}
	d.settle(ctx, r, op, func(res sdk.OpResult) bool {
		switch res.Code {
		case sdk.OpApplied:
			d.counts.Delivered.Add(1)
			d.changed(d.change(r, HopDelivered, sdk.StateDelivered, "delivered"))
		case sdk.OpAlready, sdk.OpConflict, sdk.OpNotFound:
			d.failed(r.id, nil) // another host was quicker, or a person
		default:
			return false
		}
		return true
	})
}

// unknown takes that the broker no longer has a row. Soon enough after its ack
// the message goes again, with the same client_message_id.
func (d *ladder) unknown(ctx context.Context, r *rung) {
	if r.age(d.now()) >= resendWithin || r.elsewhere != nil {
		d.unlearnable(r)
		return
	}
	d.mu.Lock()
	epoch, holds, often, paused := d.epoch, d.holds(d.now()), d.resent[r.id], d.paused
	d.mu.Unlock()
	if often >= maxResends {
		d.unlearnable(r)
		return
	}
	if paused || !holds {
		d.putBack(r, true) // whoever has the lane finds out too
		return
	}
	op := sdk.Op{Kind: sdk.OpResend, ID: r.id, Lane: d.lane, Epoch: epoch}
	d.settle(ctx, r, op, func(res sdk.OpResult) bool {
		switch res.Code {
		case sdk.OpApplied:
			d.remove(r) // before the lane sends it and adds it anew
			d.countResend(r.id)
			d.logger.Info("the broker has lost a message after its ack; it is sent once more", "id", r.id, "broker_message_id", r.brokerMessageID)
			d.changed(d.change(r, HopResent, sdk.StatePending, resentDetail))
			d.post(mailGrew{r.target})
		case sdk.OpFenced:
			d.post(mailFenced{epoch})
			return false
		case sdk.OpConflict:
			if res.State == sdk.StateAccepted { // its body is gone
				d.unlearnable(r)
				return true
			}
			d.failed(r.id, nil)
		case sdk.OpAlready, sdk.OpNotFound:
			d.failed(r.id, nil)
		default:
			return false
		}
		return true
	})
}

// countResend notes that a message goes again.
func (d *ladder) countResend(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.Resent.Add(1)
	for other := range d.resent {
		if len(d.resent) < maxResent {
			break
		}
		delete(d.resent, other) // any: it may go maxResends times more
	}
	d.resent[id]++
}

// unlearnable gives up a row that stays accepted: no later ask can tell more.
func (d *ladder) unlearnable(r *rung) {
	d.counts.Unknown.Add(1)
	d.changed(d.change(r, HopForgotten, sdk.StateAccepted,
		"the broker no longer knows the message: whether it was delivered can't be learned, and it is asked no more"))
	d.failed(r.id, errForgotten(r.brokerMessageID))
	d.remove(r)
}

func errForgotten(brokerMessageID string) error {
	return sdk.Errorf(sdk.CodeNotFound, "message_unknown", "the broker no longer knows message %s", brokerMessageID).
		WithNext("Whether it was delivered can't be learned.")
}

func (d *ladder) change(r *rung, hop string, state sdk.EntryState, detail string) *change {
	return &change{
		ID: r.id, ClientMessageID: r.clientMessageID, Target: r.target, State: state,
		BrokerMessageID: r.brokerMessageID, Detail: detail, mesh: d.mesh, hop: hop,
	}
}

// settle hands an op to the committer; a row whose op was not carried out goes
// on with its next step. A committer that is closed leaves it to the next run.
func (d *ladder) settle(ctx context.Context, r *rung, op sdk.Op, done func(sdk.OpResult) bool) {
	committer, leave := d.committer, func() {}
	if b := r.elsewhere; b != nil {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		if b.enter(ctx) != nil {
			d.putBack(r, true) // its rows are on their way elsewhere
			return
		}
		committer, leave = b.committer, b.gate.leave
	}
	err := committer.Settle(op, func(res sdk.OpResult) {
		defer leave()
		if done(res) {
			d.remove(r)
		} else {
			d.putBack(r, true)
		}
	})
	if err != nil {
		leave()
		d.putBack(r, false)
	}
}
