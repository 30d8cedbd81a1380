package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Lookup implements sdk.Outbox.
func (s *store) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	const query = `SELECT ` + columns + ` FROM entry INDEXED BY entry_key WHERE mesh = ?1 AND sender = ?2 AND client_message_id = ?3`
	found := make([]*sdk.Entry, len(keys))
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		for i, key := range keys {
			_, err := sqlitefile.One(conn, query, func(stmt *sqlite.Stmt) {
				_, _, e := readEntry(stmt)
				found[i] = &e
			}, key.Mesh, key.Sender, key.ClientMessageID)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Get implements sdk.Outbox.
func (s *store) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	const query = `SELECT ` + columns + ` FROM entry INDEXED BY entry_id WHERE id = ?1`
	found := make([]*sdk.Entry, len(ids))
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		for i, id := range ids {
			var n int64
			ok, err := sqlitefile.One(conn, query, func(stmt *sqlite.Stmt) {
				var e sdk.Entry
				n, _, e = readEntry(stmt)
				found[i] = &e
			}, id)
			if err == nil && ok {
				found[i].Body, err = readBody(conn, n)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// List implements sdk.Outbox. A cursor is the n of the last row of its page.
func (s *store) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if err := outboxstate.CheckList(req); err != nil {
		return sdk.ListPage{}, err
	}
	query, args, err := listQuery(req)
	if err != nil {
		return sdk.ListPage{}, err
	}
	var page sdk.ListPage
	err = s.file.Read(ctx, func(conn *sqlite.Conn) error {
		page = sdk.ListPage{}
		stmt, err := sqlitefile.Bind(conn, query, args...)
		if err != nil {
			return err
		}
		defer stmt.Reset()
		var last int64
		for {
			row, err := stmt.Step()
			if err != nil || !row {
				return err
			}
			n, _, e := readEntry(stmt)
			if len(page.Entries) == req.Limit {
				page.Next = strconv.FormatInt(last, 10)
				return nil
			}
			page.Entries, last = append(page.Entries, e), n
		}
	})
	return page, err
}

// listQuery makes the statement of a page: of one row more than asked, which
// tells whether there is a next page. States that few rows are in, and those of
// queues, have an index; other choices walk back from the newest row.
func listQuery(req sdk.ListRequest) (query string, args []any, err error) {
	var where []string
	index := ""
	switch {
	case len(req.States) == 1 && rare(req.States[0]):
		// A parameter would not let SQLite see that the index has these rows.
		where = append(where, "state = '"+string(req.States[0])+"'")
		index = " INDEXED BY entry_rare"
	case len(req.States) > 0:
		marks, live := make([]string, len(req.States)), true
		for i, state := range req.States {
			args = append(args, string(state))
			marks[i] = "?" + strconv.Itoa(len(args))
			live = live && state.Live()
		}
		where = append(where, "state IN ("+strings.Join(marks, ", ")+")")
		if live {
			where = append(where, "live = 1")
			index = " INDEXED BY entry_live"
		}
	}
	for _, choice := range []struct{ column, value string }{{"mesh", req.Mesh}, {"target", req.Target}} {
		if choice.value != "" {
			args = append(args, choice.value)
			where = append(where, "+"+choice.column+" = ?"+strconv.Itoa(len(args)))
		}
	}
	if req.Before != "" {
		n, err := strconv.ParseInt(req.Before, 10, 64)
		if err != nil {
			return "", nil, sdk.Errorf(sdk.CodeInvalid, "bad_cursor", "outbox: %q is not a cursor of this outbox", req.Before)
		}
		args = append(args, n)
		where = append(where, "n < ?"+strconv.Itoa(len(args)))
	}
	query = "SELECT " + columns + " FROM entry" + index
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, req.Limit+1)
	return query + " ORDER BY n DESC LIMIT ?" + strconv.Itoa(len(args)), args, nil
}

// rare reports whether index entry_rare has rows of a state.
func rare(state sdk.EntryState) bool {
	switch state {
	case sdk.StateWaiting, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled:
		return true
	default:
		return false
	}
}

// Stats implements sdk.Outbox. The oldest row is the one that came first;
// clocks go back, arrival does not.
func (s *store) Stats(ctx context.Context, _ sdk.StatsRequest) (sdk.OutboxStats, error) {
	var stats sdk.OutboxStats
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		_, err := sqlitefile.One(conn, sqlTotal, func(stmt *sqlite.Stmt) {
			u := usageOf(stmt)
			stats.States, stats.Bytes = u.States, u.Bytes
		})
		if err != nil {
			return err
		}
		_, err = sqlitefile.One(conn, sqlOldest, func(stmt *sqlite.Stmt) {
			stats.OldestLive = outboxstate.Time(stmt.ColumnInt64(0))
		})
		return err
	})
	return stats, err
}

// Prune implements sdk.Outbox. It also forgets abandoned lanes.
func (s *store) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	if err := outboxstate.CheckPrune(req); err != nil {
		return 0, err
	}
	before := outboxstate.Millis(req.Before)
	var count int
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		done, err := finished(conn, before, req.Limit)
		if err != nil {
			return err
		}
		for _, r := range done {
			if r.size > 0 {
				if err := sqlitefile.Run(conn, sqlDropBody, r.n); err != nil {
					return err
				}
			}
			if err := sqlitefile.Run(conn, sqlDrop, r.n); err != nil {
				return err
			}
			s.moved(r.state, "", -r.size)
		}
		count = len(done)
		return s.forgetLanes(conn, before)
	})
	if err != nil {
		return 0, err
	}
	return count, nil
}

type record struct {
	n, size int64
	state   sdk.EntryState
}

// finished lists rows that may go, those whose time ended first in front.
func finished(conn *sqlite.Conn, before int64, limit int) ([]record, error) {
	stmt, err := sqlitefile.Bind(conn, sqlDone, before, limit)
	if err != nil {
		return nil, err
	}
	defer stmt.Reset()
	var done []record
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return done, err
		}
		done = append(done, record{n: stmt.ColumnInt64(0), state: sdk.EntryState(stmt.ColumnText(1)), size: stmt.ColumnInt64(2)})
	}
}
