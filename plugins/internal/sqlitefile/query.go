package sqlitefile

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"
)

// Bind prepares query, which the connection caches, and binds args in order.
// They are int64, int, string, []byte or nil.
func Bind(conn *sqlite.Conn, query string, args ...any) (*sqlite.Stmt, error) {
	stmt, err := conn.Prepare(query)
	if err != nil {
		return nil, err
	}
	for i, arg := range args {
		switch v := arg.(type) {
		case nil:
			stmt.BindNull(i + 1)
		case int64:
			stmt.BindInt64(i+1, v)
		case int:
			stmt.BindInt64(i+1, int64(v))
		case string:
			stmt.BindText(i+1, v)
		case []byte:
			stmt.BindBytes(i+1, v)
		default:
			return nil, fmt.Errorf("bind %T to parameter %d", arg, i+1)
		}
	}
	return stmt, nil
}

// Ints carries out a statement that returns no rows and has whole numbers only.
// It is Run for hot paths: nothing is allocated.
func Ints(conn *sqlite.Conn, query string, args ...int64) error {
	stmt, err := conn.Prepare(query)
	if err != nil {
		return err
	}
	for i, arg := range args {
		stmt.BindInt64(i+1, arg)
	}
	_, err = stmt.Step()
	return err
}

// Run carries out a statement that returns no rows.
func Run(conn *sqlite.Conn, query string, args ...any) error {
	stmt, err := Bind(conn, query, args...)
	if err != nil {
		return err
	}
	_, err = stmt.Step()
	return err
}

// One runs a query of at most one row and calls f with it, if it is there.
func One(conn *sqlite.Conn, query string, f func(*sqlite.Stmt), args ...any) (found bool, err error) {
	stmt, err := Bind(conn, query, args...)
	if err != nil {
		return false, err
	}
	found, err = stmt.Step()
	if err != nil || !found {
		return false, err
	}
	f(stmt)
	return true, stmt.Reset()
}

// Each runs a query and calls f with each row until it answers false.
func Each(conn *sqlite.Conn, query string, f func(*sqlite.Stmt) (more bool, err error), args ...any) error {
	stmt, err := Bind(conn, query, args...)
	if err != nil {
		return err
	}
	for {
		row, err := stmt.Step()
		if err != nil || !row {
			return err
		}
		more, err := f(stmt)
		if err != nil || !more {
			return errors.Join(err, stmt.Reset())
		}
	}
}

// Blob copies a column of bytes; empty is nil.
func Blob(stmt *sqlite.Stmt, col int) []byte {
	n := stmt.ColumnLen(col)
	if n == 0 {
		return nil
	}
	buf := make([]byte, n)
	stmt.ColumnBytes(col, buf)
	return buf
}
