package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"zombiezen.com/go/sqlite"
)

// maxGroup bounds how many calls share one commit, so that the first of them
// does not wait for an endless stream of others.
const maxGroup = 256

// job is one call of Write. done is buffered: its caller may have gone.
type job struct {
	fn   func(conn *sqlite.Conn) error
	done chan error
}

// Write runs fn within a transaction that other calls may share, and returns
// after the commit is on disk. fn runs on the writing goroutine, perhaps twice:
// it must set its results anew each time, and an error of it undoes all that it
// did. After any error the outcome is unknown to the caller. When ctx ends
// while fn is queued or running, Write returns but the commit may still happen:
// what fn sets may be read only after Write returned nil. A panic of fn is its
// caller's.
func (f *File) Write(ctx context.Context, fn func(conn *sqlite.Conn) error) error {
	j := &job{fn: fn, done: make(chan error, 1)}
	select {
	case f.jobs <- j:
	case <-f.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-j.done:
		if p := (*panicked)(nil); errors.As(err, &p) {
			panic(p.Error())
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run owns the writing connection until Close.
func (f *File) run() {
	defer close(f.done)
	group := make([]*job, 0, maxGroup)
	for {
		select {
		case <-f.closing:
			f.err = f.shut()
			return
		case j := <-f.jobs:
			// Those who were answered just now, and can run, may have more to say;
			// without this the first of them would have a commit for itself.
			runtime.Gosched()
			group = f.gather(append(group[:0], j))
		}
		f.commit(group)
		clear(group)
	}
}

// shut waits for the reads that run and closes everything.
func (f *File) shut() error {
	readers := make([]*sqlite.Conn, 0, 2*readConns)
	for range readConns {
		readers = append(readers, <-f.readers, <-f.browsers)
	}
	return f.release(readers)
}

// gather takes the calls that wait by now. It does not wait for more.
func (f *File) gather(group []*job) []*job {
	for len(group) < maxGroup {
		select {
		case j := <-f.jobs:
			// Those who were answered just now, and can run, may have more to say;
			// without this the first of them would have a commit for itself.
			runtime.Gosched()
			group = append(group, j)
		default:
			return group
		}
	}
	return group
}

// commit carries a group out. If it fails, each call is tried alone, so that
// one that cannot succeed does not fail the others.
func (f *File) commit(group []*job) {
	err := f.transact(group)
	if err == nil || len(group) == 1 {
		for _, j := range group {
			j.done <- err
		}
		return
	}
	for _, j := range group {
		j.done <- f.transact([]*job{j})
	}
}

func (f *File) transact(group []*job) error {
	err := f.attempt(group)
	if err == nil {
		return nil
	}
	// Some failures end the transaction by themselves.
	if !f.writer.AutocommitEnabled() {
		if undo := exec(f.writer, "ROLLBACK"); undo != nil {
			err = errors.Join(err, undo)
		}
	}
	if f.spec.Undo != nil {
		f.spec.Undo()
	}
	return f.explain(err)
}

// panicked is the error of a transaction in which something panicked.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

func (f *File) attempt(group []*job) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicked{r, debug.Stack()}
		}
	}()
	if err := exec(f.writer, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := f.guard.Begin(f.writer); err != nil {
		return err
	}
	if f.spec.Begin != nil {
		if err := f.spec.Begin(f.writer); err != nil {
			return err
		}
	}
	for _, j := range group {
		if err := j.fn(f.writer); err != nil {
			return err
		}
	}
	if f.spec.Commit != nil {
		if err := f.spec.Commit(f.writer); err != nil {
			return err
		}
	}
	if err := f.guard.Count(f.writer); err != nil {
		return err
	}
	if err := exec(f.writer, "COMMIT"); err != nil {
		return err
	}
	f.guard.Committed()
	return nil
}
