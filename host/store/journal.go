package store

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// makeRoomStep is how many dead letters go at once for the sake of new pushes.
const makeRoomStep = 16

// DedupKey is what two equal messages share: the first 16 bytes of the SHA-256 of a key's text.
type DedupKey [16]byte

// JournalRow is one push on its way into the journal.
type JournalRow struct {
	ID         [16]byte // time-ordered, the push's id for ever
	Mesh       string
	OrderKey   int64 // equal for pushes that a handler gets in order
	ReceivedAt time.Time
	Sealed     bool // Frame was sealed by the caller
	Frame      []byte
	Keys       []DedupKey
	Handlers   []int64 // who gets it, by the ids of [Store.Handlers]; empty: nobody, only the keys are kept
}

// JournalState is what became of a [JournalRow].
type JournalState int

// The states of a journal row.
const (
	Stored    JournalState = iota // durable, with one work item for each handler
	Duplicate                     // a key of it was known
	Full                          // no room; nothing was kept, not even its keys
)

// JournalResult tells what became of one row; Seq is its number in the journal if it has one.
type JournalResult struct {
	State JournalState
	Seq   int64
}

// MarkKind is what a handler's work item becomes.
type MarkKind int

// The kinds of a mark.
const (
	MarkDone  MarkKind = iota // the item goes
	MarkRetry                 // the item stays with new Attempts and Due
	MarkDead                  // the item becomes a dead letter
)

// Mark settles one work item. A mark for an item that is no more does nothing.
type Mark struct {
	Kind     MarkKind
	Seq      int64
	Handler  int64
	Attempts int
	Due      time.Time // with MarkRetry
	Reason   string    // with MarkDead
}

// JournalSize says how full the journal is.
type JournalSize struct {
	Rows, Bytes       int64
	MaxRows, MaxBytes int64
}

// Journal applies marks, then stores rows, all durable when it returns; results are for rows, in order. A row is a duplicate
// if any of its keys is known, from another row of the same call too; its other keys are then remembered as well, since a
// message can come once with one id and once with two. An error means that nothing of it was done.
func (s *Store) Journal(ctx context.Context, rows []JournalRow, marks []Mark) (results []JournalResult, size JournalSize, err error) {
	results = make([]JournalResult, len(rows))
	letters := 0
	err = s.write(ctx, func(conn *sqlite.Conn) error {
		var sz journalSize
		if err := sz.load(conn); err != nil {
			return err
		}
		for i := range marks {
			if err := sz.mark(conn, &marks[i]); err != nil {
				return fmt.Errorf("mark: %w", err)
			}
		}
		for i := range rows {
			r, err := s.insert(conn, &sz, &rows[i])
			if err != nil {
				return fmt.Errorf("insert: %w", err)
			}
			results[i] = r
		}
		if err := sz.save(conn); err != nil {
			return err
		}
		size, letters = s.size(sz), sz.letters
		return nil
	})
	if err != nil {
		return nil, JournalSize{}, fmt.Errorf("journal: %w", err)
	}
	if letters > 0 {
		s.opts.Logger.Warn("store: the journal is full; its oldest dead letters made room for new pushes", "dropped", letters)
	}
	return results, size, nil
}

// insert stores one row, or finds why not.
func (s *Store) insert(conn *sqlite.Conn, sz *journalSize, row *JournalRow) (JournalResult, error) {
	if len(row.Handlers) > 0 && !s.fits(sz, row) {
		// No room; but a duplicate needs none, and may be acked.
		duplicate, err := known(conn, row.Keys)
		if err == nil && !duplicate {
			err = s.makeRoom(conn, sz, row)
		}
		if err != nil || !duplicate && !s.fits(sz, row) {
			return JournalResult{State: Full}, err
		}
	}
	at := row.ReceivedAt.UnixMilli()
	duplicate := false
	for i := range row.Keys {
		stmt, err := conn.Prepare("INSERT OR IGNORE INTO dedup (key, at) VALUES (?, ?)")
		if err != nil {
			return JournalResult{}, err
		}
		stmt.BindBytes(1, row.Keys[i][:])
		stmt.BindInt64(2, at)
		if err := run(stmt); err != nil {
			return JournalResult{}, err
		}
		duplicate = duplicate || conn.Changes() == 0
	}
	switch {
	case duplicate:
		return JournalResult{State: Duplicate}, nil
	case len(row.Handlers) == 0:
		return JournalResult{State: Stored}, nil
	}
	s.lastSeq++
	seq := s.lastSeq
	stmt, err := conn.Prepare("INSERT INTO journal (seq, id, mesh, order_key, received_at, sealed, bytes, frame) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return JournalResult{}, err
	}
	stmt.BindInt64(1, seq)
	stmt.BindBytes(2, row.ID[:])
	stmt.BindText(3, row.Mesh)
	stmt.BindInt64(4, row.OrderKey)
	stmt.BindInt64(5, at)
	stmt.BindBool(6, row.Sealed)
	stmt.BindInt64(7, int64(len(row.Frame)))
	stmt.BindBytes(8, row.Frame)
	if err := run(stmt); err != nil {
		return JournalResult{}, err
	}
	for _, h := range row.Handlers {
		stmt, err := conn.Prepare("INSERT INTO work (seq, handler, attempts, due_at) VALUES (?, ?, 0, 0)")
		if err != nil {
			return JournalResult{}, err
		}
		stmt.BindInt64(1, seq)
		stmt.BindInt64(2, h)
		if err := run(stmt); err != nil {
			return JournalResult{}, err
		}
	}
	sz.rows++
	sz.bytes += int64(len(row.Frame))
	return JournalResult{State: Stored, Seq: seq}, nil
}

func (s *Store) fits(sz *journalSize, row *JournalRow) bool {
	return sz.rows < s.opts.JournalRows && sz.bytes+int64(len(row.Frame)) <= s.opts.JournalBytes
}

// makeRoom lets the oldest dead letters go until row fits: what one handler gave up must not keep what is new from all others.
func (s *Store) makeRoom(conn *sqlite.Conn, sz *journalSize, row *JournalRow) error {
	for !s.fits(sz, row) {
		gone, err := sz.dropDead(conn, "SELECT seq, handler FROM dead ORDER BY seq, handler LIMIT ?", makeRoomStep)
		if err != nil || gone == 0 {
			return err
		}
		sz.letters += gone
	}
	return nil
}

func known(conn *sqlite.Conn, keys []DedupKey) (bool, error) {
	for i := range keys {
		stmt, err := conn.Prepare("SELECT 1 FROM dedup WHERE key = ?")
		if err != nil {
			return false, err
		}
		stmt.BindBytes(1, keys[i][:])
		found, err := stmt.Step()
		if err2 := stmt.Reset(); err == nil {
			err = err2
		}
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// run steps a statement that returns no row and makes it ready for the next use.
func run(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	if err2 := stmt.Reset(); err == nil {
		err = err2
	}
	return err
}

// JournalSize returns how full the journal is.
func (s *Store) JournalSize(ctx context.Context) (JournalSize, error) {
	var sz journalSize
	if err := s.view(ctx, sz.load); err != nil {
		return JournalSize{}, fmt.Errorf("journal size: %w", err)
	}
	return s.size(sz), nil
}

func (s *Store) size(sz journalSize) JournalSize {
	return JournalSize{Rows: sz.rows, Bytes: sz.bytes, MaxRows: s.opts.JournalRows, MaxBytes: s.opts.JournalBytes}
}

// journalSize is the running count of what the journal holds, kept in a row of its own: counting would read every page.
type journalSize struct {
	rows, bytes int64
	letters     int // dead letters that made room
}

func (z *journalSize) load(conn *sqlite.Conn) error {
	stmt, err := conn.Prepare("SELECT rows, bytes FROM journal_size")
	if err != nil {
		return err
	}
	if _, err := stmt.Step(); err != nil {
		return err
	}
	z.rows, z.bytes = stmt.ColumnInt64(0), stmt.ColumnInt64(1)
	return stmt.Reset()
}

func (z *journalSize) save(conn *sqlite.Conn) error {
	stmt, err := conn.Prepare("UPDATE journal_size SET rows = ?1, bytes = ?2 WHERE rows <> ?1 OR bytes <> ?2")
	if err != nil {
		return err
	}
	stmt.BindInt64(1, z.rows)
	stmt.BindInt64(2, z.bytes)
	return run(stmt)
}

// release lets a frame go once no work item and no dead letter needs it. It asks first: DELETE … RETURNING builds a table for
// what it returns, which costs as much as all the rest of a push.
func (z *journalSize) release(conn *sqlite.Conn, seq int64) error {
	stmt, err := conn.Prepare(`SELECT bytes FROM journal WHERE seq = ?1
		AND NOT EXISTS (SELECT 1 FROM work WHERE seq = ?1) AND NOT EXISTS (SELECT 1 FROM dead WHERE seq = ?1)`)
	if err != nil {
		return err
	}
	stmt.BindInt64(1, seq)
	free, err := stmt.Step()
	bytes := int64(0)
	if free {
		bytes = stmt.ColumnInt64(0)
	}
	if err2 := stmt.Reset(); err == nil {
		err = err2
	}
	if err != nil || !free {
		return err
	}
	if stmt, err = conn.Prepare("DELETE FROM journal WHERE seq = ?"); err != nil {
		return err
	}
	stmt.BindInt64(1, seq)
	if err := run(stmt); err != nil {
		return err
	}
	z.rows--
	z.bytes -= bytes
	return nil
}

// dropDead lets dead letters go, those that query selects by (seq, handler), and the frames that nothing else needs.
func (z *journalSize) dropDead(conn *sqlite.Conn, query string, args ...any) (gone int, err error) {
	type item struct{ seq, handler int64 }
	var items []item
	err = sqlitex.Execute(conn, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(stmt *sqlite.Stmt) error {
		items = append(items, item{stmt.ColumnInt64(0), stmt.ColumnInt64(1)})
		return nil
	}})
	if err != nil {
		return 0, err
	}
	for _, it := range items {
		if _, err := execN(conn, "DELETE FROM dead WHERE seq = ? AND handler = ?", it.seq, it.handler); err != nil {
			return 0, err
		}
		if err := z.release(conn, it.seq); err != nil {
			return 0, err
		}
	}
	return len(items), nil
}

// mark settles one work item.
func (z *journalSize) mark(conn *sqlite.Conn, m *Mark) error {
	if m.Kind == MarkRetry {
		stmt, err := conn.Prepare("UPDATE work SET attempts = ?, due_at = ? WHERE seq = ? AND handler = ?")
		if err != nil {
			return err
		}
		stmt.BindInt64(1, int64(m.Attempts))
		stmt.BindInt64(2, m.Due.UnixMilli())
		stmt.BindInt64(3, m.Seq)
		stmt.BindInt64(4, m.Handler)
		return run(stmt)
	}
	stmt, err := conn.Prepare("DELETE FROM work WHERE seq = ? AND handler = ?")
	if err != nil {
		return err
	}
	stmt.BindInt64(1, m.Seq)
	stmt.BindInt64(2, m.Handler)
	if err := run(stmt); err != nil {
		return err
	}
	if conn.Changes() == 0 {
		return nil
	}
	if m.Kind == MarkDead {
		_, err := execN(conn, "INSERT OR REPLACE INTO dead (seq, handler, attempts, died_at, reason) VALUES (?, ?, ?, ?, ?)",
			m.Seq, m.Handler, int64(m.Attempts), time.Now().UnixMilli(), m.Reason)
		return err
	}
	return z.release(conn, m.Seq)
}
