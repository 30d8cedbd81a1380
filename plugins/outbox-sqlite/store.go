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
	file  *sqlitefile.File
	now   func() time.Time
	texts names // for readers

	// What follows belongs to the file's writing goroutine. It mirrors tables;
	// loaded is false when it must be read again.
	limits   outboxstate.Limits
	loaded   bool
	dirty    bool // total must be written
	lastSeq  int64
	lastName int64
	usage    outboxstate.Usage
	sealed   string
	lanes    map[string]outboxstate.Lane
	names    map[string]name
	rows     recent
	keyed    bool            // some row may have a key that is not its id
	tails    map[queue]int64 // the last seq of a queue; 0: it is empty
	tops     map[int64]int64 // the last seq of each lane; nil until Import asks
}

// maxLanes bounds the lanes that are kept in memory; the rest is read again.
const maxLanes = 4096

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
	found, err := sqlitefile.One(conn, sqlTotal, func(stmt *sqlite.Stmt) {
		s.lastSeq, s.lastName = stmt.ColumnInt64(0), stmt.ColumnInt64(1)
		s.usage, s.sealed = usageOf(stmt)
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("table total is empty; the file was changed by another program")
	}
	s.lanes, s.names = map[string]outboxstate.Lane{}, map[string]name{}
	s.texts.forget()
	s.rows, s.tails, s.tops = recent{}, map[queue]int64{}, nil
	if s.keyed, err = sqlitefile.One(conn, sqlKeyed, func(*sqlite.Stmt) {}); err != nil {
		return err
	}
	s.loaded, s.dirty = true, false
	return nil
}

// usageOf reads a row of sqlTotal.
func usageOf(stmt *sqlite.Stmt) (u outboxstate.Usage, sealed string) {
	u = outboxstate.Usage{Bytes: stmt.ColumnInt64(2), States: make(map[sdk.EntryState]int64, len(states))}
	for i, state := range states[1:] {
		u.States[state] = stmt.ColumnInt64(i + 3)
	}
	return u, stmt.ColumnText(len(states) + 2)
}

// commit writes the totals once per transaction.
func (s *store) commit(conn *sqlite.Conn) error {
	if !s.dirty {
		return nil
	}
	args := []any{s.lastSeq, s.lastName, s.usage.Bytes}
	for _, state := range states[1:] {
		args = append(args, s.usage.States[state])
	}
	if err := sqlitefile.Run(conn, sqlSetTotal, append(args, s.sealed)...); err != nil {
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
