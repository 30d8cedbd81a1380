package store

import (
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// schemaVersion is PRAGMA user_version of a file that this code reads and writes.
const schemaVersion = 1

// applicationID is PRAGMA application_id, "MHst": it tells our file from somebody else's database.
const applicationID = 0x4d487374

// Times are milliseconds since 1970. Numbered by the rowid: journal and dedup, so that the oldest is the smallest.
const schema = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE mesh_identity (mesh TEXT PRIMARY KEY, session_id TEXT NOT NULL, pid INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE journal (
	seq INTEGER PRIMARY KEY,
	id BLOB NOT NULL,
	mesh TEXT NOT NULL,
	order_key INTEGER NOT NULL,
	received_at INTEGER NOT NULL,
	sealed INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	frame BLOB NOT NULL
);
CREATE TABLE journal_size (one INTEGER PRIMARY KEY CHECK (one = 1), rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO journal_size VALUES (1, 0, 0);
CREATE TABLE handler (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE work (
	seq INTEGER NOT NULL,
	handler INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	due_at INTEGER NOT NULL,
	PRIMARY KEY (seq, handler)
) WITHOUT ROWID;
CREATE TABLE dead (
	seq INTEGER NOT NULL,
	handler INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	died_at INTEGER NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (seq, handler)
) WITHOUT ROWID;
CREATE TABLE dedup (n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, at INTEGER NOT NULL);

CREATE TABLE peer (
	mesh TEXT NOT NULL,
	key TEXT NOT NULL,
	member_key TEXT NOT NULL,
	name TEXT NOT NULL,
	role TEXT NOT NULL,
	last_seen INTEGER NOT NULL,
	PRIMARY KEY (mesh, key)
) WITHOUT ROWID;
CREATE INDEX peer_last_seen ON peer (last_seen);
CREATE TABLE presence (mesh TEXT NOT NULL, identity TEXT NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (mesh, identity)) WITHOUT ROWID;
CREATE TABLE kv (plugin TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (plugin, key)) WITHOUT ROWID;
`

// migrate makes the tables in an empty file and refuses what this code doesn't understand.
func migrate(conn *sqlite.Conn) error {
	app, err := number(conn, "PRAGMA application_id")
	if err != nil {
		return err
	}
	version, err := number(conn, "PRAGMA user_version")
	if err != nil {
		return err
	}
	tables, err := number(conn, "SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return err
	}
	switch {
	case app == 0 && version == 0 && tables == 0:
		set := fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d;", applicationID, schemaVersion)
		for _, script := range []string{schema, set} {
			if err := sqlitex.ExecuteScript(conn, script, nil); err != nil {
				return fmt.Errorf("make schema: %w", err)
			}
		}
		return nil
	case app != applicationID:
		return fmt.Errorf("%w: application id %#x; move the file away or choose another data_dir", ErrForeign, app)
	case version > schemaVersion:
		return fmt.Errorf("%w: schema %d, this one knows %d; run the newer meshhost or choose another data_dir", ErrNewer, version, schemaVersion)
	case version < 1:
		return fmt.Errorf("%w: schema %d", ErrForeign, version)
	}
	return nil
}

func number(conn *sqlite.Conn, query string) (int64, error) {
	var out int64
	err := sqlitex.ExecuteTransient(conn, query, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		out = stmt.ColumnInt64(0)
		return nil
	}})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	return out, nil
}
