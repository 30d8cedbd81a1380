package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/meshhost/meshhost/host/control"
	"github.com/urfave/cli/v3"
)

func (a *app) messageVerb() *cli.Command {
	return &cli.Command{Name: "message", Usage: "follow a message that was sent", Commands: []*cli.Command{{
		Name: "trace", Usage: "show the way of one message, hop by hop, and what happens next", ArgsUsage: "ID",
		Description: "ID is the message's id, its client_message_id, or the broker's id of it.",
		Action:      a.messageTrace,
	}}}
}

func (a *app) messageTrace(ctx context.Context, cmd *cli.Command) error {
	args, err := words(cmd, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tr, err := c.OutboxTrace(ctx, args[0])
	if err != nil {
		return err
	}
	if a.json.on {
		return a.emit("message_trace/v1", "hops", tr)
	}
	return a.printTrace(&tr)
}

// traceTime is the form of a hop's time: its date matters, as its milliseconds do.
const traceTime = "2006-01-02 15:04:05.000Z07:00"

func (a *app) printTrace(tr *control.TraceReply) error {
	t := newTable(a.stdout)
	if tr.Earlier != "" {
		t.row("…", "", tr.Earlier)
	}
	for i := range tr.Hops {
		h := &tr.Hops[i]
		t.row(moment(h.At), h.Hop, hopText(h))
	}
	now := "not in the outbox"
	if m := tr.Message; m != nil {
		now = string(m.State)
		if m.Status == control.StatusInflight {
			now += ", in flight"
		}
		now += fmt.Sprintf(" (id %s, client_message_id %s, mesh %s)", m.ID, m.ClientMessageID, m.Mesh)
	}
	t.row("now", "", now)
	next := tr.Next.Detail
	if tr.Next.At != nil {
		next += ", " + tr.Next.At.Format(traceTime)
	}
	t.row("next", tr.Next.What, next)
	return t.flush()
}

func hopText(h *control.TraceHop) string {
	text := h.Detail
	add := func(s string) {
		if text != "" {
			text += "; "
		}
		text += s
	}
	if h.BrokerMessageID != "" {
		add("the broker's id is " + h.BrokerMessageID)
	}
	if h.Times > 1 {
		add(strconv.Itoa(h.Times) + " times, last " + moment(h.LastAt))
	}
	if h.FromRow {
		add("as the row says")
	}
	return text
}

// moment shows a time that may not be known.
func moment(t *time.Time) string {
	if t == nil {
		return "?"
	}
	return t.Format(traceTime)
}
