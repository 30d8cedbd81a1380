package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Apply implements sdk.Outbox. An op is atomic because whatever may refuse it
// comes before its first write, and because a failing write undoes the whole
// transaction.
func (s *store) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	if err := outboxstate.CheckOps(ops); err != nil {
		return nil, err
	}
	var results []sdk.OpResult
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		t := tx{store: s, conn: conn, at: s.now()}
		results = make([]sdk.OpResult, 0, len(ops))
		for i := range ops {
			res, err := t.apply(&ops[i])
			if err != nil {
				return err
			}
			results = append(results, res)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// tx is one call inside a transaction.
type tx struct {
	*store
	conn *sqlite.Conn
	at   time.Time // of the backend's clock, one for the whole call
}

func (t *tx) apply(op *sdk.Op) (sdk.OpResult, error) {
	if refusal, ok := outboxstate.RefuseSealed(t.sealed, op); ok {
		return refusal, nil
	}
	if op.Kind == sdk.OpSeal || op.Kind == sdk.OpUnseal {
		var res sdk.OpResult
		t.sealed, res = outboxstate.Seal(t.sealed, op)
		t.dirty = true
		return res, nil
	}
	if op.Kind == sdk.OpAppend {
		return t.append(op.Entry)
	}
	if op.Kind.Fenced() {
		lane, err := t.lane(t.conn, op.Lane)
		if err != nil {
			return sdk.OpResult{}, err
		}
		if !lane.Holds(op.Epoch) {
			return sdk.OpResult{Code: sdk.OpFenced, ID: op.ID}, nil
		}
	}
	if op.Kind == sdk.OpWake {
		return t.wake(op)
	}
	return t.change(op)
}

func (t *tx) append(e *sdk.Entry) (sdk.OpResult, error) {
	if refusal, ok := t.limits.Refuse(t.usage, e); ok {
		// A replay of what is stored is no new row.
		res, found, err := t.replay(e)
		if err != nil || found {
			return res, err
		}
		return refusal, nil
	}
	seq := t.nextSeq()
	row, prev, err := t.insert(e, seq)
	if err != nil {
		return sdk.OpResult{}, err
	}
	if row == nil {
		t.lastSeq-- // nobody has seen it
		res, found, err := t.replay(e)
		if err == nil && !found {
			err = fmt.Errorf("row %d is there already; the file was changed by another program", seq)
		}
		return res, err
	}
	err = t.enter(row.queue, seq, row.DueAt, prev)
	return sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: seq, Prev: prev, State: sdk.StatePending}, err
}

// insert writes a pending row that is due now, with its body; nil if there is a
// row of its id or key. prev is the row before it in its queue.
func (t *tx) insert(e *sdk.Entry, seq int64) (row *stored, prev int64, err error) {
	var at [5]int64
	for i, text := range [...]string{e.Mesh, e.Sender, e.Lane, e.Target, e.Priority} {
		if at[i], err = t.name(text, seq); err != nil {
			return nil, 0, err
		}
	}
	key := e.ClientMessageID
	taken, err := t.otherKey(e, at[0], at[1])
	if err != nil || taken {
		return nil, 0, err
	}
	if key == e.ID {
		key = ""
	}
	if prev, err = t.tail(queue{at[2], at[3]}); err != nil {
		return nil, 0, err
	}
	stmt, err := t.conn.Prepare(sqlInsert)
	if err != nil {
		return nil, 0, err
	}
	stmt.BindInt64(1, seq)
	bindIdent(stmt, 2, e.ID)
	bindIdent(stmt, 3, key)
	for i, n := range at {
		stmt.BindInt64(4+i, n)
	}
	bindNonce(stmt, 9, e.Nonce)
	stmt.BindBytes(10, e.Fingerprint)
	row = &stored{seq: seq, queue: queue{at[2], at[3]}, Row: outboxstate.Row{
		State: sdk.StatePending, DueAt: outboxstate.Millis(t.at), NotAfter: outboxstate.Millis(e.NotAfter), Size: int64(len(e.Body)),
	}}
	stmt.BindInt64(11, outboxstate.Millis(e.EnqueuedAt))
	stmt.BindInt64(12, row.NotAfter)
	stmt.BindInt64(13, row.DueAt)
	stmt.BindInt64(14, row.Size)
	if _, err := stmt.Step(); err != nil || t.conn.Changes() == 0 {
		return nil, 0, err
	}
	if row.Size > 0 {
		stmt, err := t.conn.Prepare(sqlInsertBody)
		if err != nil {
			return nil, 0, err
		}
		stmt.BindInt64(1, seq)
		stmt.BindBytes(2, e.Body)
		if _, err := stmt.Step(); err != nil {
			return nil, 0, err
		}
	}
	t.rows.put(e.ID, row)
	t.raise(row.lane, seq)
	t.keyed = t.keyed || key != ""
	t.moved("", sdk.StatePending, row.Size)
	return row, prev, nil
}

// otherKey reports whether a row has the key of e in the other way of storing
// it: by its id where that of e differs, or beside its id where it is e's id.
// The same way is the index's to refuse.
func (t *tx) otherKey(e *sdk.Entry, mesh, sender int64) (bool, error) {
	query := sqlByOwn
	if e.ClientMessageID == e.ID {
		if query = sqlByKey; !t.keyed {
			return false, nil
		}
	}
	return sqlitefile.One(t.conn, query, func(*sqlite.Stmt) {}, ident(e.ClientMessageID), sender, mesh)
}

// replay answers an append whose id or key is there already.
func (t *tx) replay(e *sdk.Entry) (res sdk.OpResult, found bool, err error) {
	there, err := t.find(t.conn, outboxstate.Key(e))
	if err == nil && there == nil {
		there, err = t.findID(t.conn, sqlByID, e.ID)
	}
	if err != nil || there == nil {
		return res, false, err
	}
	row := outboxstate.Row{State: there.State, BrokerMessageID: there.BrokerMessageID}
	return outboxstate.Replay(e, there.ID, outboxstate.Key(there), there.Fingerprint, there.Seq, &row), true, nil
}

// wake makes every waiting row of a queue due; only the head matters, and the
// index holds only rows that wait.
func (t *tx) wake(op *sdk.Op) (sdk.OpResult, error) {
	var q queue
	var err error
	if q.lane, err = findName(t.conn, op.Lane); err == nil {
		q.target, err = findName(t.conn, op.Target)
	}
	if err != nil {
		return sdk.OpResult{}, err
	}
	type waiting struct {
		seq, due int64
		id       string
	}
	var rows []waiting
	err = sqlitefile.Each(t.conn, sqlWaiting, func(stmt *sqlite.Stmt) (bool, error) {
		rows = append(rows, waiting{seq: stmt.ColumnInt64(0), id: columnIdent(stmt, 1), due: stmt.ColumnInt64(2)})
		return true, nil
	}, q.lane, q.target)
	if err != nil {
		return sdk.OpResult{}, err
	}
	now := outboxstate.Millis(t.at)
	for _, r := range rows {
		if err := sqlitefile.Ints(t.conn, sqlWake, r.seq, now); err != nil {
			return sdk.OpResult{}, err
		}
		if err := sqlitefile.Ints(t.conn, sqlMoveHead, q.lane, r.due, r.seq, now); err != nil {
			return sdk.OpResult{}, err
		}
		t.rows.drop(r.id)
		t.moved(sdk.StateWaiting, sdk.StatePending, 0)
	}
	if len(rows) == 0 {
		return sdk.OpResult{Code: sdk.OpAlready}, nil
	}
	return sdk.OpResult{Code: sdk.OpApplied}, nil
}

// change carries out an op on one row.
func (t *tx) change(op *sdk.Op) (sdk.OpResult, error) {
	r, err := t.row(op.ID)
	if err != nil {
		return sdk.OpResult{}, err
	}
	if r == nil {
		return sdk.OpResult{Code: sdk.OpNotFound, ID: op.ID}, nil
	}
	if op.Kind.Fenced() {
		res, done, err := t.elsewhere(r, op)
		if err != nil || done {
			return res, err
		}
	}
	next := r.Row
	res, eff := outboxstate.Decide(&next, op, t.at)
	if eff.NewSeq && !r.State.Live() {
		if refusal, ok := t.limits.RefuseLive(t.usage); ok {
			refusal.ID, refusal.State = op.ID, r.State
			return refusal, nil
		}
	}
	res.ID, res.Seq = op.ID, r.seq
	if !eff.Changed {
		return res, nil
	}
	if eff.NewSeq {
		res.Seq, err = t.move(r, &next, op)
	} else {
		err = t.save(r, &next, r.seq)
		if err == nil && eff.DropBody {
			err = sqlitefile.Ints(t.conn, sqlDropBody, r.seq)
		}
	}
	if err != nil {
		return sdk.OpResult{}, err
	}
	t.moved(r.State, next.State, next.Size-r.Size)
	r.Row, r.mark = next, 0
	if next.State == sdk.StateDelivered || eff.DropBody {
		t.rows.drop(op.ID) // nothing more is to come
	} else {
		t.rows.put(op.ID, r)
	}
	return res, nil
}

// elsewhere answers a schedule op on a row that is not in the lane of the op.
func (t *tx) elsewhere(r *stored, op *sdk.Op) (res sdk.OpResult, done bool, err error) {
	res.ID = op.ID
	if op.Kind == sdk.OpReroute {
		lane, err := findName(t.conn, op.Entry.Lane)
		if err != nil {
			return res, false, err
		}
		if lane == r.lane {
			res.Code, res.State, res.Seq, res.BrokerMessageID = sdk.OpAlready, r.State, r.seq, r.BrokerMessageID
			return res, true, nil
		}
	}
	lane, err := t.laneNumber(op.Lane)
	res.Code = sdk.OpNotFound
	return res, lane != r.lane, err
}

// laneNumber is the number of a lane's name; 0 if no row has it.
func (t *tx) laneNumber(text string) (int64, error) {
	if n, ok := t.names[text]; ok {
		return n.id, nil
	}
	return findName(t.conn, text)
}

// move puts a row at the end of a queue: its own, or that of another lane. It
// returns the new seq.
func (t *tx) move(r *stored, next *outboxstate.Row, op *sdk.Op) (int64, error) {
	seq := t.nextSeq()
	to := r.queue
	if op.Kind == sdk.OpReroute {
		var err error
		if to.lane, err = t.name(op.Entry.Lane, seq); err != nil {
			return 0, err
		}
	}
	if err := t.stretchNames(r.seq, seq); err != nil {
		return 0, err
	}
	prev, err := t.tail(to)
	if err != nil {
		return 0, err
	}
	if err := t.save(r, next, seq); err != nil {
		return 0, err
	}
	if op.Kind == sdk.OpReroute {
		err = t.reroute(r, seq, to, op.Entry)
	} else {
		err = sqlitefile.Ints(t.conn, sqlMoveBody, r.seq, seq)
	}
	if err != nil {
		return 0, err
	}
	t.raise(to.lane, seq)
	r.seq, r.queue = seq, to
	return seq, t.enter(to, seq, next.DueAt, prev)
}

// reroute gives a row, which is at seq now, what belongs to its new lane, and
// takes it out of its old queue.
func (t *tx) reroute(r *stored, seq int64, to queue, e *sdk.Entry) error {
	stmt, err := t.conn.Prepare(sqlReroute)
	if err != nil {
		return err
	}
	stmt.BindInt64(1, seq)
	stmt.BindInt64(2, to.lane)
	bindNonce(stmt, 3, e.Nonce)
	if _, err := stmt.Step(); err != nil {
		return err
	}
	if err := sqlitefile.Ints(t.conn, sqlDropBody, r.seq); err != nil {
		return err
	}
	if err := sqlitefile.Run(t.conn, sqlInsertBody, seq, e.Body); err != nil {
		return err
	}
	if err := sqlitefile.Ints(t.conn, sqlSetGone, r.lane, r.seq); err != nil {
		return err
	}
	return t.leave(r.queue, r.seq, r.DueAt)
}
