package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// WorkItem is what one handler still has to do with one row of the journal.
type WorkItem struct {
	Seq      int64
	OrderKey int64
	Bytes    int // of the frame
	Attempts int
	Due      time.Time // zero: at once
}

// Frame is one row of the journal as it was stored.
type Frame struct {
	Seq        int64
	ID         [16]byte
	Mesh       string
	ReceivedAt time.Time
	Sealed     bool
	Frame      []byte
}

// DeadLetter is a work item that was given up.
type DeadLetter struct {
	Handler  string
	Seq      int64
	ID       [16]byte
	Mesh     string
	Attempts int
	DiedAt   time.Time
	Reason   string
}

// Handlers makes names the handlers that exist, and returns their ids for [JournalRow] and [Mark]. The work items of handlers
// that are not among them any more are dropped; dropped counts them by name. Dead letters stay.
func (s *Store) Handlers(ctx context.Context, names []string) (ids map[string]int64, dropped map[string]int, err error) {
	ids = make(map[string]int64, len(names))
	gone := make(map[string]int64)
	err = s.write(ctx, func(conn *sqlite.Conn) error {
		clear(ids)
		clear(gone)
		for _, name := range names {
			if _, err := execN(conn, "INSERT OR IGNORE INTO handler (name) VALUES (?)", name); err != nil {
				return err
			}
		}
		return sqlitex.Execute(conn, "SELECT id, name FROM handler", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
			if name := stmt.ColumnText(1); slices.Contains(names, name) {
				ids[name] = stmt.ColumnInt64(0)
			} else {
				gone[name] = stmt.ColumnInt64(0)
			}
			return nil
		}})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("register handlers: %w", err)
	}
	dropped = make(map[string]int)
	for name, id := range gone {
		for {
			n, err := s.dropStep(ctx, id)
			if err != nil {
				return nil, nil, fmt.Errorf("drop the work of handler %q: %w", name, err)
			}
			if n > 0 {
				dropped[name] += n
			}
			if n < pruneStep {
				break
			}
		}
	}
	return ids, dropped, nil
}

// dropStep drops up to a step of a handler's work items, and the handler with the last of them.
func (s *Store) dropStep(ctx context.Context, handler int64) (n int, err error) {
	err = s.write(ctx, func(conn *sqlite.Conn) error {
		var seqs []int64
		err := sqlitex.Execute(conn, "SELECT seq FROM work WHERE handler = ? LIMIT ?", &sqlitex.ExecOptions{
			Args:       []any{handler, pruneStep},
			ResultFunc: func(stmt *sqlite.Stmt) error { seqs = append(seqs, stmt.ColumnInt64(0)); return nil },
		})
		if err != nil {
			return err
		}
		var sz journalSize
		if err := sz.load(conn); err != nil {
			return err
		}
		for _, seq := range seqs {
			if err := sz.mark(conn, &Mark{Kind: MarkDone, Seq: seq, Handler: handler}); err != nil {
				return err
			}
		}
		if n = len(seqs); n < pruneStep {
			_, err = execN(conn, "DELETE FROM handler WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM dead WHERE handler = ?1)", handler)
			if err != nil {
				return err
			}
		}
		return sz.save(conn)
	})
	return n, err
}

// Work returns up to limit work items of a handler with Seq greater than after, in the order of Seq.
func (s *Store) Work(ctx context.Context, handler, after int64, limit int) ([]WorkItem, error) {
	var items []WorkItem
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, `SELECT w.seq, j.order_key, j.bytes, w.attempts, w.due_at FROM work w JOIN journal j ON j.seq = w.seq
			WHERE w.handler = ? AND w.seq > ? ORDER BY w.seq LIMIT ?`, &sqlitex.ExecOptions{
			Args: []any{handler, after, limit},
			ResultFunc: func(stmt *sqlite.Stmt) error {
				it := WorkItem{Seq: stmt.ColumnInt64(0), OrderKey: stmt.ColumnInt64(1), Bytes: stmt.ColumnInt(2), Attempts: stmt.ColumnInt(3)}
				if due := stmt.ColumnInt64(4); due != 0 {
					it.Due = time.UnixMilli(due)
				}
				items = append(items, it)
				return nil
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load work: %w", err)
	}
	return items, nil
}

// Frames returns the rows with these numbers; one that is no more is left out.
func (s *Store) Frames(ctx context.Context, seqs []int64) ([]Frame, error) {
	frames := make([]Frame, 0, len(seqs))
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		stmt, err := conn.Prepare("SELECT id, mesh, received_at, sealed, frame FROM journal WHERE seq = ?")
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			stmt.BindInt64(1, seq)
			found, err := stmt.Step()
			if err != nil {
				_ = stmt.Reset() // repeats the error of Step
				return err
			}
			if found {
				f := Frame{
					Seq: seq, Mesh: stmt.ColumnText(1), ReceivedAt: time.UnixMilli(stmt.ColumnInt64(2)),
					Sealed: stmt.ColumnBool(3), Frame: make([]byte, stmt.ColumnLen(4)),
				}
				stmt.ColumnBytes(0, f.ID[:])
				stmt.ColumnBytes(4, f.Frame)
				frames = append(frames, f)
			}
			if err := stmt.Reset(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load frames: %w", err)
	}
	return frames, nil
}

// DeadLetters returns up to limit of them, the newest first.
func (s *Store) DeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	var letters []DeadLetter
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, `SELECT h.name, d.seq, j.id, j.mesh, d.attempts, d.died_at, d.reason FROM dead d
			JOIN handler h ON h.id = d.handler JOIN journal j ON j.seq = d.seq ORDER BY d.seq DESC, d.handler LIMIT ?`, &sqlitex.ExecOptions{
			Args: []any{limit},
			ResultFunc: func(stmt *sqlite.Stmt) error {
				l := DeadLetter{
					Handler: stmt.ColumnText(0), Seq: stmt.ColumnInt64(1), Mesh: stmt.ColumnText(3), Attempts: stmt.ColumnInt(4),
					DiedAt: time.UnixMilli(stmt.ColumnInt64(5)), Reason: stmt.ColumnText(6),
				}
				stmt.ColumnBytes(2, l.ID[:])
				letters = append(letters, l)
				return nil
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, nil
}
