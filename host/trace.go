package host

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/outbound"
)

// Trace is control.Outbox.
func (r rooms) Trace(ctx context.Context, id string) (*control.MessageTrace, error) {
	t, err := r.h.outbound.Trace(ctx, id)
	if err != nil {
		return nil, err
	}
	return traceOf(t), nil
}

func traceOf(t *outbound.Trace) *control.MessageTrace {
	out := &control.MessageTrace{
		Entry: t.Entry, InFlight: t.InFlight, Outbox: t.Outbox, Durable: t.Durable, Earlier: t.Earlier,
		Next: control.TraceNext{What: t.Next.What, Detail: t.Next.Detail, At: utc(t.Next.At)},
	}
	for i := range t.Hops {
		h := &t.Hops[i]
		out.Hops = append(out.Hops, control.TraceHop{
			At: utc(h.At), Hop: h.Name, Detail: h.Detail, BrokerMessageID: h.BrokerMessageID,
			Times: h.Times, LastAt: utc(h.Last), FromRow: h.FromRow,
		})
	}
	return out
}

// utc is a moment as the API shows it; nil if it is not known.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}
