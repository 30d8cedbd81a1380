package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/meshhost/meshhost/host/control"
	"github.com/urfave/cli/v3"
)

// batchWords is how many refusals of a batch are put into words; all of them are
// in the answers.
const batchWords = 10

// sendBatch is send -batch FILE.
func (a *app) sendBatch(ctx context.Context, cmd *cli.Command, f *sendFlags) error {
	if _, err := words(cmd, 0, 0); err != nil {
		return err
	}
	for _, name := range []string{"wait", "timeout", "key"} {
		if cmd.IsSet(name) {
			return usagef("give client_message_id in the lines; meshhost events -kind outbox tells what becomes of them",
				"meshhost send: -%s has no meaning with -batch", name)
		}
	}
	if err := f.check(""); err != nil {
		return err
	}
	in, closeIn, err := a.input(f.batch)
	if err != nil {
		return err
	}
	defer closeIn()
	c, err := a.client()
	if err != nil {
		return err
	}
	b := &batchRun{a: a, out: bufio.NewWriter(a.stdout)}
	err = c.SendBatch(ctx, in, f.mesh, f.priority, b.line)
	if ferr := b.out.Flush(); err == nil {
		err = ferr
	}
	return b.end(err, ctx.Err() != nil)
}

// input opens a file of the command line; - is stdin.
func (a *app) input(name string) (io.Reader, func(), error) {
	if name == "-" {
		return a.stdin, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, &exitError{code: exitUsage, msg: err.Error(), next: "name a file that can be read, or - for stdin"}
	}
	return f, func() { f.Close() }, nil // it was only read
}

// batchRun counts the answers to a batch and prints them.
type batchRun struct {
	a              *app
	out            *bufio.Writer
	taken, refused int
	last           int // the line that was answered last
	first          *control.APIError
	firstLine      int
	stopped        bool
}

func (b *batchRun) line(l control.BatchLine) error {
	b.last = l.Line
	if l.Err == nil {
		b.taken++
	} else {
		b.refused++
		b.stopped = b.stopped || l.Err.Code == "stopping" || l.Err.Code == "incomplete_body"
		if b.first == nil {
			b.first, b.firstLine = l.Err, l.Line
		}
		if b.refused <= batchWords {
			b.a.warn("line %d: %s", l.Line, clean(l.Err.Message))
		}
	}
	if b.a.json.on {
		if err := b.a.emit("send_batch/v1", "", l.Raw.Clone()); err != nil {
			return err
		}
		return nil
	}
	b.out.Write(l.Raw)
	b.out.WriteByte('\n')
	if l.More {
		return nil
	}
	return b.out.Flush()
}

// end says how far the batch got.
func (b *batchRun) end(err error, interrupted bool) error {
	if b.refused > batchWords {
		b.a.warn("and %d more lines were refused", b.refused-batchWords)
	}
	again := "lines with a client_message_id can be sent again safely"
	var un *control.UnreachableError
	switch {
	case interrupted:
		return &exitError{
			code: exitInterrupted, msg: fmt.Sprintf("interrupted: %d lines were answered; those behind line %d may be stored and may be sent", b.taken+b.refused, b.last),
			next: again,
		}
	case errors.As(err, &un) && b.taken+b.refused > 0:
		return &exitError{
			code: exitPartly, msg: fmt.Sprintf("%v; %d lines were answered, those behind line %d may be stored and may be sent", err, b.taken+b.refused, b.last),
			next: again,
		}
	case err != nil:
		return err
	case b.refused == 0:
		return nil
	case b.taken == 0:
		return &exitError{code: explain(b.first, false).code, msg: fmt.Sprintf("none of %d lines was taken", b.refused), next: clean(b.first.Next)}
	default:
		next := fmt.Sprintf("line %d: %s", b.firstLine, clean(b.first.Next))
		if b.stopped {
			next = "send the lines from " + fmt.Sprint(b.last) + " on again"
		}
		return &exitError{code: exitPartly, msg: fmt.Sprintf("%d lines were taken, %d refused", b.taken, b.refused), next: next}
	}
}
