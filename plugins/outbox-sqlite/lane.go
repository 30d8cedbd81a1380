package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Acquire implements sdk.Outbox.
func (s *store) Acquire(ctx context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	if err := outboxstate.CheckAcquire(req); err != nil {
		return sdk.Lease{}, err
	}
	var lease sdk.Lease
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		if s.sealed != "" {
			return outboxstate.SealedError(s.sealed)
		}
		lane, err := s.lane(conn, req.Lane)
		if err != nil {
			return err
		}
		lane, lease = lane.Acquire(req, s.now())
		if lease.Held {
			return nil
		}
		return s.setLane(conn, req.Lane, lane)
	})
	if err != nil {
		return sdk.Lease{}, err
	}
	return lease, nil
}

// Release implements sdk.Outbox.
func (s *store) Release(ctx context.Context, req sdk.ReleaseRequest) error {
	return s.file.Write(ctx, func(conn *sqlite.Conn) error {
		lane, err := s.lane(conn, req.Lane)
		if err != nil {
			return err
		}
		free, ok := lane.Release(req)
		if !ok {
			return nil
		}
		// An abandoned lane is pruned by the time at which it was given up.
		free.Expires = outboxstate.Millis(s.now())
		return s.setLane(conn, req.Lane, free)
	})
}

// lane returns who has a lane. It runs on the writing goroutine.
func (s *store) lane(conn *sqlite.Conn, name string) (outboxstate.Lane, error) {
	if lane, ok := s.lanes[name]; ok {
		return lane, nil
	}
	lane, err := readLane(conn, name)
	if err != nil {
		return lane, err
	}
	s.remember(name, lane)
	return lane, nil
}

func (s *store) setLane(conn *sqlite.Conn, name string, lane outboxstate.Lane) error {
	if err := sqlitefile.Run(conn, sqlSetLane, name, lane.Owner, lane.Incarnation, lane.Epoch, lane.Expires); err != nil {
		return err
	}
	s.remember(name, lane)
	return nil
}

func (s *store) remember(name string, lane outboxstate.Lane) {
	if len(s.lanes) >= maxLanes {
		clear(s.lanes)
	}
	s.lanes[name] = lane
}

// refuseSealed is SealedError if the store of the snapshot is sealed.
func refuseSealed(conn *sqlite.Conn) error {
	var where string
	_, err := sqlitefile.One(conn, sqlSealed, func(stmt *sqlite.Stmt) { where = stmt.ColumnText(0) })
	if err == nil && where != "" {
		err = outboxstate.SealedError(where)
	}
	return err
}

// readLane reads a lane from the file; one that is not there is free.
func readLane(conn *sqlite.Conn, name string) (lane outboxstate.Lane, err error) {
	found, err := sqlitefile.One(conn, sqlLane, func(stmt *sqlite.Stmt) {
		lane = outboxstate.Lane{
			Owner: stmt.ColumnText(0), Incarnation: stmt.ColumnText(1),
			Epoch: stmt.ColumnInt64(2), Expires: stmt.ColumnInt64(3),
		}
	}, name)
	if err != nil || found {
		return lane, err
	}
	_, err = sqlitefile.One(conn, sqlEpochs, func(stmt *sqlite.Stmt) { lane.Epoch = stmt.ColumnInt64(0) })
	return lane, err
}

// forgetLanes drops lanes without rows that nobody held for long: each session
// has one, and sessions come and go.
func (s *store) forgetLanes(conn *sqlite.Conn, before int64) error {
	before = min(before, outboxstate.Millis(s.now().Add(-outboxstate.LaneMemory)))
	if err := sqlitefile.Run(conn, sqlForgetEpochs, before); err != nil {
		return err
	}
	clear(s.lanes)
	return sqlitefile.Run(conn, sqlForgetLanes, before)
}
