package main

// applicationID marks an inbox file: "MHib".
const applicationID = 0x4d486962

// schema brings the file from one version to the next. Table arrival remembers
// the dedup keys of each message for as long as the retention lasts, whatever
// becomes of the message; key is a hash, so that a long key costs no more.
var schema = []string{`
CREATE TABLE messages (
  n                    INTEGER PRIMARY KEY, -- that of arrival
  id                   TEXT NOT NULL,
  client_message_id    TEXT NOT NULL,
  broker_message_id    TEXT NOT NULL,
  mesh                 TEXT NOT NULL,
  kind                 TEXT NOT NULL,
  sender_pubkey        TEXT NOT NULL,
  sender_member_pubkey TEXT NOT NULL,
  sender_name          TEXT NOT NULL,
  recipient_pubkey     TEXT NOT NULL,
  recipient_kind       TEXT NOT NULL,
  priority             TEXT NOT NULL,
  subtype              TEXT NOT NULL,
  reply_to_id          TEXT NOT NULL,
  body                 NOT NULL,
  undecryptable        INTEGER NOT NULL,
  created_at           INTEGER NOT NULL,
  received_at          INTEGER NOT NULL,
  seen_at              INTEGER NOT NULL
);
CREATE INDEX messages_unread ON messages (n) WHERE seen_at = 0;
CREATE INDEX messages_seen ON messages (n) WHERE seen_at <> 0;
CREATE INDEX messages_received ON messages (received_at);

CREATE TABLE arrival (
  n    INTEGER PRIMARY KEY AUTOINCREMENT,
  at   INTEGER NOT NULL, -- when it was stored
  keys BLOB NOT NULL     -- 16 bytes for each row of dedup
);
CREATE TABLE dedup (key BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
`}

const columns = `n, id, client_message_id, broker_message_id, mesh, kind, sender_pubkey, sender_member_pubkey, sender_name,
  recipient_pubkey, recipient_kind, priority, subtype, reply_to_id, body, undecryptable, created_at, received_at, seen_at`

const (
	sqlFind    = `SELECT n FROM dedup WHERE key = ?1`
	sqlArrive  = `INSERT INTO arrival (at, keys) VALUES (?1, ?2)`
	sqlDedup   = `INSERT OR IGNORE INTO dedup (key, n) VALUES (?1, ?2)`
	sqlMessage = `INSERT INTO messages (` + columns + `)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, 0)`
	sqlCount = `SELECT count(*) FROM messages`
)
