package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

// maxText bounds what send reads from stdin; the daemon's own limit is lower.
const maxText = 256 << 10

type sendFlags struct {
	mesh, priority, wait, key, batch string
	timeout                          time.Duration
}

func (a *app) sendVerb() *cli.Command {
	var f sendFlags
	return &cli.Command{
		Name: "send", Usage: "send a message", ArgsUsage: "TO TEXT|-",
		Description: "TO is a display name, a key or its first 8 or more digits, @group, @all or *. The text - reads stdin.\nPrints the client_message_id once the outbox has the message.\n" +
			"-batch FILE (- is stdin) sends many: one JSON object a line with to, message and, as need be, priority,\nclient_message_id, meta, reply_to_id, mesh. Prints the daemon's answer to each line, in their order.",
		Flags: []cli.Flag{
			meshFlag(&f.mesh),
			&cli.StringFlag{Name: "priority", Usage: "`PRIORITY`: now, next (default) or low", Destination: &f.priority},
			&cli.StringFlag{Name: "wait", Usage: "return only when the message is in `STATE`: accepted or delivered", Destination: &f.wait},
			&cli.DurationFlag{Name: "timeout", Usage: "how long -wait waits, a `DURATION`", Value: time.Minute, Destination: &f.timeout},
			&cli.StringFlag{Name: "batch", Usage: "send the messages of `FILE`, one JSON object a line; -mesh and -priority are of lines that name none", Destination: &f.batch},
			&cli.StringFlag{Name: "key", Usage: "idempotency `KEY`: the same key and message again is sent once", Destination: &f.key},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if f.batch != "" {
				return a.sendBatch(ctx, cmd, &f)
			}
			args, err := words(cmd, 2, 2)
			if err != nil {
				return err
			}
			if cmd.IsSet("timeout") && f.wait == "" {
				return usagef("add -wait accepted or -wait delivered", "meshhost send: -timeout has a meaning with -wait only")
			}
			return a.send(ctx, args[0], args[1], &f)
		},
	}
}

// several reports whether TO is a broadcast, a group or a topic as it is written
// (PROTOCOL 4.3); nobody reports that such a message was delivered.
func several(to string) bool {
	to = strings.TrimSpace(to)
	return to == "*" || len(to) > 1 && (to[0] == '@' || to[0] == '#')
}

func (f *sendFlags) check(to string) error {
	switch f.priority {
	case "", "now", "next", "low":
	default:
		return usagef("use now, next or low", "meshhost send: -priority is %q", f.priority)
	}
	switch f.wait {
	case "", string(sdk.StateAccepted), string(sdk.StateDelivered):
	default:
		return usagef("use accepted or delivered", "meshhost send: -wait is %q", f.wait)
	}
	if f.wait == string(sdk.StateDelivered) && several(to) {
		return usagef("use -wait accepted", "meshhost send: a message to %s has no report of delivery", to)
	}
	if f.timeout <= 0 {
		return usagef("use a duration such as 30s", "meshhost send: -timeout is %s", f.timeout)
	}
	return nil
}

func (a *app) send(ctx context.Context, to, body string, f *sendFlags) error {
	if err := f.check(to); err != nil {
		return err
	}
	if body == "-" {
		raw, err := io.ReadAll(io.LimitReader(a.stdin, maxText+1))
		if err != nil {
			return fmt.Errorf("read the text from stdin: %w", err)
		}
		if len(raw) > maxText {
			return usagef("send less", "meshhost send: the text on stdin is longer than %d bytes", maxText)
		}
		body = string(raw)
	}
	if !utf8.ValidString(body) || !utf8.ValidString(to) {
		return usagef("encode it, by base64 for one", "meshhost send: the text is not UTF-8")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.Send(short, control.SendRequest{To: to, Message: body, Priority: f.priority, ClientMessageID: f.key, Mesh: f.mesh})
	switch {
	case err != nil && ctx.Err() != nil:
		return &exitError{
			code: exitInterrupted, msg: "interrupted before the daemon answered: the message may be stored and may be sent",
			next: "meshhost outbox list tells; a message sent with -key can be sent again safely",
		}
	case err != nil:
		return err
	}
	a.sendWords(to, &res)
	if !a.json.on {
		if _, err := fmt.Fprintln(a.stdout, clean(res.ClientMessageID)); err != nil {
			return err
		}
	}
	if f.wait == "" {
		if a.json.on {
			return a.emit("send/v1", "", res)
		}
		return nil
	}
	return a.sendWait(ctx, c, &res, sdk.EntryState(f.wait), f.timeout)
}

func (a *app) sendWords(to string, res *control.SendResult) {
	if !res.Durable {
		a.warn("the outbox keeps messages in memory only: this one ends with its process")
	}
	if res.Duplicate {
		a.warn("this message was there already; it is not sent again")
	}
	// A key goes as it is written: nobody asked the mesh whether its peer is there.
	if res.Resolved != nil && res.Resolved.From == "directory" && !strings.EqualFold(strings.TrimSpace(to), res.Resolved.Target) {
		a.warn("the peer is not listed now; the message goes to the key known from before, and waits for it")
	}
}

// sentRow is what -json prints after waiting: the answer to send and the row.
type sentRow struct {
	control.SendResult `json:",inline"`
	State              sdk.EntryState `json:"state,omitempty"`
	AcceptedAt         *time.Time     `json:"accepted_at,omitempty"`
	DeliveredAt        *time.Time     `json:"delivered_at,omitempty"`
	LastError          *string        `json:"last_error,omitempty"`
}

func (a *app) sendWait(ctx context.Context, c *control.Client, res *control.SendResult, want sdk.EntryState, timeout time.Duration) error {
	row, err := a.waitRow(ctx, c, res.ID, want, timeout)
	out := sentRow{SendResult: *res}
	if err == nil {
		out.Status, out.State, out.AcceptedAt, out.DeliveredAt, out.LastError = row.Status, row.State, row.AcceptedAt, row.DeliveredAt, row.LastError
		if row.BrokerMessageID != nil {
			out.BrokerMessageID = *row.BrokerMessageID
		}
	}
	if a.json.on {
		if jerr := a.emit("send/v1", "", out); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return err
	}
	return reached(&row, want)
}

// waitRow asks until the time is over; the daemon bounds a single question.
func (a *app) waitRow(ctx context.Context, c *control.Client, id string, want sdk.EntryState, timeout time.Duration) (control.OutboxRow, error) {
	end := time.Now().Add(timeout)
	for {
		left := time.Until(end)
		row, err := c.OutboxWait(ctx, id, want, max(left, time.Millisecond))
		var ae *control.APIError
		if errors.As(err, &ae) && ae.Code == "wait_timeout" {
			if time.Now().Before(end) {
				continue
			}
			return row, &exitError{
				code: exitTimeout, msg: fmt.Sprintf("not %s within %s; the message stays queued", want, timeout),
				next: "meshhost outbox show " + id,
			}
		}
		return row, err
	}
}

// reached turns a row that can change no more into success or failure.
func reached(row *control.OutboxRow, want sdk.EntryState) error {
	if row.State == want || row.State == sdk.StateDelivered {
		return nil
	}
	why := ""
	if row.LastError != nil {
		why = ": " + clean(*row.LastError)
	}
	e := &exitError{code: exitFailed, msg: fmt.Sprintf("the message is %s, not %s%s", row.State, want, why), next: "meshhost outbox show " + row.ID}
	switch {
	case strings.HasPrefix(strings.TrimPrefix(why, ": "), "blocked by recipient grants"): // PROTOCOL 4.4
		e.code = exitRefused
	case row.State == sdk.StateAccepted:
		e.next = "no report of delivery follows for a message to several peers; use -wait accepted"
	}
	return e
}
