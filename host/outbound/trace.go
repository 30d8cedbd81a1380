package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// Trace is the way of one message, as far as this daemon knows it.
type Trace struct {
	// Entry is the row as it is stored; nil if the outbox does not have it, or,
	// with Trouble, does not answer.
	Entry    *sdk.Entry
	Trouble  error
	InFlight bool
	// Outbox is the outbox of its mesh, Durable whether that outlives its process.
	Outbox  string
	Durable bool
	Hops    []Hop
	// Earlier says why the hops do not begin with the message's arrival; empty:
	// they do.
	Earlier string
	Next    Next
}

// Next is what happens to a message from now on.
type Next struct {
	// What is a word for programs: one of the Next constants.
	What string
	// Detail is for people.
	Detail string
	// At is when; zero: not known, or never.
	At time.Time
}

// The words of Next.What.
const (
	NextNothing   = "nothing"    // the message's way is over
	NextRequeue   = "requeue"    // over, unless a person requeues it
	NextUnknown   = "unknown"    // the outbox does not answer
	NextInFlight  = "in_flight"  // on the wire
	NextTurn      = "turn"       // it goes at once
	NextBehind    = "behind"     // an earlier message to the same peer comes first
	NextOffline   = "offline"    // no connection to the broker
	NextOtherHost = "other_host" // another host sends the lane
	NextLease     = "lease"      // the lane's lease is asked for
	NextCloned    = "cloned"     // data_dir was copied: this daemon sends nothing
	NextHeld      = "held"       // the outbox is being changed or moved
	NextBackoff   = "backoff"    // a refusal that may pass
	NextRateLimit = "rate_limit" // the broker's
	NextNoPeer    = "no_peer"    // nobody is connected under the key
	NextAsk       = "ask"        // the broker is asked for the delivery
)

// traceQueue is how many messages to one peer are looked through for the head.
const traceQueue = 500

// Trace returns the way of a message by its id, its client_message_id, or the
// broker's id where this daemon saw the ack. ErrNotFound if it is not known.
func (o *Outbound) Trace(ctx context.Context, id string) (*Trace, error) {
	if err := o.running(); err != nil {
		return nil, err
	}
	tr, e, b, err := o.known(ctx, id)
	if e == nil && tr == nil {
		return nil, err
	}
	out := &Trace{Entry: e, Trouble: err}
	if errors.Is(err, sdk.ErrNotFound) {
		out.Trouble = nil
	}
	a := o.traced(tr, e)
	if b == nil && a != nil {
		b = a.outbox()
	}
	if b != nil {
		out.Outbox, out.Durable = b.name, b.Durable()
	}
	out.Hops = o.hops(tr, e, out)
	if tr == nil || !tr.whole {
		out.Earlier = o.lacking(e)
	}
	switch {
	case out.Trouble != nil:
		out.Next = Next{What: NextUnknown, Detail: "the outbox does not answer: " + out.Trouble.Error()}
	case e == nil:
		out.Next = Next{What: NextNothing, Detail: "the outbox does not have the message"}
	case a == nil || laneName(a.Name) != e.Lane:
		out.Next = Next{What: NextNothing, Detail: fmt.Sprintf("mesh %q is not attached: add it to mesh.hcl", e.Mesh)}
	default:
		out.InFlight = a.inFlight(e.ID)
		if out.Next, err = o.next(ctx, a, b, e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// known finds what memory and the outboxes have of a message, either may be nil.
func (o *Outbound) known(ctx context.Context, id string) (*track, *sdk.Entry, *box, error) {
	for _, a := range o.meshes {
		if tr, ok := a.trail.find(id); ok {
			e, b, err := o.get(ctx, tr.id)
			return &tr, e, b, err
		}
	}
	e, b, err := o.get(ctx, id)
	if err == nil {
		return nil, e, b, nil
	}
	if !errors.Is(err, sdk.ErrNotFound) || id == "" || len(id) > MaxClientMessageID {
		return nil, nil, nil, err
	}
	for _, a := range o.meshes {
		for _, b := range append([]*box{a.outbox()}, a.earlier()...) {
			found, err := b.reads.lookup(ctx, sdk.MessageKey{Mesh: a.Name, Sender: MemberSender, ClientMessageID: id})
			if err != nil {
				return nil, nil, nil, err
			}
			if found != nil {
				e, b, err := o.get(ctx, found.ID)
				return nil, e, b, err
			}
		}
	}
	return nil, nil, nil, sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %q is known", id).
		WithNext("Take the id or the client_message_id of `meshhost outbox list`. A broker's id is known for messages that it acked since the daemon's start.")
}

// traced is the mesh of a message; nil if it is not attached.
func (o *Outbound) traced(tr *track, e *sdk.Entry) *attached {
	if e != nil {
		return o.meshes[e.Mesh]
	}
	for _, a := range o.meshes {
		if _, ok := a.trail.find(tr.id); ok {
			return a
		}
	}
	return nil
}

// lacking says why the first hops are missing.
func (o *Outbound) lacking(e *sdk.Entry) string {
	if e != nil && e.EnqueuedAt.Before(o.startedAt) {
		return "hops before this daemon's start at " + o.startedAt.UTC().Format(time.RFC3339) + " are not known but for what the row says"
	}
	return fmt.Sprintf("earlier hops were another host's, or are forgotten: the daemon remembers those of the last %d messages", maxTracks)
}

// hops are those of the trail and, where it lacks some, what the row tells.
func (o *Outbound) hops(tr *track, e *sdk.Entry, t *Trace) []Hop {
	var hops []Hop
	if tr != nil {
		hops = tr.hops
		if tr.skipped > 0 {
			hops = slices.Insert(hops, firstHops, Hop{
				At: hops[firstHops].At, Name: "…", Detail: fmt.Sprintf("%d hops are left out", tr.skipped),
			})
		}
	}
	if e != nil {
		hops = withRow(hops, e)
	}
	for i := range hops {
		if h := &hops[i]; h.Name == HopStored && h.Detail == "" {
			h.Detail = fmt.Sprintf("in outbox %q", t.Outbox)
			if !t.Durable {
				h.Detail += ", which forgets at the end of its process"
			}
		}
	}
	return hops
}

// withRow adds the hops that only the row tells.
func withRow(hops []Hop, e *sdk.Entry) []Hop {
	has := func(names ...string) bool {
		return slices.ContainsFunc(hops, func(h Hop) bool { return slices.Contains(names, h.Name) })
	}
	var row []Hop
	add := func(h Hop) {
		h.FromRow = true
		row = append(row, h)
	}
	if !has(HopStored) {
		add(Hop{At: e.EnqueuedAt, Name: HopStored})
	}
	if e.LastError != "" && !has(HopDeferred, HopWaiting, HopDead) {
		add(Hop{Name: HopDeferred, Detail: fmt.Sprintf("%d attempts counted; the last refusal: %s", e.Attempts, e.LastError)})
	}
	if !e.AcceptedAt.IsZero() && !has(HopAccepted) {
		add(Hop{At: e.AcceptedAt, Name: HopAccepted, BrokerMessageID: e.BrokerMessageID})
	}
	switch e.State {
	case sdk.StateDelivered, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled, sdk.StateWaiting:
		if !has(string(e.State)) {
			add(Hop{At: e.DeliveredAt, Name: string(e.State)})
		}
	}
	if len(row) == 0 {
		return hops
	}
	all := append(row, hops...)
	// A hop without a time keeps its place, as does one with another clock's:
	// deliveries are told by the broker's.
	var last time.Time
	at := make(map[*Hop]time.Time, len(all))
	byTime := make([]*Hop, len(all))
	for i := range all {
		if i == len(row) {
			last = time.Time{}
		}
		if all[i].At.After(last) {
			last = all[i].At
		}
		byTime[i], at[&all[i]] = &all[i], last
	}
	slices.SortStableFunc(byTime, func(a, b *Hop) int { return at[a].Compare(at[b]) })
	out := make([]Hop, len(all))
	for i, h := range byTime {
		out[i] = *h
	}
	return out
}
