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

// store is an open outbox file; it implements sdk.Outbox.
type store struct {
	file *sqlitefile.File
	now  func() time.Time

	// What follows belongs to the file's writing goroutine. It mirrors tables
	// total and lane; loaded is false when it must be read again.
	limits  outboxstate.Limits
	loaded  bool
	dirty   bool // total must be written
	lastSeq int64
	usage   outboxstate.Usage
	lanes   map[string]outboxstate.Lane
}

// maxLanes bounds the lanes that are kept in memory; the rest is read again.
const maxLanes = 4096

// states is the order of the columns in table total.
var states = []sdk.EntryState{
	sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered,
	sdk.StateDead, sdk.StateExpired, sdk.StateCancelled,
}

// openStore opens or creates the file at path.
func openStore(ctx context.Context, path string, limits outboxstate.Limits, now func() time.Time) (*store, error) {
	s := &store{now: now, limits: limits}
	file, err := sqlitefile.Open(ctx, sqlitefile.Spec{
		Path: path, What: "outbox", ApplicationID: applicationID, Steps: schema,
		Begin: s.begin, Commit: s.commit, Undo: func() { s.loaded = false },
	})
	if err != nil {
		return nil, err
	}
	s.file = file
	return s, nil
}

// limit changes the limits of an open store.
func (s *store) limit(ctx context.Context, limits outboxstate.Limits) error {
	return s.file.Write(ctx, func(*sqlite.Conn) error {
		s.limits = limits
		return nil
	})
}

func (s *store) Close() error { return s.file.Close() }

// begin reads what the last transaction left, if that was not this process's
// or did not commit.
func (s *store) begin(conn *sqlite.Conn) error {
	if s.loaded {
		return nil
	}
	stmt, err := conn.Prepare(sqlTotal)
	if err != nil {
		return err
	}
	found, err := stmt.Step()
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("table total is empty; the file was changed by another program")
	}
	s.lastSeq = stmt.ColumnInt64(0)
	s.usage = usageOf(stmt)
	s.lanes = map[string]outboxstate.Lane{}
	s.loaded, s.dirty = true, false
	return stmt.Reset()
}

// usageOf reads a row of sqlTotal.
func usageOf(stmt *sqlite.Stmt) outboxstate.Usage {
	u := outboxstate.Usage{Bytes: stmt.ColumnInt64(1), States: make(map[sdk.EntryState]int64, len(states))}
	for i, state := range states {
		u.States[state] = stmt.ColumnInt64(i + 2)
	}
	return u
}

// commit writes the totals once per transaction.
func (s *store) commit(conn *sqlite.Conn) error {
	if !s.dirty {
		return nil
	}
	args := []any{s.lastSeq, s.usage.Bytes}
	for _, state := range states {
		args = append(args, s.usage.States[state])
	}
	if err := sqlitefile.Run(conn, sqlSetTotal, args...); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

// nextSeq is the next place in any queue. Its loss with a transaction that did
// not commit is no harm, for begin reads it again.
func (s *store) nextSeq() int64 {
	s.lastSeq++
	s.dirty = true
	return s.lastSeq
}

// moved counts a row that went from one state to another, and the change of its
// body's size; an empty state is outside the store.
func (s *store) moved(from, to sdk.EntryState, bytes int64) {
	if from != "" {
		s.usage.States[from]--
	}
	if to != "" {
		s.usage.States[to]++
	}
	s.usage.Bytes += bytes
	s.dirty = true
}
