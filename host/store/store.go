package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meshhost/meshhost/sdk/sqliteguard"
)

// FileName is the name of the store in the data directory.
const FileName = "host.db"

var (
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrNewer says that a newer meshhost wrote the file; this one must not touch it.
	ErrNewer = errors.New("written by a newer meshhost")
	// ErrForeign says that the file is not a store of meshhost.
	ErrForeign = errors.New("not a meshhost store")
	// ErrNotDurable says that SQLite did not take the settings that durability needs.
	ErrNotDurable = errors.New("durable settings were not taken")
)

// Options are the bounds of a store; zero fields get their defaults.
type Options struct {
	JournalRows  int64         // rows in the journal, default 100,000
	JournalBytes int64         // bytes of frames in the journal, default 512 MiB
	DedupKeys    int64         // dedup keys kept, oldest go first, default 1,000,000
	DedupAge     time.Duration // how long a dedup key is kept, default 30 days
	DeadLetters  int64         // dead letters kept, oldest go first, default 10,000
	DeadAge      time.Duration // how long a dead letter is kept, default 30 days
	Peers        int64         // rows of the directory, least recently seen go first, default 10,000
	Logger       hclog.Logger  // nil: none
}

func (o *Options) defaults() {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.JournalRows, 100_000)
	def(&o.JournalBytes, 512<<20)
	def(&o.DedupKeys, 1_000_000)
	def(&o.DeadLetters, 10_000)
	def(&o.Peers, 10_000)
	if o.DedupAge <= 0 {
		o.DedupAge = 30 * 24 * time.Hour
	}
	if o.DeadAge <= 0 {
		o.DeadAge = 30 * 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Store is the open file. It is safe for concurrent use.
type Store struct {
	opts      Options
	path      string
	installID string

	requests chan *request // to the writer
	stop     chan struct{} // closed by Close: the writer finishes what is queued and ends
	done     chan struct{} // closed by the writer at its end
	closing  sync.Once
	closeErr error

	gate   sync.RWMutex // held for reading while a request is handed over, for writing while closing
	closed bool         // guarded by gate

	lastSeq int64              // of the journal; the writer's alone after Open
	guard   *sqliteguard.Guard // the writer's alone after Open

	readMu sync.Mutex
	read   *sqlite.Conn // guarded by readMu; nil after Close
}

// Open opens dir/host.db, or makes it. The directory must exist. Errors wrap [ErrNewer], [ErrForeign] or [ErrNotDurable]
// where a caller may want to tell.
func Open(ctx context.Context, dir string, opts Options) (*Store, error) {
	opts.defaults()
	path := filepath.Join(dir, FileName)
	if err := private(path); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{opts: opts, path: path, requests: make(chan *request, 256), stop: make(chan struct{}), done: make(chan struct{})}
	var err error
	if s.guard, err = sqliteguard.Open(path); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, s.explain(err))
	}
	write, err := connect(ctx, s.guard)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, s.explain(err))
	}
	if err := s.prepare(write); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, s.explain(err)), write.Close(), s.guard.Close())
	}
	if s.read, err = connect(ctx, s.guard); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s for reading: %w", path, s.explain(err)), write.Close(), s.guard.Close())
	}
	w := &writer{store: s, conn: write}
	go w.run()
	return s, nil
}

// private makes the file with a mode of its own before SQLite does, which would take the umask's; -wal and -shm copy the mode
// of the file. It refuses to begin anew where a log or a mark tells of an earlier file: SQLite would throw the log away.
func private(path string) error {
	if err := sqliteguard.Create(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	return syncNames(filepath.Dir(path))
}

// syncNames makes the file's name survive power loss, and those of the directories above, which may be as new: SQLite syncs
// the names in dir, but a directory whose own name is gone takes all with it. One that can't be opened or synced is not ours.
func syncNames(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		if err := syncDir(dir); errors.Is(err, syscall.EIO) {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func connect(ctx context.Context, guard *sqliteguard.Guard) (*sqlite.Conn, error) {
	conn, err := guard.Conn(sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	if err := durable(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// durable sets what a durable commit needs and reads it back: SQLite answers a PRAGMA that it can't follow with the value
// that holds, not with an error.
func durable(ctx context.Context, conn *sqlite.Conn) error {
	conn.SetBusyTimeout(5 * time.Second)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, p := range []struct{ set, get, want string }{
		{"PRAGMA journal_mode=WAL", "PRAGMA journal_mode", "wal"},
		{"PRAGMA synchronous=" + synchronous, "PRAGMA synchronous", synchronousCode},
	} {
		if err := sqlitex.ExecuteTransient(conn, p.set, nil); err != nil {
			return fmt.Errorf("%s: %w", p.set, err)
		}
		got, err := text(conn, p.get)
		if err != nil {
			return err
		}
		if got != p.want {
			return fmt.Errorf("%w: %s is %q, want %q; use a local file system", ErrNotDurable, p.get, got, p.want)
		}
	}
	for _, set := range []string{
		"PRAGMA journal_size_limit=67108864", // a WAL that once grew is cut back to 64 MiB
		"PRAGMA cache_size=-8192",            // 8 MiB
		"PRAGMA temp_store=MEMORY",
	} {
		if err := sqlitex.ExecuteTransient(conn, set, nil); err != nil {
			return fmt.Errorf("%s: %w", set, err)
		}
	}
	return nil
}

func text(conn *sqlite.Conn, query string) (string, error) {
	var out string
	err := sqlitex.ExecuteTransient(conn, query, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		out = stmt.ColumnText(0)
		return nil
	}})
	if err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	return out, nil
}

// prepare brings the schema to this version and loads the install id.
func (s *Store) prepare(conn *sqlite.Conn) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	if err := migrate(conn); err != nil {
		return err
	}
	if err := s.guard.Table(conn); err != nil {
		return err
	}
	if s.lastSeq, err = number(conn, "SELECT coalesce(max(seq), 0) FROM journal"); err != nil {
		return err
	}
	s.installID, err = metaText(conn, "install_id", func() string { return randomHex(16) })
	return err
}

func metaText(conn *sqlite.Conn, key string, fresh func() string) (value string, err error) {
	err = sqlitex.Execute(conn, "SELECT value FROM meta WHERE key = ?", &sqlitex.ExecOptions{
		Args: []any{key}, ResultFunc: func(stmt *sqlite.Stmt) error { value = stmt.ColumnText(0); return nil },
	})
	if err != nil || value != "" {
		return value, err
	}
	value = fresh()
	return value, sqlitex.Execute(conn, "INSERT INTO meta (key, value) VALUES (?, ?)", &sqlitex.ExecOptions{Args: []any{key, value}})
}

func randomHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails since Go 1.24: the process dies instead
	return hex.EncodeToString(raw)
}

// InstallID is this install's random id, 32 hex digits, the same for the life of the file.
func (s *Store) InstallID() string { return s.installID }

// Path is where the file is.
func (s *Store) Path() string { return s.path }

// Close finishes the writes that were asked for and closes the file. It may be called more than once.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.gate.Lock()
		s.closed = true
		s.gate.Unlock()
		close(s.stop)
		<-s.done
		s.readMu.Lock()
		defer s.readMu.Unlock()
		s.closeErr = errors.Join(s.closeErr, s.read.Close())
		s.read = nil
	})
	return s.closeErr
}

// view runs f on the reading connection, which sees what was committed before.
func (s *Store) view(ctx context.Context, f func(*sqlite.Conn) error) error {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.read == nil {
		return ErrClosed
	}
	return s.explain(f(s.read))
}
