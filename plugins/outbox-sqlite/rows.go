package main

import (
	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// stored is what ops need of a row of table entry.
type stored struct {
	outboxstate.Row
	seq  int64
	mark int64 // 0: none
	queue
}

// queue names a queue by the numbers of its lane and target.
type queue struct{ lane, target int64 }

// maxRecent is how many rows each half of recent holds; a row takes about 300
// bytes.
const maxRecent = 1 << 13

// recent has rows that were written lately by id, so that the ops that follow
// need not look for them. When the young half is full it becomes the old one.
type recent struct{ young, old map[string]*stored }

func (r *recent) get(id string) *stored {
	if row := r.young[id]; row != nil {
		return row
	}
	return r.old[id]
}

func (r *recent) put(id string, row *stored) {
	if r.young == nil || len(r.young) >= maxRecent {
		r.old, r.young = r.young, make(map[string]*stored, maxRecent)
	}
	r.young[id] = row
}

func (r *recent) drop(id string) {
	delete(r.young, id)
	delete(r.old, id)
}

// row finds a row by id; nil if it is not there.
func (t *tx) row(id string) (*stored, error) {
	if r := t.rows.get(id); r != nil {
		return r, nil
	}
	var r *stored
	var state int64
	_, err := sqlitefile.One(t.conn, sqlRow, func(stmt *sqlite.Stmt) {
		state = stmt.ColumnInt64(4)
		r = &stored{
			seq:   stmt.ColumnInt64(0),
			queue: queue{stmt.ColumnInt64(1), stmt.ColumnInt64(2)},
			mark:  stmt.ColumnInt64(3),
			Row: outboxstate.Row{
				Attempts: stmt.ColumnInt(5),
				DueAt:    stmt.ColumnInt64(6), NotAfter: stmt.ColumnInt64(7),
				AcceptedAt: stmt.ColumnInt64(8), DeliveredAt: stmt.ColumnInt64(9),
				LastError: stmt.ColumnText(10), BrokerMessageID: columnIdent(stmt, 11), Size: stmt.ColumnInt64(12),
			},
		}
	}, ident(id))
	if err != nil || r == nil {
		return nil, err
	}
	r.State, err = stateOf(state)
	return r, err
}

// save writes what an op made of r and keeps the queues; seq is its place from
// now on. Updates name no more columns than they must: each one named costs the
// indexes that have it.
func (t *tx) save(r *stored, next *outboxstate.Row, seq int64) error {
	var err error
	switch {
	case r.mark == 0 && r.State == sdk.StatePending && next.State == sdk.StateAccepted:
		err = t.saveAccepted(r.seq, next)
	case r.mark == 0 && r.State == sdk.StateAccepted && next.State == sdk.StateDelivered:
		err = sqlitefile.Ints(t.conn, sqlDelivered, r.seq, next.DeliveredAt)
	case r.State.Live() && next.State.Live() && seq == r.seq:
		if err := sqlitefile.Run(t.conn, sqlPostpone, r.seq, stateNumber(next.State), rareNumber(next.State), next.DueAt,
			next.Attempts, orNull(next.LastError)); err != nil {
			return err
		}
		return sqlitefile.Ints(t.conn, sqlMoveHead, r.lane, r.DueAt, r.seq, next.DueAt)
	default:
		err = sqlitefile.Run(t.conn, sqlSave, r.seq, stateNumber(next.State), flag(next.State.Live()), flag(unconfirmed(next)),
			rareNumber(next.State), next.DueAt, next.NotAfter, next.Attempts, next.Size, orNull(next.LastError),
			ident(next.BrokerMessageID), next.AcceptedAt, next.DeliveredAt, seq)
	}
	if err != nil || !r.State.Live() {
		return err
	}
	if seq != r.seq {
		return nil // reroute leaves the queue when the lane is written
	}
	return t.leave(r.queue, r.seq, r.DueAt)
}

func (t *tx) saveAccepted(seq int64, next *outboxstate.Row) error {
	stmt, err := t.conn.Prepare(sqlAccepted)
	if err != nil {
		return err
	}
	stmt.BindInt64(1, seq)
	stmt.BindInt64(2, flag(unconfirmed(next)))
	stmt.BindInt64(3, next.Size)
	bindIdent(stmt, 4, next.BrokerMessageID)
	stmt.BindInt64(5, next.AcceptedAt)
	_, err = stmt.Step()
	return err
}

// unconfirmed reports whether a report of delivery may follow: an accepted row
// that has its body.
func unconfirmed(r *outboxstate.Row) bool { return r.State == sdk.StateAccepted && r.Size > 0 }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func rareNumber(state sdk.EntryState) any {
	if rare(state) {
		return stateNumber(state)
	}
	return nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// maxTails bounds the queues whose end is kept in memory.
const maxTails = 1 << 16

// tail is the last seq of a queue; 0 if it is empty.
func (t *tx) tail(q queue) (seq int64, err error) {
	if seq, ok := t.tails[q]; ok {
		return seq, nil
	}
	_, err = sqlitefile.One(t.conn, sqlLast, func(stmt *sqlite.Stmt) { seq = stmt.ColumnInt64(0) }, q.lane, q.target)
	return seq, err
}

func (t *tx) setTail(q queue, seq int64) {
	if _, ok := t.tails[q]; !ok && len(t.tails) >= maxTails {
		clear(t.tails)
	}
	t.tails[q] = seq
}

// enter puts a row that is written behind prev, the tail before it was.
func (t *tx) enter(q queue, seq, dueAt, prev int64) error {
	t.setTail(q, seq)
	if prev != 0 {
		return nil
	}
	return sqlitefile.Ints(t.conn, sqlAddHead, q.lane, dueAt, seq, q.target)
}

// leave takes a row that is no longer live, or gone, out of its queue.
func (t *tx) leave(q queue, seq, dueAt int64) error {
	if err := sqlitefile.Ints(t.conn, sqlDropHead, q.lane, dueAt, seq); err != nil {
		return err
	}
	wasHead := t.conn.Changes() > 0
	if tail, ok := t.tails[q]; ok && tail == seq {
		if wasHead {
			t.tails[q] = 0
			return nil
		}
		delete(t.tails, q)
	}
	if !wasHead {
		return nil
	}
	var first, due int64
	found, err := sqlitefile.One(t.conn, sqlFirst, func(stmt *sqlite.Stmt) {
		first, due = stmt.ColumnInt64(0), stmt.ColumnInt64(1)
	}, q.lane, q.target)
	if err != nil {
		return err
	}
	if !found {
		t.setTail(q, 0)
		return nil
	}
	return sqlitefile.Ints(t.conn, sqlAddHead, q.lane, due, first, q.target)
}
