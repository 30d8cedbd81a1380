package sqliteguard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// ErrIncomplete says that a database lacks transactions that were durable.
var ErrIncomplete = errors.New("transactions that were durable are missing")

// Guard is a database that was found complete. Open, Begin, Count and Committed
// belong to the goroutine that writes.
type Guard struct {
	path   string
	file   *os.File // the mark's; nil before Table
	mark   mark
	change int64 // of the connection, when the transaction began
	next   int64 // the transaction's number; 0: it changes nothing
}

// Create makes the file at path, mode 0600, if there is none, or an empty one. It
// is whole or not there, whenever the power fails, once the caller has synced the
// directory. A database that is gone while its mark or WAL is there is an error.
func Create(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && (info.Size() > 0 || !info.Mode().IsRegular()):
		return nil
	case err == nil: // a start that went no further
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	for _, suffix := range []string{"-wal", markSuffix} {
		if info, err := os.Stat(path + suffix); err == nil && info.Size() > 0 {
			return fmt.Errorf("%s is missing but %s tells of it; put the file back, or move %s away to begin anew", path, path+suffix, path+suffix)
		}
	}
	fresh := path + "-new"
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(firstPage())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, path)
}

// Open finds out whether the database at path has all that was durable, without
// a change to it. The error is [ErrIncomplete] if not; SQLite's own for damage.
func Open(path string) (*Guard, error) {
	keepHeap()
	summed, err := hasSums(path)
	if err != nil {
		return nil, err
	}
	known, found, err := readMark(path)
	if err != nil {
		return nil, fmt.Errorf("read the mark: %w", err)
	}
	// The header may be what is damaged.
	g := &Guard{path: path, mark: mark{summed: summed || found && known.summed}}
	// A connection that only reads leaves the WAL where it is, and with it what
	// may be rescued.
	conn, err := g.Conn(sqlite.OpenReadOnly)
	if err != nil {
		return nil, err
	}
	g.mark.n, err = readCount(conn)
	if err := errors.Join(err, conn.Close()); err != nil {
		return nil, err
	}
	if found && g.mark.n < known.n {
		return nil, fmt.Errorf("%w: %s has %d of %d", ErrIncomplete, path, g.mark.n, known.n)
	}
	return g, nil
}

// hasSums reads from the header whether pages have room for checksums.
func hasSums(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 21)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return head[20] == reserved, nil
}

// readCount reads table commit_count; without one, nothing was counted.
func readCount(conn *sqlite.Conn) (n int64, err error) {
	table := false
	read := func(query string, f func(*sqlite.Stmt)) {
		if err == nil {
			err = sqlitex.ExecuteTransient(conn, query, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error { f(stmt); return nil }})
		}
	}
	read("SELECT 1 FROM sqlite_schema WHERE name = 'commit_count'", func(*sqlite.Stmt) { table = true })
	if table {
		read("SELECT n FROM commit_count", func(stmt *sqlite.Stmt) { n = stmt.ColumnInt64(0) })
	}
	return n, err
}

// Conn opens a connection to the database.
func (g *Guard) Conn(flags sqlite.OpenFlags) (*sqlite.Conn, error) {
	if !g.mark.summed {
		return sqlite.OpenConn(g.path, flags)
	}
	if err := register(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(g.path)
	if err != nil {
		return nil, err
	}
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "vfs=" + vfsName}
	return sqlite.OpenConn(uri.String(), flags, sqlite.OpenURI)
}

// Table makes the table that transactions are counted in, and the mark's file. It
// runs within a transaction, once it is known whose database it is.
func (g *Guard) Table(conn *sqlite.Conn) (err error) {
	if g.file == nil {
		if g.file, err = os.OpenFile(g.path+markSuffix, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return fmt.Errorf("open the mark: %w", err)
		}
	}
	return sqlitex.ExecuteScript(conn, `
CREATE TABLE IF NOT EXISTS commit_count (one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL);
INSERT OR IGNORE INTO commit_count VALUES (1, 0);`, nil)
}

// Begin comes first in each transaction that writes.
func (g *Guard) Begin(conn *sqlite.Conn) (err error) {
	g.next = 0
	g.change, err = totalChanges(conn)
	return err
}

// Count comes last in it. A transaction that changed nothing is not counted and
// so stays one that costs no write.
func (g *Guard) Count(conn *sqlite.Conn) error {
	n, err := totalChanges(conn)
	if err != nil || n == g.change {
		return err
	}
	stmt, err := conn.Prepare("UPDATE commit_count SET n = ?")
	if err != nil {
		return err
	}
	stmt.BindInt64(1, g.mark.n+1)
	if _, err := stmt.Step(); err != nil {
		return err
	}
	if conn.Changes() != 1 {
		return fmt.Errorf("table commit_count of %s is empty; the file was changed by another program", g.path)
	}
	g.next = g.mark.n + 1
	return nil
}

func totalChanges(conn *sqlite.Conn) (int64, error) {
	stmt, err := conn.Prepare("SELECT total_changes()")
	if err != nil {
		return 0, err
	}
	if _, err := stmt.Step(); err != nil {
		return 0, err
	}
	n := stmt.ColumnInt64(0)
	return n, stmt.Reset()
}

// Committed notes that the transaction is durable. A mark that can't be written
// is no failure of the transaction: it says less than is there until the next one.
func (g *Guard) Committed() {
	if g.next == 0 {
		return
	}
	g.mark.n = g.next
	_, _ = g.file.WriteAt(g.mark.bytes(), 0)
}

// Close makes the mark durable, as far as the disk lets it.
func (g *Guard) Close() error {
	if g.file == nil {
		return nil
	}
	_ = g.file.Sync()
	return g.file.Close()
}
