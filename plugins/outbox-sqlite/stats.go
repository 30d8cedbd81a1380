package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Stats implements sdk.Outbox. The oldest row is the one whose place is first;
// clocks go back, places do not. Counts of one lane cost its live rows.
func (s *store) Stats(ctx context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	var stats sdk.OutboxStats
	read := s.file.Read
	if req.Lane != "" {
		read = s.file.Browse
	}
	err := read(ctx, func(conn *sqlite.Conn) error {
		stats = sdk.OutboxStats{}
		_, err := sqlitefile.One(conn, sqlTotal, func(stmt *sqlite.Stmt) {
			var usage outboxstate.Usage
			usage, stats.Sealed = usageOf(stmt)
			stats.States, stats.Bytes = usage.States, usage.Bytes
		})
		if err != nil {
			return err
		}
		if stats.Holders, err = holders(conn, outboxstate.Millis(s.now())); err != nil {
			return err
		}
		if req.Lane != "" {
			return laneStats(conn, req.Lane, &stats)
		}
		_, err = sqlitefile.One(conn, sqlOldest, func(stmt *sqlite.Stmt) {
			stats.OldestLive = outboxstate.Time(stmt.ColumnInt64(0))
		})
		return err
	})
	return stats, err
}

// holders are the owners whose lease runs.
func holders(conn *sqlite.Conn, now int64) (owners []string, err error) {
	err = sqlitefile.Each(conn, sqlHolders, func(stmt *sqlite.Stmt) (bool, error) {
		lane := outboxstate.Lane{Owner: stmt.ColumnText(0), Expires: stmt.ColumnInt64(1)}
		if n := len(owners); lane.Live(now) && (n == 0 || owners[n-1] != lane.Owner) {
			owners = append(owners, lane.Owner)
		}
		return true, nil
	}, now)
	return owners, err
}

// laneStats counts the live rows of a lane.
func laneStats(conn *sqlite.Conn, lane string, stats *sdk.OutboxStats) error {
	stats.States, stats.Bytes = map[sdk.EntryState]int64{}, 0
	number, err := findName(conn, lane)
	if err != nil {
		return err
	}
	err = sqlitefile.Each(conn, sqlLaneStats, func(stmt *sqlite.Stmt) (bool, error) {
		state, err := stateOf(stmt.ColumnInt64(0))
		stats.States[state] = stmt.ColumnInt64(1)
		stats.Bytes += stmt.ColumnInt64(2)
		if last := outboxstate.Time(stmt.ColumnInt64(3)); last.After(stats.LastNotAfter) {
			stats.LastNotAfter = last
		}
		return true, err
	}, number)
	if err != nil {
		return err
	}
	_, err = sqlitefile.One(conn, sqlLaneOldest, func(stmt *sqlite.Stmt) {
		stats.OldestLive = outboxstate.Time(stmt.ColumnInt64(0))
	}, number)
	return err
}
