package main

import (
	"context"
	"time"

	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// Fetch implements sdk.Outbox. It walks the heads of the lane in the order of
// their due times, so it costs what it returns and what is held.
func (s *store) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	if err := outboxstate.CheckFetch(req); err != nil {
		return sdk.FetchResult{}, err
	}
	var res sdk.FetchResult
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		lane, err := readLane(conn, req.Lane)
		if err != nil {
			return err
		}
		if !lane.Holds(req.Epoch) {
			return outboxstate.FencedError(req.Lane, req.Epoch)
		}
		targets, err := dueTargets(conn, req, outboxstate.Millis(s.now()), &res)
		if err != nil {
			return err
		}
		return readQueues(conn, req, targets, &res)
	})
	if err != nil {
		return sdk.FetchResult{}, err
	}
	return res, nil
}

// dueTargets returns the targets of due queues within the bounds, and sets
// res.More and res.NextDue.
func dueTargets(conn *sqlite.Conn, req sdk.FetchRequest, now int64, res *sdk.FetchResult) ([]string, error) {
	held := make(map[string]bool, len(req.Held))
	for _, target := range req.Held {
		held[target] = true
	}
	bound := min(req.MaxQueues, req.MaxRows)
	res.NextDue = -1
	var targets []string
	// take is called with heads in the order of their due times.
	take := func(target string, due int64) (more bool) {
		switch {
		case held[target]:
		case !outboxstate.Due(due, now):
			res.NextDue = time.Duration(due-now) * time.Millisecond
			return false
		case len(targets) < bound:
			targets = append(targets, target)
		default:
			res.More = true
			return false
		}
		return true
	}
	if err := eachHead(conn, take, sqlHeads, req.Lane); err != nil {
		return nil, err
	}
	if res.NextDue >= 0 {
		// Behind the heads that are due later may be some of a clock that went back.
		return targets, eachHead(conn, take, sqlHeadsAfter, req.Lane, outboxstate.Horizon(now))
	}
	if !res.More {
		return targets, nil
	}
	// The first head that is not due yet may be far behind many due ones; one
	// step finds it.
	return targets, eachHead(conn, func(target string, due int64) bool {
		if !held[target] && !outboxstate.Due(due, now) {
			res.NextDue = time.Duration(due-now) * time.Millisecond
		}
		return held[target]
	}, sqlHeadsAfter, req.Lane, now)
}

// eachHead calls f with the target and due time of each head until it answers
// false.
func eachHead(conn *sqlite.Conn, f func(target string, due int64) (more bool), query string, args ...any) error {
	return sqlitefile.Each(conn, query, func(stmt *sqlite.Stmt) (bool, error) {
		return f(stmt.ColumnText(0), stmt.ColumnInt64(1)), nil
	}, args...)
}

// readQueues fills res with the first rows of each target's queue.
func readQueues(conn *sqlite.Conn, req sdk.FetchRequest, targets []string, res *sdk.FetchResult) error {
	rows, bytes := req.MaxRows, int64(outboxstate.FetchBytes)
	for i, target := range targets {
		if i > 0 && bytes <= 0 {
			res.More = true
			return nil
		}
		queue, err := readQueue(conn, req.Lane, target, outboxstate.Share(rows, len(targets)-i), &bytes)
		if err != nil {
			return err
		}
		rows -= len(queue.Rows)
		res.Queues = append(res.Queues, queue)
	}
	return nil
}

// readQueue reads at most limit rows and, past the head, no more than *bytes of
// bodies, which it counts down.
func readQueue(conn *sqlite.Conn, lane, target string, limit int, bytes *int64) (sdk.Queue, error) {
	queue := sdk.Queue{Target: target}
	stmt, err := sqlitefile.Bind(conn, sqlQueue, lane, target, limit+1)
	if err != nil {
		return queue, err
	}
	defer stmt.Reset()
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return queue, err
		}
		n, size, entry := readEntry(stmt)
		if len(queue.Rows) == limit || len(queue.Rows) > 0 && size > *bytes {
			queue.More = true
			return queue, nil
		}
		if entry.Body, err = readBody(conn, n); err != nil {
			return queue, err
		}
		*bytes -= size
		queue.Rows = append(queue.Rows, entry)
	}
}

// readEntry reads a row of columns; the body is not among them.
func readEntry(stmt *sqlite.Stmt) (n, size int64, e sdk.Entry) {
	e = sdk.Entry{
		ID: stmt.ColumnText(1), ClientMessageID: stmt.ColumnText(2), Mesh: stmt.ColumnText(3),
		Sender: stmt.ColumnText(4), Lane: stmt.ColumnText(5), Target: stmt.ColumnText(6),
		Priority: stmt.ColumnText(7), Nonce: stmt.ColumnText(8), Fingerprint: sqlitefile.Blob(stmt, 9),
		EnqueuedAt: outboxstate.Time(stmt.ColumnInt64(10)), NotAfter: outboxstate.Time(stmt.ColumnInt64(11)),
		Seq: stmt.ColumnInt64(12), State: sdk.EntryState(stmt.ColumnText(13)),
		DueAt: outboxstate.Time(stmt.ColumnInt64(14)), Attempts: stmt.ColumnInt(15),
		LastError: stmt.ColumnText(16), BrokerMessageID: stmt.ColumnText(17),
		AcceptedAt: outboxstate.Time(stmt.ColumnInt64(18)), DeliveredAt: outboxstate.Time(stmt.ColumnInt64(19)),
	}
	return stmt.ColumnInt64(0), stmt.ColumnInt64(20), e
}

func readBody(conn *sqlite.Conn, n int64) (body []byte, err error) {
	_, err = sqlitefile.One(conn, sqlBody, func(stmt *sqlite.Stmt) { body = sqlitefile.Blob(stmt, 0) }, n)
	return body, err
}
