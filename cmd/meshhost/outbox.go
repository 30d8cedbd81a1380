package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/meshhost/meshhost/host/control"
	"github.com/urfave/cli/v3"
)

func (a *app) outboxVerb() *cli.Command {
	var q control.OutboxQuery
	return &cli.Command{Name: "outbox", Usage: "see and change what is queued", Commands: []*cli.Command{
		{
			Name: "list", Usage: "list messages, newest first",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "status", Usage: "only this `STATUS`: pending, inflight, done, dead or aborted", Destination: &q.Status},
				meshFlag(&q.Mesh),
				&cli.StringFlag{Name: "target", Usage: "only this `TARGET`, as the list shows it", Destination: &q.Target},
				&cli.IntFlag{Name: "limit", Usage: "at most `N` rows, 1 to 500", Value: 50, Destination: &q.Limit},
				&cli.StringFlag{Name: "before", Usage: "the page after: the `CURSOR` that the page before ended with", Destination: &q.Before},
			},
			Action: func(ctx context.Context, cmd *cli.Command) error {
				if _, err := words(cmd, 0, 0); err != nil {
					return err
				}
				if q.Limit < 1 || q.Limit > 500 {
					return usagef("use 1 to 500", "meshhost outbox list: -limit is %d", q.Limit)
				}
				return a.outboxList(ctx, q)
			},
		},
		{Name: "show", Usage: "show one message", ArgsUsage: "ID", Action: a.outboxShow},
		{
			Name: "requeue", Usage: "send dead, expired or cancelled messages after all", ArgsUsage: "ID…",
			Action: func(ctx context.Context, cmd *cli.Command) error {
				return a.outboxEach(ctx, cmd, "outbox_requeue/v1", func(ctx context.Context, c *control.Client, id string) (control.Requeued, error) {
					return c.OutboxRequeue(ctx, id)
				})
			},
		},
		{
			Name: "cancel", Usage: "take back messages that were not sent yet", ArgsUsage: "ID…",
			Action: func(ctx context.Context, cmd *cli.Command) error {
				return a.outboxEach(ctx, cmd, "outbox_cancel/v1", func(ctx context.Context, c *control.Client, id string) (control.Requeued, error) {
					return control.Requeued{ID: id, Status: control.StatusAborted}, c.OutboxCancel(ctx, id)
				})
			},
		},
	}}
}

func (a *app) outboxList(ctx context.Context, q control.OutboxQuery) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := c.OutboxList(ctx, q)
	if err != nil {
		return err
	}
	if a.json.on {
		return a.emit("outbox_list/v1", "items", page)
	}
	t := newTable(a.stdout, "ID", "STATUS", "STATE", "MESH", "TARGET", "TRIES", "ENQUEUED", "LAST ERROR")
	for _, r := range page.Items {
		why := ""
		if r.LastError != nil {
			why = *r.LastError
		}
		t.row(r.ID, r.Status, string(r.State), r.Mesh, r.Target[:min(16, len(r.Target))], strconv.Itoa(r.Attempts), r.EnqueuedAt.Format(time.RFC3339), why)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if page.Next != "" {
		a.warn("there are more; the next page: -before %s", clean(page.Next))
	}
	return nil
}

func (a *app) outboxShow(ctx context.Context, cmd *cli.Command) error {
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
	row, err := c.OutboxShow(ctx, args[0])
	if err != nil {
		return err
	}
	if a.json.on {
		return a.emit("outbox_show/v1", "", row)
	}
	return a.printFields(row)
}

// printFields prints an object as one line for each member that has a value.
func (a *app) printFields(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ms, err := members(raw)
	if err != nil {
		return err
	}
	t := newTable(a.stdout)
	for _, m := range ms {
		if s := cell(m.value); s != "" {
			t.row(m.name, s)
		}
	}
	return t.flush()
}

// outboxEach does one thing to each id. When some work and some don't, every
// failure is on stderr and the exit code is that of partly done.
func (a *app) outboxEach(ctx context.Context, cmd *cli.Command, schema string, do func(context.Context, *control.Client, string) (control.Requeued, error)) error {
	ids, err := words(cmd, 1, -1)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := []control.Requeued{}
	var failed error
	for _, id := range ids {
		res, err := do(ctx, c, id)
		if err == nil {
			done = append(done, res)
			continue
		}
		if len(ids) == 1 {
			return err
		}
		e := explain(err, ctx.Err() != nil)
		failed = &exitError{code: e.code, msg: id + ": " + e.msg, next: e.next}
		a.report(failed, false)
	}
	if a.json.on {
		err = a.emit(schema, "items", struct {
			Items []control.Requeued `json:"items"`
		}{done})
	} else {
		t := newTable(a.stdout)
		for _, r := range done {
			t.row(r.ID, r.Status)
		}
		err = t.flush()
	}
	switch {
	case err != nil:
		return err
	case failed == nil:
		return nil
	case len(done) == 0:
		return &exitError{code: explain(failed, false).code}
	default:
		return &exitError{code: exitPartly, msg: fmt.Sprintf("%d of %d done", len(done), len(ids))}
	}
}
