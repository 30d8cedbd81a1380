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

// tx is one Apply inside a transaction.
type tx struct {
	*store
	conn *sqlite.Conn
	at   time.Time // of the backend's clock, one for the whole call
}

func (t *tx) apply(op *sdk.Op) (sdk.OpResult, error) {
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
	var prev int64
	found, err := sqlitefile.One(t.conn, sqlLast, func(stmt *sqlite.Stmt) { prev = stmt.ColumnInt64(0) }, e.Lane, e.Target)
	if err != nil {
		return sdk.OpResult{}, err
	}
	isHead := int64(1)
	if found {
		isHead = 0
	}
	seq := t.nextSeq()
	err = sqlitefile.Run(t.conn, sqlInsert, seq, e.ID, e.ClientMessageID, e.Mesh, e.Sender, e.Lane, e.Target, e.Priority, e.Nonce,
		e.Fingerprint, outboxstate.Millis(e.EnqueuedAt), outboxstate.Millis(e.NotAfter), outboxstate.Millis(t.at), len(e.Body), isHead)
	if err != nil {
		return sdk.OpResult{}, err
	}
	if t.conn.Changes() == 0 {
		t.lastSeq-- // nobody has seen it
		res, found, err := t.replay(e)
		if err == nil && !found {
			err = fmt.Errorf("row %d is there already; the file was changed by another program", seq)
		}
		return res, err
	}
	if len(e.Body) > 0 {
		if err := sqlitefile.Run(t.conn, sqlInsertBody, seq, e.Body); err != nil {
			return sdk.OpResult{}, err
		}
	}
	t.moved("", sdk.StatePending, int64(len(e.Body)))
	return sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: seq, Prev: prev, State: sdk.StatePending}, nil
}

// replay answers an append whose id or key is there already.
func (t *tx) replay(e *sdk.Entry) (res sdk.OpResult, found bool, err error) {
	read := func(stmt *sqlite.Stmt) {
		key := sdk.MessageKey{ClientMessageID: stmt.ColumnText(2), Mesh: stmt.ColumnText(3), Sender: stmt.ColumnText(4)}
		row := outboxstate.Row{State: sdk.EntryState(stmt.ColumnText(7)), BrokerMessageID: stmt.ColumnText(8)}
		res = outboxstate.Replay(e, stmt.ColumnText(1), key, sqlitefile.Blob(stmt, 5), stmt.ColumnInt64(6), &row)
	}
	found, err = sqlitefile.One(t.conn, sqlByKey, read, e.Mesh, e.Sender, e.ClientMessageID)
	if err != nil || found {
		return res, found, err
	}
	found, err = sqlitefile.One(t.conn, sqlByID, read, e.ID)
	return res, found, err
}

// wake makes every waiting row of a queue due; only the head matters, and the
// index holds only rows that wait.
func (t *tx) wake(op *sdk.Op) (sdk.OpResult, error) {
	if err := sqlitefile.Run(t.conn, sqlWake, op.Lane, op.Target, outboxstate.Millis(t.at)); err != nil {
		return sdk.OpResult{}, err
	}
	woken := t.conn.Changes()
	if woken == 0 {
		return sdk.OpResult{Code: sdk.OpAlready}, nil
	}
	for range woken {
		t.moved(sdk.StateWaiting, sdk.StatePending, 0)
	}
	return sdk.OpResult{Code: sdk.OpApplied}, nil
}

// stored is a row of sqlRow.
type stored struct {
	outboxstate.Row
	n, seq       int64
	lane, target string
	head         bool
}

func (t *tx) change(op *sdk.Op) (sdk.OpResult, error) {
	var r stored
	found, err := sqlitefile.One(t.conn, sqlRow, func(stmt *sqlite.Stmt) {
		r = stored{
			n: stmt.ColumnInt64(0), lane: stmt.ColumnText(1), target: stmt.ColumnText(2),
			head: stmt.ColumnInt64(3) == 1, seq: stmt.ColumnInt64(4),
			Row: outboxstate.Row{
				State: sdk.EntryState(stmt.ColumnText(5)), Attempts: stmt.ColumnInt(6),
				DueAt: stmt.ColumnInt64(7), NotAfter: stmt.ColumnInt64(8),
				AcceptedAt: stmt.ColumnInt64(9), DeliveredAt: stmt.ColumnInt64(10),
				LastError: stmt.ColumnText(11), BrokerMessageID: stmt.ColumnText(12), Size: stmt.ColumnInt64(13),
			},
		}
	}, op.ID)
	if err != nil {
		return sdk.OpResult{}, err
	}
	if !found || op.Kind.Fenced() && r.lane != op.Lane {
		return sdk.OpResult{Code: sdk.OpNotFound, ID: op.ID}, nil
	}
	was := r.Row
	res, eff := outboxstate.Decide(&r.Row, op, t.at)
	if eff.NewSeq {
		if refusal, ok := t.limits.RefuseLive(t.usage); ok {
			refusal.ID, refusal.State = op.ID, was.State
			return refusal, nil
		}
		r.seq = t.nextSeq()
	}
	res.ID, res.Seq = op.ID, r.seq
	if !eff.Changed {
		return res, nil
	}
	if err := t.save(&r, was.State); err != nil {
		return sdk.OpResult{}, err
	}
	if eff.DropBody {
		if err := sqlitefile.Run(t.conn, sqlDropBody, r.n); err != nil {
			return sdk.OpResult{}, err
		}
	}
	t.moved(was.State, r.State, r.Size-was.Size)
	return res, nil
}

// save writes what may have changed between two states, and no other column:
// each one named costs the indexes that mention it.
func (t *tx) save(r *stored, was sdk.EntryState) error {
	switch {
	case was.Live() && r.State.Live():
		return sqlitefile.Run(t.conn, sqlPostpone, r.n, string(r.State), r.DueAt, r.Attempts, r.LastError)
	case was.Live():
		err := sqlitefile.Run(t.conn, sqlLeave, r.n, string(r.State), r.Size, r.LastError, r.BrokerMessageID, r.AcceptedAt)
		if err != nil || !r.head {
			return err
		}
		return t.promote(r.lane, r.target)
	case r.State.Live():
		return sqlitefile.Run(t.conn, sqlRequeue, r.n, r.seq, r.DueAt, r.NotAfter, r.lane, r.target)
	default:
		return sqlitefile.Run(t.conn, sqlFinished, r.n, string(r.State), r.Size, r.BrokerMessageID, r.AcceptedAt, r.DeliveredAt)
	}
}

// promote makes the first row of a queue its head, if any is left.
func (t *tx) promote(lane, target string) error {
	var n int64
	found, err := sqlitefile.One(t.conn, sqlFirst, func(stmt *sqlite.Stmt) { n = stmt.ColumnInt64(0) }, lane, target)
	if err != nil || !found {
		return err
	}
	return sqlitefile.Run(t.conn, sqlHead, n)
}
