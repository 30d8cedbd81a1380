package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// maxOps bounds one transaction in requests; a request may carry hundreds of journal rows.
	maxOps = 256
	// pruneEvery is how often what is too old or too much is let go, and pruneStep how many rows a transaction of that takes,
	// so that a write in between waits milliseconds. While somebody always waits there is a step every pruneBusy: 20,000 rows
	// a second, more than the pushes that a disk takes can bring.
	pruneEvery = time.Minute
	pruneBusy  = 100 * time.Millisecond
	pruneStep  = 2000
)

// request is one write. op runs inside a transaction that it shares with others: an error of op rolls all of them back, so
// an op reports what is the asker's fault by its own variables and returns nil.
type request struct {
	op   func(*sqlite.Conn) error
	err  error
	done chan struct{}
}

// write runs op durably, in one transaction with whoever else waits. ctx bounds the wait for a place in the queue alone: once
// handed over the op runs to its end, so op's variables may be read whenever write has returned.
func (s *Store) write(ctx context.Context, op func(*sqlite.Conn) error) error {
	r := &request{op: op, done: make(chan struct{})}
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return ErrClosed
	}
	select {
	case s.requests <- r:
		s.gate.RUnlock()
	case <-ctx.Done():
		s.gate.RUnlock()
		return ctx.Err()
	}
	<-r.done
	return r.err
}

// writer is the goroutine that owns the writing connection.
type writer struct {
	store *Store
	conn  *sqlite.Conn
	batch []*request
}

func (w *writer) run() {
	s := w.store
	defer close(s.done)
	prune := time.NewTimer(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case r := <-s.requests:
			w.commit(r)
		case <-prune.C:
			prune.Reset(w.prune())
		case <-s.stop:
			for {
				select {
				case r := <-s.requests:
					w.commit(r)
					continue
				default:
				}
				break
			}
			s.closeErr = errors.Join(w.conn.Close(), s.guard.Close())
			return
		}
	}
}

// commit runs first and all that came meanwhile in one transaction.
func (w *writer) commit(first *request) {
	w.batch = append(w.batch[:0], first)
	for len(w.batch) < maxOps {
		select {
		case r := <-w.store.requests:
			w.batch = append(w.batch, r)
			continue
		default:
		}
		break
	}
	err := w.transact(w.batch)
	if err != nil && len(w.batch) > 1 {
		// One of them broke it for all: each by itself, so that the fault stays with its owner.
		for _, r := range w.batch {
			r.err = w.transact([]*request{r})
			close(r.done)
		}
	} else {
		for _, r := range w.batch {
			r.err = err
			close(r.done)
		}
	}
	clear(w.batch)
}

func (w *writer) transact(batch []*request) (err error) {
	guard := w.store.guard
	defer func() {
		if err == nil {
			guard.Committed()
		}
		err = w.store.explain(err)
	}()
	end, err := sqlitex.ImmediateTransaction(w.conn)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer end(&err)
	if err := guard.Begin(w.conn); err != nil {
		return err
	}
	for _, r := range batch {
		if err := r.op(w.conn); err != nil {
			return err
		}
	}
	return guard.Count(w.conn)
}

// prune lets go of what is beyond its bounds, in steps, as long as nobody waits. It returns when it is to go on.
func (w *writer) prune() time.Duration {
	for {
		var more bool
		r := &request{op: func(conn *sqlite.Conn) (err error) {
			more, err = w.store.pruneStep(conn)
			return err
		}}
		if err := w.transact([]*request{r}); err != nil {
			w.store.opts.Logger.Warn("store: pruning failed, tried again in a minute", "error", err)
			return pruneEvery
		}
		switch {
		case !more:
			return pruneEvery
		case len(w.store.requests) > 0:
			return pruneBusy
		}
	}
}

// pruneStep lets go of up to a step of each kind; more is true when a step was not enough.
func (s *Store) pruneStep(conn *sqlite.Conn) (more bool, err error) {
	now := time.Now()
	kept, err := number(conn, "SELECT coalesce(max(n) - min(n) + 1, 0) FROM dedup")
	if err != nil {
		return false, err
	}
	keys, err := execN(conn, `DELETE FROM dedup WHERE n IN (SELECT n FROM dedup ORDER BY n LIMIT ?1)
		AND (at < ?2 OR n IN (SELECT n FROM dedup ORDER BY n LIMIT ?3))`,
		int64(pruneStep), now.Add(-s.opts.DedupAge).UnixMilli(), min(max(kept-s.opts.DedupKeys, 0), pruneStep))
	if err != nil {
		return false, err
	}
	dead, err := number(conn, "SELECT count(*) FROM dead")
	if err != nil {
		return false, err
	}
	gone, err := s.pruneDead(conn, dead, now.Add(-s.opts.DeadAge))
	if err != nil {
		return false, err
	}
	return keys == pruneStep || gone == pruneStep, nil
}

// pruneDead lets go of dead letters that died before a time, and of the oldest of those beyond the bound.
func (s *Store) pruneDead(conn *sqlite.Conn, count int64, before time.Time) (gone int, err error) {
	excess := min(max(count-s.opts.DeadLetters, 0), pruneStep)
	var size journalSize
	if err := size.load(conn); err != nil {
		return 0, err
	}
	gone, err = size.dropDead(conn, `SELECT seq, handler FROM dead WHERE died_at < ?1
		UNION SELECT * FROM (SELECT seq, handler FROM dead ORDER BY seq, handler LIMIT ?2) LIMIT ?3`, before.UnixMilli(), excess, pruneStep)
	if err != nil {
		return 0, err
	}
	return gone, size.save(conn)
}

// execN runs a cached statement without rows and returns how many rows it changed.
func execN(conn *sqlite.Conn, query string, args ...any) (int, error) {
	if err := sqlitex.Execute(conn, query, &sqlitex.ExecOptions{Args: args}); err != nil {
		return 0, err
	}
	return conn.Changes(), nil
}
