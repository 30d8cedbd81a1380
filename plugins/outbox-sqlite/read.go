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

// readEntry reads a row of columns; the body is not among them, its size is.
func (s *store) readEntry(conn *sqlite.Conn, stmt *sqlite.Stmt) (e sdk.Entry, size int64, err error) {
	e = sdk.Entry{
		Seq: stmt.ColumnInt64(0), ID: columnIdent(stmt, 1), ClientMessageID: columnIdent(stmt, 2),
		Nonce: columnNonce(stmt, 8), Fingerprint: sqlitefile.Blob(stmt, 9),
		EnqueuedAt: outboxstate.Time(stmt.ColumnInt64(10)), NotAfter: outboxstate.Time(stmt.ColumnInt64(11)),
		DueAt: outboxstate.Time(stmt.ColumnInt64(13)), Attempts: stmt.ColumnInt(14),
		LastError: stmt.ColumnText(15), BrokerMessageID: columnIdent(stmt, 16),
		AcceptedAt: outboxstate.Time(stmt.ColumnInt64(17)), DeliveredAt: outboxstate.Time(stmt.ColumnInt64(18)),
	}
	if e.ClientMessageID == "" {
		e.ClientMessageID = e.ID
	}
	if e.ID == "" {
		return e, 0, damaged("row %d without an id", e.Seq)
	}
	if e.State, err = stateOf(stmt.ColumnInt64(12)); err != nil {
		return e, 0, err
	}
	for i, text := range [...]*string{&e.Mesh, &e.Sender, &e.Lane, &e.Target, &e.Priority} {
		if *text, err = s.texts.of(conn, stmt.ColumnInt64(3+i)); err != nil {
			return e, 0, err
		}
	}
	return e, stmt.ColumnInt64(19), nil
}

// bodyOf reads the body that follows columns.
func bodyOf(stmt *sqlite.Stmt, e *sdk.Entry, size int64) ([]byte, error) {
	body := sqlitefile.Blob(stmt, 20)
	if int64(len(body)) != size {
		return nil, damaged("row %d with a body of %d bytes where %d belong", e.Seq, len(body), size)
	}
	return body, nil
}

// find finds an entry by its key, without its body; nil if it is not there.
func (s *store) find(conn *sqlite.Conn, key sdk.MessageKey) (*sdk.Entry, error) {
	mesh, err := findName(conn, key.Mesh)
	if err != nil || mesh == 0 {
		return nil, err
	}
	sender, err := findName(conn, key.Sender)
	if err != nil || sender == 0 {
		return nil, err
	}
	e, err := s.findID(conn, sqlByKey, key.ClientMessageID, sender, mesh)
	if err == nil && e == nil {
		e, err = s.findID(conn, sqlByOwn, key.ClientMessageID, sender, mesh)
	}
	return e, err
}

// findID runs a query of at most one row of columns whose first parameter is an
// id.
func (s *store) findID(conn *sqlite.Conn, query, id string, more ...any) (*sdk.Entry, error) {
	stmt, err := sqlitefile.Bind(conn, query, append([]any{ident(id)}, more...)...)
	if err != nil {
		return nil, err
	}
	found, err := stmt.Step()
	if err != nil || !found {
		return nil, err
	}
	defer stmt.Reset()
	e, size, err := s.readEntry(conn, stmt)
	if err == nil && query == sqlWhole {
		e.Body, err = bodyOf(stmt, &e, size)
	}
	return &e, err
}

// Lookup implements sdk.Outbox.
func (s *store) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	return readEach(ctx, s, keys, s.find)
}

// Get implements sdk.Outbox.
func (s *store) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	return readEach(ctx, s, ids, func(conn *sqlite.Conn, id string) (*sdk.Entry, error) {
		return s.findID(conn, sqlWhole, id)
	})
}

// readEach finds entries one by one in one snapshot.
func readEach[K any](ctx context.Context, s *store, keys []K, find func(conn *sqlite.Conn, key K) (*sdk.Entry, error)) ([]*sdk.Entry, error) {
	found := make([]*sdk.Entry, len(keys))
	err := s.file.Read(ctx, func(conn *sqlite.Conn) error {
		for i, key := range keys {
			var err error
			if found[i], err = find(conn, key); err != nil {
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

// List implements sdk.Outbox. A cursor is the seq of the last row of its page.
func (s *store) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if err := outboxstate.CheckList(req); err != nil {
		return sdk.ListPage{}, err
	}
	before, err := cursor(req.Before, 1<<63-1)
	if err != nil {
		return sdk.ListPage{}, err
	}
	var page sdk.ListPage
	err = s.file.Browse(ctx, func(conn *sqlite.Conn) error {
		page = sdk.ListPage{}
		query, args, err := s.listQuery(conn, req, before)
		if err != nil || query == "" {
			return err
		}
		stmt, err := sqlitefile.Bind(conn, query, args...)
		if err != nil {
			return err
		}
		defer stmt.Reset()
		for {
			row, err := stmt.Step()
			if err != nil || !row {
				return err
			}
			if n := len(page.Entries); n == req.Limit {
				page.Next = strconv.FormatInt(page.Entries[n-1].Seq, 10)
				return nil
			}
			e, _, err := s.readEntry(conn, stmt)
			if err != nil {
				return err
			}
			page.Entries = append(page.Entries, e)
		}
	})
	if err != nil {
		return sdk.ListPage{}, err
	}
	return page, nil
}

// cursor reads a place that this store gave; empty is the start.
func cursor(text string, start int64) (int64, error) {
	if text == "" {
		return start, nil
	}
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, sdk.Errorf(sdk.CodeInvalid, "bad_cursor", "outbox: %q is not a cursor of this outbox", text)
	}
	return seq, nil
}

// listQuery makes the statement of a page: of one row more than asked, which
// tells whether there is a next page. It is empty if no row can match. States
// that few rows are in have an index; other choices walk back from the newest
// row, or sort the live rows where there are fewer of these than others.
func (s *store) listQuery(conn *sqlite.Conn, req sdk.ListRequest, before int64) (query string, args []any, err error) {
	where := []string{"e.seq < ?1"}
	args = []any{before, req.Limit + 1}
	for _, choice := range []struct{ column, value string }{{"mesh", req.Mesh}, {"target", req.Target}} {
		if choice.value == "" {
			continue
		}
		number, err := findName(conn, choice.value)
		if err != nil || number == 0 {
			return "", nil, err
		}
		args = append(args, number)
		where = append(where, "+e."+choice.column+" = ?"+strconv.Itoa(len(args)))
	}
	from, err := s.listStates(conn, req.States, &where)
	if err != nil {
		return "", nil, err
	}
	return "SELECT " + columns + " FROM entry e" + from + " WHERE " + strings.Join(where, " AND ") + " ORDER BY e.seq DESC LIMIT ?2", args, nil
}

// listStates adds the choice of states to where and returns the index for it.
func (s *store) listStates(conn *sqlite.Conn, choose []sdk.EntryState, where *[]string) (index string, err error) {
	if len(choose) == 0 {
		return "", nil
	}
	numbers, live := make([]string, len(choose)), true
	for i, state := range choose {
		numbers[i] = strconv.FormatInt(stateNumber(state), 10)
		live = live && state.Live()
	}
	if len(choose) == 1 && rare(choose[0]) {
		*where = append(*where, "e.rare = "+numbers[0])
		return " INDEXED BY entry_rare", nil
	}
	*where = append(*where, "e.state IN ("+strings.Join(numbers, ", ")+")")
	if !live {
		return "", nil
	}
	usage, err := readUsage(conn)
	if err != nil || usage.Live() > total(usage)/4 {
		return "", err
	}
	*where = append(*where, "e.live = 1")
	return " INDEXED BY entry_queue", nil
}

// readUsage reads the counts of the snapshot.
func readUsage(conn *sqlite.Conn) (u outboxstate.Usage, err error) {
	_, err = sqlitefile.One(conn, sqlTotal, func(stmt *sqlite.Stmt) { u, _ = usageOf(stmt) })
	return u, err
}

func total(u outboxstate.Usage) (n int64) {
	for _, count := range u.States {
		n += count
	}
	return n
}
