package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/meshhost/meshhost/sdk/sqliteguard"
	"zombiezen.com/go/sqlite"
)

// Spec describes a database.
type Spec struct {
	// Path is the file. Its directory is made with mode 0700 if missing.
	Path string
	// What is the noun for messages, such as "outbox".
	What string
	// ApplicationID marks the file as ours (PRAGMA application_id); not 0.
	ApplicationID int32
	// Steps bring the schema from one version to the next; user_version counts
	// those that are done. A file of a later version is refused.
	Steps []string

	// Begin runs first in each transaction that writes, and Commit last, if
	// they are set. After a transaction that did not commit, Undo runs. All
	// three run on the goroutine that owns the connection.
	Begin  func(conn *sqlite.Conn) error
	Commit func(conn *sqlite.Conn) error
	Undo   func()
}

// File is an open database. Its methods may be called concurrently.
type File struct {
	spec     Spec
	lock     *os.File
	guard    *sqliteguard.Guard // nil until connect found the database complete
	writer   *sqlite.Conn       // owned by the goroutine of run
	jobs     chan *job
	readers  chan *sqlite.Conn
	browsers chan *sqlite.Conn
	closing  chan struct{}
	once     sync.Once
	done     chan struct{}
	err      error // of closing; written before done closes
}

// readConns is how many calls of Read, and how many of Browse, run at once. Two
// cores gain nothing from more.
const readConns = 2

// ErrClosed is the error of calls after Close.
var ErrClosed = errors.New("the database is closed")

// Open opens or creates the database. The error is a sentence that names the
// file and what to do.
func Open(ctx context.Context, spec Spec) (*File, error) {
	if err := create(spec, syncDir); err != nil {
		return nil, err
	}
	lock, err := lockFile(spec)
	if err != nil {
		return nil, err
	}
	f := &File{
		spec:     spec,
		lock:     lock,
		jobs:     make(chan *job),
		readers:  make(chan *sqlite.Conn, readConns),
		browsers: make(chan *sqlite.Conn, readConns),
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
	}
	if err := f.connect(ctx); err != nil {
		var readers []*sqlite.Conn
		for len(f.readers) > 0 {
			readers = append(readers, <-f.readers)
		}
		for len(f.browsers) > 0 {
			readers = append(readers, <-f.browsers)
		}
		return nil, errors.Join(err, f.release(readers))
	}
	go f.run()
	return f, nil
}

// Read runs fn on a read-only connection within one snapshot. It stops early
// when ctx ends.
func (f *File) Read(ctx context.Context, fn func(conn *sqlite.Conn) error) error {
	return f.read(ctx, f.readers, fn)
}

// Browse is Read for what may take long and can wait: it has connections of its
// own, so that no Read stands behind it.
func (f *File) Browse(ctx context.Context, fn func(conn *sqlite.Conn) error) error {
	return f.read(ctx, f.browsers, fn)
}

func (f *File) read(ctx context.Context, from chan *sqlite.Conn, fn func(conn *sqlite.Conn) error) error {
	var conn *sqlite.Conn
	select {
	case conn = <-from:
	case <-f.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { from <- conn }()
	err := snapshot(ctx, conn, fn)
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	return f.explain(err)
}

// snapshot runs fn in a transaction that ends however fn does, by a panic too.
func snapshot(ctx context.Context, conn *sqlite.Conn, fn func(conn *sqlite.Conn) error) (err error) {
	conn.SetInterrupt(ctx.Done())
	defer conn.SetInterrupt(nil)
	if err := exec(conn, "BEGIN"); err != nil {
		return err
	}
	defer func() {
		conn.SetInterrupt(nil)
		if end := exec(conn, "ROLLBACK"); err == nil {
			err = end
		}
	}()
	return fn(conn)
}

// Closing is closed when Close was called.
func (f *File) Closing() <-chan struct{} { return f.closing }

// Close finishes the commit that runs, refuses what comes later, and closes the
// file. It may be called again.
func (f *File) Close() error {
	f.once.Do(func() { close(f.closing) })
	<-f.done
	return f.err
}

// connect opens the writer, prepares the file, and opens the readers.
func (f *File) connect(ctx context.Context) error {
	var err error
	if f.guard, err = sqliteguard.Open(f.spec.Path); errors.Is(err, sqliteguard.ErrIncomplete) {
		return f.incomplete(err)
	}
	if err != nil {
		return f.explain(err)
	}
	if f.writer, err = f.guard.Conn(sqlite.OpenReadWrite); err != nil {
		return f.explain(err)
	}
	f.writer.SetInterrupt(ctx.Done())
	defer f.writer.SetInterrupt(nil)
	if err := f.prepare(f.writer); err != nil {
		return err
	}
	for i := range 2 * readConns {
		conn, err := f.guard.Conn(sqlite.OpenReadOnly)
		if err != nil {
			return f.explain(err)
		}
		conn.SetBusyTimeout(busyTimeout)
		if i%2 == 0 {
			f.readers <- conn
		} else {
			f.browsers <- conn
		}
	}
	return nil
}

// release closes what connect opened. The writer goes last, so that its close
// moves the WAL into the file, and the lock after it.
func (f *File) release(readers []*sqlite.Conn) error {
	var errs []error
	for _, conn := range readers {
		errs = append(errs, conn.Close())
	}
	if f.writer != nil {
		errs = append(errs, f.writer.Close())
	}
	if f.guard != nil {
		errs = append(errs, f.guard.Close())
	}
	errs = append(errs, f.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: close %s: %w", f.spec.What, f.spec.Path, err)
	}
	return nil
}

// exec runs a statement that returns nothing of interest.
func exec(conn *sqlite.Conn, query string) error {
	stmt, err := conn.Prepare(query)
	if err != nil {
		return err
	}
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return errors.Join(err, stmt.Reset())
		}
	}
}
