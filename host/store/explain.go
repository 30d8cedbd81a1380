package store

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/meshhost/meshhost/sdk/sqliteguard"
)

// explain adds what to do to an error of SQLite that a person can do something about.
func (s *Store) explain(err error) error {
	if errors.Is(err, sqliteguard.ErrIncomplete) {
		return fmt.Errorf("%w; stop meshhost, keep a copy, and put a backup back; to go on with what is left, remove %s-mark", err, s.path)
	}
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultCorrupt, sqlite.ResultNotADB:
		return fmt.Errorf("%w; %s is damaged: stop meshhost, keep a copy, and rescue what is readable with: sqlite3 %s .recover", err, s.path, s.path)
	case sqlite.ResultFull:
		return fmt.Errorf("%w; free space on the disk of %s", err, s.path)
	case sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultCantOpen, sqlite.ResultAuth:
		return fmt.Errorf("%w; make %s and its directory writable for this user", err, s.path)
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return fmt.Errorf("%w; close the other program that has %s open", err, s.path)
	}
	return err
}
