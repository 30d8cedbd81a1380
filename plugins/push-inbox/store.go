package main

import (
	"context"
	"crypto/sha256"
	"time"
	"unicode/utf8"

	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// store is an open inbox file.
type store struct {
	file *sqlitefile.File
	now  func() time.Time
	// remember is how many arrivals are kept whose message is gone.
	remember int64

	// What follows belongs to the file's writing goroutine.
	max    int64
	loaded bool
	count  int64 // rows of messages
}

// maxRemembered is as many as the host remembers dedup keys.
const maxRemembered = 1_000_000

// openStore opens or creates the file at path; max bounds its messages.
func openStore(ctx context.Context, path string, max int64, now func() time.Time) (*store, error) {
	s := &store{now: now, max: max, remember: maxRemembered}
	file, err := sqlitefile.Open(ctx, sqlitefile.Spec{
		Path: path, What: "inbox", ApplicationID: applicationID, Steps: schema,
		Begin: s.begin, Undo: func() { s.loaded = false },
	})
	if err != nil {
		return nil, err
	}
	s.file = file
	return s, nil
}

func (s *store) begin(conn *sqlite.Conn) error {
	if s.loaded {
		return nil
	}
	_, err := sqlitefile.One(conn, sqlCount, func(stmt *sqlite.Stmt) { s.count = stmt.ColumnInt64(0) })
	s.loaded = err == nil
	return err
}

func (s *store) limit(ctx context.Context, max int64) error {
	return s.file.Write(ctx, func(*sqlite.Conn) error {
		s.max = max
		return nil
	})
}

// key is a dedup key as the file has it. 128 bits of SHA-256: who wants two of
// his own messages to collide can as well not send one.
type key [16]byte

func keyOf(kind, s string) key {
	sum := sha256.Sum256([]byte(kind + s))
	return key(sum[:16])
}

// keysOf are the keys of a push. Its id is one of them: it is stable over
// redeliveries, and cursors are found by it after the message is gone.
func keysOf(p *sdk.Push) []key {
	keys := make([]key, 0, len(p.DedupKeys)+1)
	keys = append(keys, keyOf("id|", p.ID))
	for _, k := range p.DedupKeys {
		keys = append(keys, keyOf("k|", k))
	}
	return keys
}

// add stores pushes in one transaction. It returns the ids of those that are new
// and how many found no room; all others are stored, now or before.
func (s *store) add(ctx context.Context, pushes []sdk.Push) ([]string, int, error) {
	var added []string
	var refused int
	err := s.file.Write(ctx, func(conn *sqlite.Conn) error {
		added, refused = nil, 0
		for i := range pushes {
			stored, err := s.addOne(conn, &pushes[i])
			if err != nil {
				return err
			}
			switch stored {
			case pushStored:
				added = append(added, pushes[i].ID)
			case pushRefused:
				refused++
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, err // the transaction may be running still: its results are not ours to read
	}
	return added, refused, nil
}

type pushResult int

const (
	pushStored pushResult = iota
	pushRepeated
	pushRefused
)

func (s *store) addOne(conn *sqlite.Conn, p *sdk.Push) (pushResult, error) {
	keys := keysOf(p)
	known, n := false, int64(0)
	for _, k := range keys {
		found, err := sqlitefile.One(conn, sqlFind, func(stmt *sqlite.Stmt) { n = stmt.ColumnInt64(0) }, k[:])
		if err != nil {
			return 0, err
		}
		if known = found; known {
			break
		}
	}
	if known {
		return pushRepeated, learn(conn, keys, n)
	}
	if s.count >= s.max {
		if err := s.makeRoom(conn, s.count+1-s.max); err != nil {
			return 0, err
		}
		if s.count >= s.max {
			return pushRefused, nil
		}
	}
	if err := sqlitefile.Run(conn, sqlArrive, s.now().UnixMilli(), join(nil, keys)); err != nil {
		return 0, err
	}
	n = conn.LastInsertRowID()
	for _, k := range keys {
		if err := sqlitefile.Run(conn, sqlDedup, k[:], n); err != nil {
			return 0, err
		}
	}
	s.count++
	return pushStored, insert(conn, n, p, s.now())
}

// learn adds what is new among keys to message n: equality is by any key, so it
// chains. Mostly nothing is.
func learn(conn *sqlite.Conn, keys []key, n int64) error {
	var fresh []key
	for _, k := range keys {
		if err := sqlitefile.Run(conn, sqlDedup, k[:], n); err != nil {
			return err
		}
		if conn.Changes() > 0 {
			fresh = append(fresh, k)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	var have []byte
	_, err := sqlitefile.One(conn, `SELECT keys FROM arrival WHERE n = ?1`, func(stmt *sqlite.Stmt) { have = sqlitefile.Blob(stmt, 0) }, n)
	if err != nil {
		return err
	}
	return sqlitefile.Run(conn, `UPDATE arrival SET keys = ?2 WHERE n = ?1`, n, join(have, fresh))
}

func join(b []byte, keys []key) []byte {
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	return b
}

func insert(conn *sqlite.Conn, n int64, p *sdk.Push, now time.Time) error {
	received := p.ReceivedAt
	if received.IsZero() {
		received = now // retention counts from it
	}
	body := any(string(p.Body))
	if !utf8.Valid(p.Body) {
		body = p.Body
	}
	undecryptable := 0
	if p.Undecryptable {
		body, undecryptable = "", 1
	}
	return sqlitefile.Run(conn, sqlMessage, n, p.ID, p.ClientMessageID, p.MessageID, p.Mesh, string(p.Kind),
		p.Sender, p.SenderMember, p.SenderName, p.Recipient, p.RecipientKind, p.Priority, p.Subtype, p.ReplyToID,
		body, undecryptable, millis(p.CreatedAt), millis(received))
}

// makeRoom deletes the oldest messages that were seen, at most want of them.
func (s *store) makeRoom(conn *sqlite.Conn, want int64) error {
	err := sqlitefile.Run(conn, `DELETE FROM messages WHERE n IN (SELECT n FROM messages WHERE seen_at <> 0 ORDER BY n LIMIT ?1)`, want)
	s.count -= int64(conn.Changes())
	return err
}

func (s *store) Close() error { return s.file.Close() }

// millis is t in Unix milliseconds; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
