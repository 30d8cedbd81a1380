package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Import implements sdk.Outbox.
func (s *store) Import(ctx context.Context, req sdk.ImportRequest) ([]sdk.OpResult, error) {
	if err := outboxstate.CheckImport(req); err != nil {
		return nil, err
	}
	var results []sdk.OpResult
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		if s.sealed != "" {
			return outboxstate.SealedError(s.sealed)
		}
		t := tx{store: s, conn: conn, at: s.now()}
		results = make([]sdk.OpResult, 0, len(req.Entries))
		for i := range req.Entries {
			res, err := t.bring(&req.Entries[i], req.Label)
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

// bring stores one entry as it is.
func (t *tx) bring(e *sdk.Entry, label string) (sdk.OpResult, error) {
	res, there, err := t.replaceable(e)
	if err != nil || res.Code == sdk.OpExists {
		return res, err
	}
	usage := t.usage
	if there != nil {
		usage = usage.Without(there.State, there.Size)
	}
	if refusal, ok := t.limits.RefuseImport(usage, e); ok {
		return refusal, nil
	}
	lane, err := t.laneNumber(e.Lane)
	if err != nil {
		return res, err
	}
	seq, err := t.seqOf(e, lane, there)
	if err != nil {
		return res, err
	}
	if there != nil {
		if there.lane != lane {
			if err := sqlitefile.Ints(t.conn, sqlSetGone, there.lane, there.seq); err != nil {
				return res, err
			}
		}
		gone := record{seq: there.seq, size: there.Size, due: there.DueAt, state: there.State, live: there.State.Live(), queue: there.queue}
		if err := t.remove(&gone); err != nil {
			return res, err
		}
	}
	t.rows.drop(e.ID)
	q, err := t.insertWhole(e, seq, label)
	if err != nil {
		return res, err
	}
	if t.lastSeq < seq {
		t.lastSeq = seq
	}
	t.moved("", e.State, int64(len(e.Body)))
	res = sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: seq, State: e.State}
	if there != nil {
		res.Code = sdk.OpApplied
	}
	if !e.State.Live() {
		return res, nil
	}
	return res, t.settle(q, seq, outboxstate.Millis(e.DueAt))
}

// replaceable returns the row that e replaces: one of its id and key that an
// import brought and nothing has changed since. Any other is OpExists.
func (t *tx) replaceable(e *sdk.Entry) (res sdk.OpResult, there *stored, err error) {
	if there, err = t.row(e.ID); err != nil {
		return res, nil, err
	}
	byKey, err := t.find(t.conn, outboxstate.Key(e))
	if err != nil {
		return res, nil, err
	}
	switch {
	case there == nil && byKey == nil:
		return res, nil, nil
	case there != nil && there.mark != 0 && byKey != nil && byKey.ID == e.ID:
		return res, there, nil
	}
	res, found, err := t.replay(e)
	if err == nil && !found {
		err = damaged("an id without its row")
	}
	return res, nil, err
}

// seqOf is the place for e: its own where that is free and above those of its
// lane; that of the row that it replaces; else a new one.
func (t *tx) seqOf(e *sdk.Entry, lane int64, there *stored) (int64, error) {
	stays := there != nil && there.lane == lane
	if stays && e.Seq == there.seq {
		return e.Seq, nil
	}
	top, err := t.top(lane)
	if err != nil {
		return 0, err
	}
	if e.Seq > top && e.Seq <= outboxstate.MaxSeq {
		taken, err := sqlitefile.One(t.conn, sqlTaken, func(*sqlite.Stmt) {}, e.Seq)
		if err != nil {
			return 0, err
		}
		if !taken {
			return e.Seq, nil
		}
	}
	if stays {
		return there.seq, nil
	}
	return t.nextSeq(), nil
}

// top is the highest seq that a lane ever had. The first question reads the
// whole table, for no index has it; from then on it is kept.
func (t *tx) top(lane int64) (int64, error) {
	if t.tops == nil {
		tops := map[int64]int64{}
		read := func(stmt *sqlite.Stmt) (bool, error) {
			lane := stmt.ColumnInt64(0)
			tops[lane] = max(tops[lane], stmt.ColumnInt64(1))
			return true, nil
		}
		if err := sqlitefile.Each(t.conn, sqlTops, read); err != nil {
			return 0, err
		}
		if err := sqlitefile.Each(t.conn, sqlGone, read); err != nil {
			return 0, err
		}
		_, err := sqlitefile.One(t.conn, sqlGoneAll, func(stmt *sqlite.Stmt) { tops[0] = stmt.ColumnInt64(0) })
		if err != nil {
			return 0, err
		}
		t.tops = tops
	}
	if top, ok := t.tops[lane]; ok {
		return top, nil
	}
	return t.tops[0], nil // the lane is new, or was forgotten
}

// raise keeps the top of a lane.
func (t *tx) raise(lane, seq int64) {
	if t.tops != nil {
		t.tops[lane] = max(t.tops[lane], seq)
	}
}

// insertWhole writes a row with all that it has.
func (t *tx) insertWhole(e *sdk.Entry, seq int64, label string) (queue, error) {
	var at [6]int64
	for i, text := range [...]string{e.Mesh, e.Sender, e.Lane, e.Target, e.Priority, label} {
		var err error
		if at[i], err = t.name(text, seq); err != nil {
			return queue{}, err
		}
	}
	key := e.ClientMessageID
	if key == e.ID {
		key = ""
	}
	stmt, err := sqlitefile.Bind(t.conn, sqlImport, seq, ident(e.ID), ident(key), at[0], at[1], at[2], at[3], at[4], nil, e.Fingerprint,
		outboxstate.Millis(e.EnqueuedAt), outboxstate.Millis(e.NotAfter), stateNumber(e.State), flag(e.State.Live()),
		flag(e.State == sdk.StateAccepted && len(e.Body) > 0), rareNumber(e.State), at[5], outboxstate.Millis(e.DueAt), e.Attempts, len(e.Body),
		orNull(e.LastError), ident(e.BrokerMessageID), outboxstate.Millis(e.AcceptedAt), outboxstate.Millis(e.DeliveredAt))
	if err != nil {
		return queue{}, err
	}
	bindNonce(stmt, 9, e.Nonce)
	if _, err := stmt.Step(); err != nil {
		return queue{}, err
	}
	if len(e.Body) > 0 {
		if err := sqlitefile.Run(t.conn, sqlInsertBody, seq, e.Body); err != nil {
			return queue{}, err
		}
	}
	t.raise(at[2], seq)
	t.keyed = t.keyed || key != ""
	return queue{at[2], at[3]}, nil
}

// settle puts a live row, which is written, into its queue, wherever its seq
// has its place.
func (t *tx) settle(q queue, seq, dueAt int64) error {
	delete(t.tails, q)
	type place struct{ seq, due int64 }
	var first []place
	err := sqlitefile.Each(t.conn, sqlFirstTwo, func(stmt *sqlite.Stmt) (bool, error) {
		first = append(first, place{stmt.ColumnInt64(0), stmt.ColumnInt64(1)})
		return true, nil
	}, q.lane, q.target)
	if err != nil || first[0].seq != seq {
		return err
	}
	if len(first) > 1 {
		if err := sqlitefile.Ints(t.conn, sqlDropHead, q.lane, first[1].due, first[1].seq); err != nil {
			return err
		}
	}
	return sqlitefile.Ints(t.conn, sqlAddHead, q.lane, dueAt, seq, q.target)
}
