package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// markSeen marks messages as seen and counts those that were not. Ids that are
// not there are passed over: they may have been pruned meanwhile.
func (s *store) markSeen(ctx context.Context, ids []string, w scope) (int, error) {
	var count int
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		count = 0
		for _, id := range ids {
			n, err := arrivalOf(conn, id)
			if errors.Is(err, sdk.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			where, args := w.conditions([]string{"n = ?2", "seen_at = 0"}, []any{s.now().UnixMilli(), n})
			if err := sqlitefile.Run(conn, "UPDATE messages SET seen_at = ?1 WHERE "+strings.Join(where, " AND "), args...); err != nil {
				return err
			}
			count += conn.Changes()
		}
		return nil
	})
	if err != nil {
		return 0, err // the transaction may be running still: count is not ours to read
	}
	return count, nil
}

// remove deletes one message. That it was here is remembered: it does not come
// back with a redelivery.
func (s *store) remove(ctx context.Context, id string, w scope) error {
	return s.file.Write(ctx, func(conn *sqlite.Conn) error {
		n, err := arrivalOf(conn, id)
		if err != nil {
			return err
		}
		where, args := w.conditions([]string{"n = ?1"}, []any{n})
		if err := sqlitefile.Run(conn, "DELETE FROM messages WHERE "+strings.Join(where, " AND "), args...); err != nil {
			return err
		}
		if conn.Changes() == 0 {
			return notFound(id)
		}
		s.count--
		return nil
	})
}

// pruneStep bounds what one transaction deletes, so that pushes need not wait
// for a long one.
const pruneStep = 2000

// prune deletes messages received before a time and returns how many.
func (s *store) prune(ctx context.Context, before time.Time, w scope) (total int, err error) {
	for {
		count := 0
		err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
			where, args := w.conditions([]string{"received_at < ?1"}, []any{before.UnixMilli()})
			args = append(args, pruneStep)
			err := sqlitefile.Run(conn, "DELETE FROM messages WHERE n IN (SELECT n FROM messages WHERE "+
				strings.Join(where, " AND ")+" ORDER BY received_at LIMIT ?"+strconv.Itoa(len(args))+")", args...)
			count = conn.Changes()
			s.count -= int64(count)
			return err
		})
		if err != nil {
			return total, err
		}
		total += count
		if count < pruneStep {
			return total, nil
		}
	}
}

// forget drops the dedup keys of what arrived before a time and is gone.
func (s *store) forget(ctx context.Context, before time.Time) error {
	for {
		count := 0
		err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
			rows, err := oldArrivals(conn, before)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if err := r.drop(conn); err != nil {
					return err
				}
			}
			count = len(rows)
			return nil
		})
		if err != nil || count < pruneStep {
			return err
		}
	}
}

// forgetExcess drops the dedup keys of the oldest that are gone, beyond those
// that are to be remembered.
func (s *store) forgetExcess(ctx context.Context) error {
	var excess int64
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		_, err := sqlitefile.One(conn, `SELECT (SELECT count(*) FROM arrival) - (SELECT count(*) FROM messages)`,
			func(stmt *sqlite.Stmt) { excess = stmt.ColumnInt64(0) - s.remember })
		return err
	})
	if err != nil {
		return err
	}
	for after := int64(0); excess > 0; {
		last, dropped := after, int64(0)
		err = s.file.Write(ctx, func(conn *sqlite.Conn) error {
			last, dropped = after, 0
			var gone []arrival
			err := sqlitefile.Each(conn, `SELECT n, keys, EXISTS (SELECT 1 FROM messages WHERE messages.n = arrival.n)
FROM arrival WHERE n > ?1 ORDER BY n LIMIT ?2`, func(stmt *sqlite.Stmt) (bool, error) {
				last = stmt.ColumnInt64(0)
				if stmt.ColumnInt64(2) == 0 {
					gone = append(gone, arrival{n: last, keys: sqlitefile.Blob(stmt, 1)})
				}
				return true, nil
			}, after, pruneStep)
			for i := 0; err == nil && i < len(gone) && dropped < excess; i++ {
				err = gone[i].drop(conn)
				dropped++
			}
			return err
		})
		if err != nil || last == after {
			return err
		}
		after, excess = last, excess-dropped
	}
	return nil
}

type arrival struct {
	n    int64
	keys []byte
}

// drop forgets an arrival and its dedup keys.
func (a arrival) drop(conn *sqlite.Conn) error {
	for k := range len(a.keys) / len(key{}) {
		if err := sqlitefile.Run(conn, `DELETE FROM dedup WHERE key = ?1`, a.keys[k*len(key{}):(k+1)*len(key{})]); err != nil {
			return err
		}
	}
	return sqlitefile.Run(conn, `DELETE FROM arrival WHERE n = ?1`, a.n)
}

// oldArrivals walks from the first arrival. It stops at one that is young or
// whose message is still there: what came after is not much older.
func oldArrivals(conn *sqlite.Conn, before time.Time) (rows []arrival, err error) {
	err = sqlitefile.Each(conn, `SELECT n, at, keys, EXISTS (SELECT 1 FROM messages WHERE messages.n = arrival.n)
FROM arrival ORDER BY n LIMIT ?1`, func(stmt *sqlite.Stmt) (bool, error) {
		if stmt.ColumnInt64(1) >= before.UnixMilli() || stmt.ColumnInt64(3) == 1 {
			return false, nil
		}
		rows = append(rows, arrival{n: stmt.ColumnInt64(0), keys: sqlitefile.Blob(stmt, 2)})
		return true, nil
	}, pruneStep)
	return rows, err
}
