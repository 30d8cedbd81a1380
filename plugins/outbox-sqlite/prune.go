package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// record is what Prune needs of a row.
type record struct {
	seq, size, due int64
	state          sdk.EntryState
	live           bool
	queue
}

// Prune implements sdk.Outbox. It also forgets abandoned lanes, and texts that
// no row has.
func (s *store) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	if err := outboxstate.CheckPrune(req); err != nil {
		return 0, err
	}
	var count int
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		t := tx{store: s, conn: conn, at: s.now()}
		rows, err := t.choose(req)
		if err != nil {
			return err
		}
		gone := map[int64]int64{}
		for i := range rows {
			if err := t.remove(&rows[i]); err != nil {
				return err
			}
			gone[rows[i].lane] = max(gone[rows[i].lane], rows[i].seq)
		}
		for lane, seq := range gone {
			if err := sqlitefile.Ints(conn, sqlSetGone, lane, seq); err != nil {
				return err
			}
		}
		if count = len(rows); count > 0 {
			s.rows = recent{}
		}
		if req.Before.IsZero() {
			return s.forgetNames(conn)
		}
		if err := s.forgetLanes(conn, outboxstate.Millis(req.Before)); err != nil {
			return err
		}
		return s.forgetNames(conn)
	})
	if err != nil {
		return 0, err
	}
	return count, nil
}

// choose lists rows that may go.
func (t *tx) choose(req sdk.PruneRequest) ([]record, error) {
	switch {
	case req.All:
		if t.sealed == "" {
			return nil, outboxstate.NotSealedError()
		}
		return t.records(sqlAll, req.Limit)
	case req.Label != "":
		mark, err := findName(t.conn, req.Label)
		if err != nil || mark == 0 {
			return nil, err
		}
		return t.records(sqlMarked, mark, req.Limit)
	default:
		return t.records(sqlDone, outboxstate.Millis(req.Before), req.Limit)
	}
}

func (t *tx) records(query string, args ...any) (rows []record, err error) {
	err = sqlitefile.Each(t.conn, query, func(stmt *sqlite.Stmt) (bool, error) {
		state, err := stateOf(stmt.ColumnInt64(1))
		rows = append(rows, record{
			seq: stmt.ColumnInt64(0), state: state, size: stmt.ColumnInt64(2), live: stmt.ColumnInt64(3) == 1,
			queue: queue{stmt.ColumnInt64(4), stmt.ColumnInt64(5)}, due: stmt.ColumnInt64(6),
		})
		return true, err
	}, args...)
	return rows, err
}

// remove deletes a row with its body and takes it out of its queue.
func (t *tx) remove(r *record) error {
	if r.size > 0 {
		if err := sqlitefile.Ints(t.conn, sqlDropBody, r.seq); err != nil {
			return err
		}
	}
	if err := sqlitefile.Ints(t.conn, sqlDrop, r.seq); err != nil {
		return err
	}
	t.moved(r.state, "", -r.size)
	if !r.live {
		return nil
	}
	return t.leave(r.queue, r.seq, r.due)
}
