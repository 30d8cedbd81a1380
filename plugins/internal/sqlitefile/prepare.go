package sqlitefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/sqliteguard"
	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// busyTimeout is how long a statement waits for a person who has the file open
// in another program.
const busyTimeout = 5 * time.Second

// magic opens every SQLite file.
const magic = "SQLite format 3\x00"

// create makes the file with mode 0600 if it is missing, and refuses to go on
// where that would hide an earlier one. sync is syncDir.
func create(spec Spec, sync func(dir string) error) error {
	dir := filepath.Dir(spec.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%s: make directory of %s: %w", spec.What, spec.Path, err)
	}
	file, err := os.Open(spec.Path)
	if err == nil {
		defer file.Close()
		fresh, err := checkMagic(spec, file)
		if err != nil || !fresh {
			return err
		}
		if err := sqliteguard.Create(spec.Path); err != nil {
			return fmt.Errorf("%s: create database: %w", spec.What, err)
		}
		return syncNames(dir, sync)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: open database: %w; make it readable and writable for this user", spec.What, err)
	}
	if err := sqliteguard.Create(spec.Path); err != nil {
		return fmt.Errorf("%s: create database: %w", spec.What, err)
	}
	return syncNames(dir, sync)
}

// syncNames makes a new file in dir survive power loss. The directories above
// may be as new, whoever made them; those that can't be opened or synced are not.
func syncNames(dir string, sync func(dir string) error) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := sync(dir); err != nil {
		return err
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		if err := sync(dir); errors.Is(err, unix.EIO) {
			return err
		}
	}
	return nil
}

// checkMagic keeps SQLite's hands off a file that is something else. One of a
// page at most may be as new as a start that went no further left it.
func checkMagic(spec Spec, file *os.File) (fresh bool, err error) {
	info, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("%s: look at %s: %w", spec.What, spec.Path, err)
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: %s is not a regular file; set path to a file", spec.What, spec.Path)
	}
	if info.Size() == 0 {
		return true, nil
	}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(file, head); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("%s: read %s: %w", spec.What, spec.Path, err)
	}
	if string(head) != magic {
		return false, fmt.Errorf("%s: %s is not a SQLite database; move it away or set path to another file", spec.What, spec.Path)
	}
	return info.Size() <= sqliteguard.PageSize, nil
}

// syncDir makes a new name in dir survive power loss.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// lockFile takes the lock that keeps a second process out. The lock is on a
// file beside the database, since closing any descriptor of the database would
// drop SQLite's own locks. It ends with the process, however that ends.
func lockFile(spec Spec) (*os.File, error) {
	file, err := os.OpenFile(spec.Path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: open lock of %s: %w", spec.What, spec.Path, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner := make([]byte, 64)
		n, _ := file.ReadAt(owner, 0) // the owner may not have written its name yet
		file.Close()
		who := strings.TrimSpace(string(owner[:n]))
		if who == "" {
			who = "another process"
		}
		return nil, fmt.Errorf("%s: %s is in use by %s; stop it, or set path to another file", spec.What, spec.Path, who)
	}
	if err := file.Truncate(0); err == nil {
		_, err = file.WriteAt(fmt.Appendf(nil, "process %d\n", os.Getpid()), 0)
		if err == nil {
			return file, nil
		}
	}
	file.Close()
	return nil, fmt.Errorf("%s: write lock %s.lock: no space or no permission", spec.What, spec.Path)
}

// prepare checks whose database it is, sets it up and migrates it.
func (f *File) prepare(conn *sqlite.Conn) error {
	conn.SetBusyTimeout(busyTimeout)
	app, err := number(conn, "PRAGMA application_id")
	if err != nil {
		return f.explain(err)
	}
	version, err := number(conn, "PRAGMA user_version")
	if err != nil {
		return f.explain(err)
	}
	tables, err := number(conn, "SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return f.explain(err)
	}
	spec := f.spec
	switch {
	case app != int64(spec.ApplicationID) && (app != 0 || tables != 0):
		return fmt.Errorf("%s: %s is a database of another program; set path to another file", spec.What, spec.Path)
	case version > int64(len(spec.Steps)):
		return fmt.Errorf("%s: %s has schema version %d, this plugin knows %d; run the newer plugin, or set path to another file",
			spec.What, spec.Path, version, len(spec.Steps))
	}
	if err := f.durable(conn); err != nil {
		return err
	}
	return f.migrate(conn, int(version))
}

// incomplete is the error of a database whose end is gone.
func (f *File) incomplete(err error) error {
	return f.fault(sdk.CodeInternal, "incomplete", err, "lacks what was answered as stored",
		"stop the daemon, keep a copy, and put a backup back; to go on with what is left, remove "+f.spec.Path+"-mark")
}

// durable sets the journal and sync modes and reads them back: SQLite answers a
// mode it cannot have with the one that it kept, not with an error.
func (f *File) durable(conn *sqlite.Conn) error {
	if err := sqlitex.ExecuteTransient(conn, "PRAGMA journal_mode=WAL", nil); err != nil {
		return f.explain(err)
	}
	for _, pragma := range []string{
		"PRAGMA synchronous=" + synchronous,
		"PRAGMA cache_size=-16384",           // KiB
		"PRAGMA journal_size_limit=67108864", // a WAL that grew shrinks to 64 MiB
		"PRAGMA temp_store=MEMORY",
	} {
		if err := sqlitex.ExecuteTransient(conn, pragma, nil); err != nil {
			return f.explain(err)
		}
	}
	return verify(f.spec, conn)
}

// verify refuses to serve without a WAL that is synced at each commit.
func verify(spec Spec, conn *sqlite.Conn) error {
	mode, err := text(conn, "PRAGMA journal_mode")
	if err != nil {
		return fmt.Errorf("%s: read journal mode of %s: %w", spec.What, spec.Path, err)
	}
	sync, err := number(conn, "PRAGMA synchronous")
	if err != nil {
		return fmt.Errorf("%s: read sync mode of %s: %w", spec.What, spec.Path, err)
	}
	if mode != "wal" || sync != synchronousCode {
		return fmt.Errorf("%s: %s has journal_mode=%s and synchronous=%d where wal and 2 (FULL) are needed to survive power loss; "+
			"put it on a local file system", spec.What, spec.Path, mode, sync)
	}
	return nil
}

// migrate brings the schema up to date and makes the table of the guard.
func (f *File) migrate(conn *sqlite.Conn, from int) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return f.explain(err)
	}
	defer func() {
		end(&err)
		err = f.explain(err)
	}()
	if err := f.guard.Table(conn); err != nil || from == len(f.spec.Steps) {
		return err
	}
	for _, step := range f.spec.Steps[from:] {
		if err := sqlitex.ExecuteScript(conn, step, nil); err != nil {
			return err
		}
	}
	return sqlitex.ExecuteScript(conn, fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d;",
		f.spec.ApplicationID, len(f.spec.Steps)), nil)
}

func number(conn *sqlite.Conn, query string) (int64, error) {
	stmt, _, err := conn.PrepareTransient(query)
	if err != nil {
		return 0, err
	}
	defer stmt.Finalize()
	return sqlitex.ResultInt64(stmt)
}

func text(conn *sqlite.Conn, query string) (string, error) {
	stmt, _, err := conn.PrepareTransient(query)
	if err != nil {
		return "", err
	}
	defer stmt.Finalize()
	return sqlitex.ResultText(stmt)
}
