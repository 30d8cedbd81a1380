package sqliteguard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// box is a guarded database with one connection that writes.
type box struct {
	t     testing.TB
	path  string
	guard *Guard
	conn  *sqlite.Conn
}

func openBox(t testing.TB, path string) (*box, error) {
	t.Helper()
	if err := Create(path); err != nil {
		return nil, err
	}
	guard, err := Open(path)
	if err != nil {
		return nil, err
	}
	conn, err := guard.Conn(sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	b := &box{t, path, guard, conn}
	if err := b.do(func() error {
		return errors.Join(guard.Table(conn), sqlitex.ExecuteScript(conn, "CREATE TABLE IF NOT EXISTS item (v BLOB);", nil))
	}); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func mustOpen(t testing.TB, path string) *box {
	t.Helper()
	b, err := openBox(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *box) do(f func() error) (err error) {
	end, err := sqlitex.ImmediateTransaction(b.conn)
	if err != nil {
		return err
	}
	defer func() {
		end(&err)
		if err == nil {
			b.guard.Committed()
		}
	}()
	if err := b.guard.Begin(b.conn); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return b.guard.Count(b.conn)
}

func (b *box) put(size int) {
	b.t.Helper()
	err := b.do(func() error {
		return sqlitex.Execute(b.conn, "INSERT INTO item VALUES (?)", &sqlitex.ExecOptions{Args: []any{bytes.Repeat([]byte{7}, size)}})
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) count() (n int, err error) {
	err = sqlitex.ExecuteTransient(b.conn, "SELECT v FROM item", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		v := make([]byte, stmt.ColumnLen(0))
		stmt.ColumnBytes(0, v)
		n++
		return nil
	}})
	return n, err
}

func (b *box) close() {
	b.t.Helper()
	if err := errors.Join(b.conn.Close(), b.guard.Close()); err != nil {
		b.t.Error(err)
	}
}

// copyTo copies what a killed process leaves.
func (b *box) copyTo(path string, suffixes ...string) {
	b.t.Helper()
	for _, suffix := range suffixes {
		raw, err := os.ReadFile(b.path + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, raw, 0o600)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestEachPageInTheFileHasItsChecksum(t *testing.T) {
	b := mustOpen(t, filepath.Join(t.TempDir(), "x.db"))
	for i := range 40 {
		b.put(i * 500)
	}
	b.close()
	raw, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) < 20*PageSize {
		t.Fatalf("only %d bytes", len(raw))
	}
	for n := range len(raw) / PageSize {
		page := raw[n*PageSize : (n+1)*PageSize]
		if bytes.Equal(page[PageSize-reserved:], make([]byte, reserved)) || !sound(uint32(n+1), page) {
			t.Errorf("page %d has none", n+1)
		}
		if sound(uint32(n+2), page) {
			t.Errorf("page %d passes for another", n+1)
		}
	}
	b = mustOpen(t, b.path)
	defer b.close()
	if n, err := b.count(); n != 40 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestWhatAnotherProgramDoes(t *testing.T) {
	// The last connection that closes moves the WAL into the file.
	foreign := func(t *testing.T, path, script string) {
		t.Helper()
		conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(sqlitex.ExecuteScript(conn, script, nil), conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	left := func(t *testing.T) string {
		b := mustOpen(t, filepath.Join(t.TempDir(), "x.db"))
		defer b.close()
		for range 20 {
			b.put(3000)
		}
		path := filepath.Join(t.TempDir(), "left.db")
		b.copyTo(path, "", "-wal", "-mark")
		return path
	}
	t.Run("look does no harm", func(t *testing.T) {
		path := left(t)
		foreign(t, path, "SELECT count(*) FROM item;")
		b := mustOpen(t, path)
		defer b.close()
		if n, err := b.count(); n != 20 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		b.put(3000)
	})
	t.Run("change is taken for damage", func(t *testing.T) {
		path := left(t)
		mustOpen(t, path).close() // into the file, with checksums
		foreign(t, path, "UPDATE item SET v = x'00';")
		b, err := openBox(t, path)
		if err == nil {
			_, err = b.count()
			b.close()
		}
		if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultCorrupt {
			t.Errorf("got %v", err)
		}
	})
}

func TestLostTransactionsAreMissed(t *testing.T) {
	b := mustOpen(t, filepath.Join(t.TempDir(), "x.db"))
	defer b.close()
	for range 10 {
		b.put(100)
	}
	dir := t.TempDir()
	early := filepath.Join(dir, "early.db")
	b.copyTo(early, "", "-wal", "-mark")
	b.put(100)
	for name, c := range map[string]struct {
		prepare func(path string)
		whole   bool
	}{
		"all there":                  {func(path string) { b.copyTo(path, "", "-wal", "-mark") }, true},
		"the mark is older":          {func(path string) { b.copyTo(path, "", "-wal"); mustRename(t, early+"-mark", path+"-mark") }, true},
		"the mark is gone":           {func(path string) { b.copyTo(path, "", "-wal") }, true},
		"power loss tore the mark":   {func(path string) { b.copyTo(path, "", "-wal"); mustWrite(t, path+"-mark", make([]byte, 21)) }, true},
		"the WAL is gone":            {func(path string) { b.copyTo(path, "", "-mark") }, false},
		"one transaction is missing": {func(path string) { b.copyTo(path, "", "-mark"); mustCopy(t, early+"-wal", path+"-wal") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			c.prepare(path)
			wal, _ := os.ReadFile(path + "-wal")
			got, err := openBox(t, path)
			if c.whole {
				if err != nil {
					t.Fatal(err)
				}
				defer got.close()
				if n, err := got.count(); n != 11 || err != nil {
					t.Errorf("%d rows, %v", n, err)
				}
				return
			}
			if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v", err)
			}
			if after, _ := os.ReadFile(path + "-wal"); !bytes.Equal(wal, after) {
				t.Error("the WAL changed: nothing can be rescued from it")
			}
			if err := os.Remove(path + "-mark"); err != nil {
				t.Fatal(err)
			}
			mustOpen(t, path).close()
		})
	}
}

func mustRename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func mustCopy(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, to, raw)
}

func mustWrite(t testing.TB, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseThatIsGoneIsNotReplacedByAnEmptyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	b := mustOpen(t, path)
	b.put(1)
	b.close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); err == nil || !strings.Contains(err.Error(), path+"-mark") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

func TestAFileFromBeforeIsOpenedWithoutChecksums(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sqlitex.ExecuteScript(conn, "CREATE TABLE item (v BLOB);", nil), conn.Close()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		b := mustOpen(t, path)
		b.put(9000)
		if n, err := b.count(); n != i+1 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		b.close()
	}
}

func TestATransactionThatChangesNothingIsNotCounted(t *testing.T) {
	b := mustOpen(t, filepath.Join(t.TempDir(), "x.db"))
	defer b.close()
	b.put(1)
	before := b.guard.mark.n
	if err := b.do(func() error { _, err := b.count(); return err }); err != nil {
		t.Fatal(err)
	}
	if err := b.do(func() error { return errors.New("no") }); err == nil {
		t.Fatal("no error")
	}
	if b.guard.mark.n != before {
		t.Errorf("counted %d, want %d", b.guard.mark.n, before)
	}
	b.put(1)
	if b.guard.mark.n != before+1 {
		t.Errorf("counted %d, want %d", b.guard.mark.n, before+1)
	}
}

// BenchmarkCommit is what the guard adds to a commit: one row in one transaction,
// without the sync, whose time would hide it.
func BenchmarkCommit(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", guarded), func(b *testing.B) {
			box := mustOpen(b, filepath.Join(b.TempDir(), "x.db"))
			defer box.close()
			if err := sqlitex.ExecuteTransient(box.conn, "PRAGMA synchronous=OFF", nil); err != nil {
				b.Fatal(err)
			}
			if !guarded {
				conn, err := sqlite.OpenConn(box.path, sqlite.OpenReadWrite)
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				if err := sqlitex.ExecuteTransient(conn, "PRAGMA synchronous=OFF", nil); err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					end, err := sqlitex.ImmediateTransaction(conn)
					if err != nil {
						b.Fatal(err)
					}
					err = sqlitex.Execute(conn, "INSERT INTO item VALUES (zeroblob(400))", nil)
					end(&err)
					if err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			for b.Loop() {
				err := box.do(func() error { return sqlitex.Execute(box.conn, "INSERT INTO item VALUES (zeroblob(400))", nil) })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
