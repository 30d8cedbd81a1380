package outbound

import (
	"context"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// laneView is what a lane's goroutine knows of the way of one message.
type laneView struct {
	online, holds, stopped bool
	holder                 string
	sentAt                 time.Time // of what is on the wire; zero: it is not
	notBefore              time.Time // after an attempt without an answer
	held                   time.Time // pause after a connection that took nothing
	rate                   time.Duration
}

// mailView asks for it.
type mailView struct {
	id, target string
	answer     chan laneView
}

func (l *Lane) view(id, target string) laneView {
	now := l.now()
	v := laneView{
		online: l.online, holds: l.leased.valid(now), stopped: l.leased.stopped, holder: l.leased.holder,
		held: l.holdTo, rate: l.pacer.Pause(now),
	}
	if q := l.queues[target]; q != nil && len(q.rows) > 0 && q.rows[0].msg.ID == id {
		v.notBefore = q.notBefore
		if q.inflight {
			v.sentAt = q.rows[0].sentAt
		}
	}
	return v
}

// next says what happens to a stored message from now on, and why not yet.
func (o *Outbound) next(ctx context.Context, a *attached, b *box, e *sdk.Entry) (Next, error) {
	lane := a.current()
	switch e.State {
	case sdk.StateDead, sdk.StateCancelled:
		return Next{What: NextRequeue, Detail: "nothing, unless it is requeued: meshhost outbox requeue " + e.ID}, nil
	case sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted:
	default:
		return Next{What: NextNothing, Detail: "nothing: its way is over"}, nil
	}
	switch {
	case b != a.outbox():
		return Next{What: NextNothing, Detail: fmt.Sprintf("nothing: outbox %q does not send for mesh %q any more; what the mesh has is asked for while somebody waits", b.name, a.Name)}, nil
	case lane == nil:
		return Next{What: NextHeld, Detail: fmt.Sprintf("outbox %q is being changed; the message goes on when that has ended", b.name)}, nil
	}
	answer := make(chan laneView, 1)
	lane.post(mailView{e.ID, e.Target, answer})
	var v laneView
	select {
	case v = <-answer:
	case <-ctx.Done():
		return Next{}, sdk.Errorf(sdk.CodeUnavailable, "lane_busy", "the messages of mesh %q are not being looked after just now", a.Name).
			WithNext("Try again.")
	}
	if e.State == sdk.StateAccepted {
		return nextAccepted(lane, e, &v, time.Now()), nil
	}
	return nextLive(ctx, b, e, &v, time.Now())
}

func nextLive(ctx context.Context, b *box, e *sdk.Entry, v *laneView, now time.Time) (Next, error) {
	switch {
	case !v.sentAt.IsZero():
		return Next{NextInFlight, "it is on the wire; the broker's ack is waited for", v.sentAt}, nil
	case v.stopped:
		return Next{What: NextCloned, Detail: "this daemon sends nothing, as another one runs on a copy of its data_dir; stop one of them, delete its data_dir and start it again"}, nil
	case !v.online:
		return Next{What: NextOffline, Detail: "it goes when the mesh is connected: meshhost status"}, nil
	case !v.holds && v.holder != "":
		return Next{What: NextOtherHost, Detail: fmt.Sprintf("host %s sends for this identity now; it goes from there", v.holder)}, nil
	case !v.holds:
		return Next{What: NextLease, Detail: "the outbox is being asked for the right to send"}, nil
	}
	if n, behind, err := nextBehind(ctx, b, e, now); err != nil || behind {
		return n, err
	}
	return nextHead(e, v, now), nil
}

// nextBehind says what an earlier message of the same queue waits for.
func nextBehind(ctx context.Context, b *box, e *sdk.Entry, now time.Time) (Next, bool, error) {
	page, err := b.Outbox.List(ctx, sdk.ListRequest{
		States: []sdk.EntryState{sdk.StatePending, sdk.StateWaiting}, Mesh: e.Mesh, Target: e.Target, Limit: traceQueue,
	})
	if err != nil {
		return Next{}, false, err
	}
	ahead, head := 0, (*sdk.Entry)(nil)
	for i := range page.Entries {
		if r := &page.Entries[i]; r.Lane == e.Lane && r.Seq < e.Seq {
			ahead++
			if head == nil || r.Seq < head.Seq {
				head = r
			}
		}
	}
	switch {
	case page.Next != "":
		return Next{What: NextBehind, Detail: fmt.Sprintf("earlier messages to the same peer come first: %d or more", max(ahead, 1))}, true, nil
	case head == nil:
		return Next{}, false, nil
	}
	n := Next{What: NextBehind, Detail: fmt.Sprintf("earlier messages to the same peer come first: %d; the first of them, %s, is %s", ahead, head.ID, head.State)}
	if head.DueAt.After(now) {
		n.At = head.DueAt
	}
	return n, true, nil
}

// nextHead is what the head of a queue waits for.
func nextHead(e *sdk.Entry, v *laneView, now time.Time) Next {
	switch {
	case e.State == sdk.StateWaiting:
		return Next{NextNoPeer, "it goes when the peer appears, and is tried again then", e.DueAt}
	case e.DueAt.After(now):
		return Next{NextBackoff, "it is tried again: " + e.LastError, e.DueAt}
	case v.notBefore.After(now):
		return Next{NextBackoff, "no ack came; it is sent again with the same client_message_id", v.notBefore}
	case v.rate > 0:
		return Next{NextRateLimit, "the broker limits the rate; it goes in its turn", now.Add(v.rate)}
	case v.held.After(now):
		return Next{NextBackoff, "the connection took nothing; it is tried again", v.held}
	default:
		return Next{What: NextTurn, Detail: "it goes in its turn, at once if nothing is before it"}
	}
}

func nextAccepted(lane *Lane, e *sdk.Entry, v *laneView, now time.Time) Next {
	at, more := lane.ladder.nextAsk(e.ID)
	switch {
	case isMulticast(e.Target):
		return Next{What: NextNothing, Detail: "nothing: a message to several peers has no report of delivery"}
	case !v.holds && v.holder != "":
		return Next{What: NextOtherHost, Detail: fmt.Sprintf("host %s asks the broker whether it was delivered", v.holder)}
	case !v.online:
		return Next{What: NextOffline, Detail: "the broker is asked whether it was delivered when the mesh is connected"}
	case at.IsZero() && !more:
		return Next{What: NextNothing, Detail: "nothing: the broker is asked no more whether it was delivered"}
	case at.IsZero():
		return Next{What: NextAsk, Detail: "the broker is asked whether it was delivered, when there is room for it among those that are"}
	case at.Before(now):
		at = now
	}
	return Next{NextAsk, "the broker is asked whether it was delivered", at}
}
