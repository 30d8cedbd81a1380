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
		if err := refuseSealed(conn); err != nil {
			return err
		}
		lane, err := readLane(conn, req.Lane)
		if err != nil {
			return err
		}
		if !lane.Holds(req.Epoch) {
			return outboxstate.FencedError(req.Lane, req.Epoch)
		}
		number, err := findName(conn, req.Lane)
		if err != nil {
			return err
		}
		targets, err := s.dueTargets(conn, number, req, &res)
		if err != nil {
			return err
		}
		return s.readQueues(conn, number, req, targets, &res)
	})
	if err != nil {
		return sdk.FetchResult{}, err
	}
	return res, nil
}

// due is a target with a due queue.
type due struct {
	number int64
	text   string
}

// dueTargets returns the targets of due queues within the bounds, and sets
// res.More and res.NextDue.
func (s *store) dueTargets(conn *sqlite.Conn, lane int64, req sdk.FetchRequest, res *sdk.FetchResult) ([]due, error) {
	now := outboxstate.Millis(s.now())
	held := make(map[string]bool, len(req.Held))
	for _, target := range req.Held {
		held[target] = true
	}
	bound := min(req.MaxQueues, req.MaxRows)
	res.NextDue = -1
	var targets []due
	// take is called with heads in the order of their due times.
	take := func(target due, at int64) (more bool) {
		switch {
		case held[target.text]:
		case !outboxstate.Due(at, now):
			res.NextDue = time.Duration(at-now) * time.Millisecond
			return false
		case len(targets) < bound:
			targets = append(targets, target)
		default:
			res.More = true
			return false
		}
		return true
	}
	if err := s.eachHead(conn, take, sqlHeads, lane); err != nil {
		return nil, err
	}
	if res.NextDue >= 0 {
		// Behind the heads that are due later may be some of a clock that went back.
		return targets, s.eachHead(conn, take, sqlHeadsAfter, lane, outboxstate.Horizon(now))
	}
	if !res.More {
		return targets, nil
	}
	// The first head that is not due yet may be far behind many due ones; one
	// step finds it.
	return targets, s.eachHead(conn, func(target due, at int64) bool {
		if !held[target.text] && !outboxstate.Due(at, now) {
			res.NextDue = time.Duration(at-now) * time.Millisecond
		}
		return held[target.text]
	}, sqlHeadsAfter, lane, now)
}

// eachHead calls f with the target and due time of each head until it answers
// false.
func (s *store) eachHead(conn *sqlite.Conn, f func(target due, at int64) (more bool), query string, args ...any) error {
	return sqlitefile.Each(conn, query, func(stmt *sqlite.Stmt) (bool, error) {
		number := stmt.ColumnInt64(0)
		text, err := s.texts.of(conn, number)
		if err != nil {
			return false, err
		}
		return f(due{number, text}, stmt.ColumnInt64(1)), nil
	}, args...)
}

// readQueues fills res with the first rows of each target's queue.
func (s *store) readQueues(conn *sqlite.Conn, lane int64, req sdk.FetchRequest, targets []due, res *sdk.FetchResult) error {
	rows, bytes := req.MaxRows, int64(outboxstate.FetchBytes)
	for i, target := range targets {
		if i > 0 && bytes <= 0 {
			res.More = true
			return nil
		}
		queue, err := s.readQueue(conn, lane, target, outboxstate.Share(rows, len(targets)-i), &bytes)
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
func (s *store) readQueue(conn *sqlite.Conn, lane int64, target due, limit int, bytes *int64) (sdk.Queue, error) {
	queue := sdk.Queue{Target: target.text}
	stmt, err := sqlitefile.Bind(conn, sqlQueue, lane, target.number, limit+1)
	if err != nil {
		return queue, err
	}
	defer stmt.Reset()
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return queue, err
		}
		entry, size, err := s.readEntry(conn, stmt)
		if err != nil {
			return queue, err
		}
		if len(queue.Rows) == limit || len(queue.Rows) > 0 && size > *bytes {
			queue.More = true
			return queue, nil
		}
		if entry.Body, err = bodyOf(stmt, &entry, size); err != nil {
			return queue, err
		}
		*bytes -= size
		queue.Rows = append(queue.Rows, entry)
	}
}
