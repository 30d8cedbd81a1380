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

// Bounds of one page of a scan. Between pages nothing is held: a consumer may
// take its time.
const (
	scanRows = 500
	// scanWalk is how many places a page looks at where only some are chosen.
	scanWalk = 20_000
)

// Scan implements sdk.Outbox. A cursor is the last seq that was looked at.
func (s *store) Scan(ctx context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	if err := outboxstate.CheckScan(req); err != nil {
		return err
	}
	after, err := cursor(req.After, 0)
	if err != nil {
		return err
	}
	for more := true; more; {
		var next sdk.ScanPage
		err := s.file.Browse(ctx, func(conn *sqlite.Conn) (err error) {
			next, after, more, err = s.scanPage(conn, req, after)
			return err
		})
		if err != nil {
			return err
		}
		if len(next.Entries) == 0 {
			continue
		}
		next.Cursor = strconv.FormatInt(after, 10)
		if err := page(next); err != nil {
			return err
		}
	}
	return nil
}

// scanPage reads the entries behind a place. last is the place it came to, more
// whether there may be others behind it.
func (s *store) scanPage(conn *sqlite.Conn, req sdk.ScanRequest, after int64) (page sdk.ScanPage, last int64, more bool, err error) {
	query, args, end, err := scanQuery(conn, req, after)
	if err != nil || query == "" {
		return page, after, false, err
	}
	stmt, err := sqlitefile.Bind(conn, query, args...)
	if err != nil {
		return page, after, false, err
	}
	defer stmt.Reset()
	bytes := int64(outboxstate.FetchBytes)
	last = after
	for {
		row, err := stmt.Step()
		if err != nil {
			return page, after, false, err
		}
		if !row {
			return page, max(last, end), end > 0, nil
		}
		e, size, err := s.readEntry(conn, stmt)
		if err != nil {
			return page, after, false, err
		}
		if len(page.Entries) == scanRows || len(page.Entries) > 0 && req.Bodies && size > bytes {
			return page, last, true, nil
		}
		if req.Bodies {
			if e.Body, err = bodyOf(stmt, &e, size); err != nil {
				return page, after, false, err
			}
			bytes -= size
		}
		page.Entries, last = append(page.Entries, e), e.Seq
	}
}

// scanQuery makes the statement of a page. end, where it is set, is the place
// up to which the statement looks and behind which there are more rows. The
// query is empty if no row can match.
func scanQuery(conn *sqlite.Conn, req sdk.ScanRequest, after int64) (query string, args []any, end int64, err error) {
	where := []string{"e.seq > ?1"}
	args = []any{after, scanRows + 1}
	index := ""
	if req.Lane != "" {
		lane, err := findName(conn, req.Lane)
		if err != nil || lane == 0 {
			return "", nil, 0, err
		}
		args = append(args, lane)
		where = append(where, "e.lane = ?3")
	}
	if len(req.States) > 0 {
		numbers := make([]string, len(req.States))
		for i, state := range req.States {
			numbers[i] = strconv.FormatInt(stateNumber(state), 10)
		}
		where = append(where, "e.state IN ("+strings.Join(numbers, ", ")+")")
	}
	switch {
	case req.Unconfirmed:
		where = append(where, "e.unconfirmed = 1")
		index = " INDEXED BY entry_unconfirmed"
	case len(where) > 1:
		if end, err = walkEnd(conn, after); err != nil {
			return "", nil, 0, err
		}
		if end > 0 {
			args = append(args, end)
			where = append(where, "e.seq <= ?"+strconv.Itoa(len(args)))
		}
	}
	data, join := "", ""
	if req.Bodies {
		data, join = ", b.data", " LEFT JOIN body b USING (seq)"
	}
	return "SELECT " + columns + data + " FROM entry e" + index + join + " WHERE " + strings.Join(where, " AND ") +
		" ORDER BY e.seq LIMIT ?2", args, end, nil
}

// walkEnd is the place of the last row that a page looks at; 0 if it can look
// at all that are left.
func walkEnd(conn *sqlite.Conn, after int64) (end int64, err error) {
	_, err = sqlitefile.One(conn, sqlWalkEnd, func(stmt *sqlite.Stmt) { end = stmt.ColumnInt64(0) }, after, scanWalk)
	return end, err
}
