package main

import "strings"

// applicationID marks an outbox file: "MHob".
const applicationID = 0x4d486f62

// schema brings the file from one version to the next.
var schema = []string{schema1, schema2}

// schema1 is how files began.
const schema1 = `
CREATE TABLE entry (
  n                 INTEGER PRIMARY KEY, -- order of arrival: the first seq of the row
  id                TEXT NOT NULL,
  client_message_id TEXT NOT NULL,
  mesh              TEXT NOT NULL,
  sender            TEXT NOT NULL,
  lane              TEXT NOT NULL,
  target            TEXT NOT NULL,
  priority          TEXT NOT NULL,
  nonce             TEXT NOT NULL,
  fingerprint       BLOB NOT NULL,
  enqueued_at       INTEGER NOT NULL,
  not_after         INTEGER NOT NULL,
  seq               INTEGER NOT NULL,
  state             TEXT NOT NULL,
  live              INTEGER NOT NULL,
  head              INTEGER NOT NULL,
  due_at            INTEGER NOT NULL,
  attempts          INTEGER NOT NULL,
  size              INTEGER NOT NULL, -- of the body; 0: gone
  last_error        TEXT NOT NULL,
  broker_message_id TEXT NOT NULL,
  accepted_at       INTEGER NOT NULL,
  delivered_at      INTEGER NOT NULL
);
CREATE UNIQUE INDEX entry_id ON entry (id);
CREATE UNIQUE INDEX entry_key ON entry (mesh, sender, client_message_id);
CREATE INDEX entry_queue ON entry (lane, target, seq) WHERE live = 1;
CREATE INDEX entry_due ON entry (lane, due_at, seq) WHERE head = 1;
CREATE INDEX entry_live ON entry (n) WHERE live = 1;
CREATE INDEX entry_waiting ON entry (lane, target) WHERE state = 'waiting';
CREATE INDEX entry_rare ON entry (state, n) WHERE state = 'waiting' OR state = 'dead' OR state = 'expired' OR state = 'cancelled';
CREATE INDEX entry_done ON entry (not_after) WHERE live = 0;

CREATE TABLE body (n INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE lane (
  name        TEXT PRIMARY KEY,
  owner       TEXT NOT NULL, -- empty: free
  incarnation TEXT NOT NULL,
  epoch       INTEGER NOT NULL,
  expires     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE total (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  epochs    INTEGER NOT NULL, -- the highest epoch of a lane that was forgotten
  last_seq  INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  pending   INTEGER NOT NULL,
  waiting   INTEGER NOT NULL,
  accepted  INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  dead      INTEGER NOT NULL,
  expired   INTEGER NOT NULL,
  cancelled INTEGER NOT NULL
);
INSERT INTO total VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
`

// tables2 is the second version.
//
// The columns live, unconfirmed and rare repeat what state implies: an index
// costs an update that names one of its columns, so each state change names
// only those that it changes. NOT NULL is left out for the same reason: it is
// checked at each insert, and this program alone writes.
//
// Table head has the first row of each queue. It is no column of entry, since
// a row becomes the head when the one before it leaves, and would be written
// anew for that.
const tables2 = `
CREATE TABLE name ( -- texts that many rows have
  id    INTEGER PRIMARY KEY,
  text  TEXT NOT NULL,
  until INTEGER NOT NULL,          -- no row with a higher seq has it
  top   INTEGER NOT NULL DEFAULT 0 -- as a lane: the highest seq of a row that was pruned or went to another lane
);
CREATE UNIQUE INDEX name_text ON name (text);
CREATE INDEX name_until ON name (until);

CREATE TABLE entry (
  seq               INTEGER PRIMARY KEY, -- the place of the row; it gets a new one when it enters a queue again
  id                BLOB,    -- 16 bytes; a text if it is no UUID
  client_message_id BLOB,    -- the same; null: it is the id
  mesh              INTEGER, -- mesh, sender, lane, target and priority are in table name
  sender            INTEGER,
  lane              INTEGER,
  target            INTEGER,
  priority          INTEGER,
  nonce             BLOB,    -- bytes; a text if it is no base64
  fingerprint       BLOB,
  enqueued_at       INTEGER,
  not_after         INTEGER,
  state             INTEGER, -- 1 pending, 2 waiting, 3 accepted, 4 delivered, 5 dead, 6 expired, 7 cancelled
  live              INTEGER, -- 1: pending or waiting
  unconfirmed       INTEGER, -- 1: accepted, and the body is there
  rare              INTEGER, -- the state where it is waiting, dead, expired or cancelled
  mark              INTEGER, -- the label, in table name, of the import that brought it, until something changes it
  due_at            INTEGER,
  attempts          INTEGER,
  size              INTEGER, -- of the body; 0: gone
  last_error        TEXT,
  broker_message_id BLOB,    -- as id
  accepted_at       INTEGER,
  delivered_at      INTEGER
);
CREATE TABLE body (seq INTEGER PRIMARY KEY, data BLOB);

CREATE TABLE head ( -- the first row of each queue
  lane   INTEGER,
  due_at INTEGER,
  seq    INTEGER,
  target INTEGER,
  PRIMARY KEY (lane, due_at, seq)
) WITHOUT ROWID;

CREATE TABLE lane (
  name        TEXT PRIMARY KEY,
  owner       TEXT NOT NULL, -- empty: free
  incarnation TEXT NOT NULL,
  epoch       INTEGER NOT NULL,
  expires     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE total (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  epochs    INTEGER NOT NULL, -- the highest epoch of a lane that was forgotten
  last_seq  INTEGER NOT NULL,
  last_name INTEGER NOT NULL,
  tops      INTEGER NOT NULL, -- no text that was forgotten was a lane with a higher seq
  bytes     INTEGER NOT NULL,
  pending   INTEGER NOT NULL,
  waiting   INTEGER NOT NULL,
  accepted  INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  dead      INTEGER NOT NULL,
  expired   INTEGER NOT NULL,
  cancelled INTEGER NOT NULL,
  sealed    TEXT NOT NULL -- where the rows are; empty: here
);
`

// indexes2 come after the rows of a file that is brought up to date.
const indexes2 = `
CREATE UNIQUE INDEX entry_id ON entry (id);
CREATE UNIQUE INDEX entry_key ON entry (client_message_id, sender, mesh) WHERE client_message_id IS NOT NULL;
CREATE INDEX entry_queue ON entry (lane, target) WHERE live = 1;
CREATE INDEX entry_unconfirmed ON entry (lane) WHERE unconfirmed = 1;
CREATE INDEX entry_waiting ON entry (lane, target) WHERE rare = 2;
CREATE INDEX entry_rare ON entry (rare) WHERE rare IS NOT NULL;
CREATE INDEX entry_done ON entry (not_after) WHERE live = 0;
CREATE INDEX entry_mark ON entry (mark) WHERE mark IS NOT NULL;
`

// schema2 moves the rows to the new tables: the seq becomes their place, texts
// that many have go to table name, and ids become bytes.
var schema2 = `
ALTER TABLE entry RENAME TO entry1;
ALTER TABLE body RENAME TO body1;
ALTER TABLE lane RENAME TO lane1;
ALTER TABLE total RENAME TO total1;
DROP INDEX entry_id;
DROP INDEX entry_key;
DROP INDEX entry_queue;
DROP INDEX entry_due;
DROP INDEX entry_live;
DROP INDEX entry_waiting;
DROP INDEX entry_rare;
DROP INDEX entry_done;
` + tables2 + `
INSERT INTO name (text, until)
  SELECT DISTINCT text, last_seq FROM total1 JOIN (
    SELECT mesh AS text FROM entry1 UNION SELECT sender FROM entry1 UNION SELECT lane FROM entry1
    UNION SELECT target FROM entry1 UNION SELECT priority FROM entry1);
INSERT INTO entry
  SELECT e.seq, ` + ident1("e.id") + `, CASE WHEN e.client_message_id = e.id THEN NULL ELSE ` + ident1("e.client_message_id") + ` END,
    (SELECT id FROM name WHERE text = e.mesh), (SELECT id FROM name WHERE text = e.sender), (SELECT id FROM name WHERE text = e.lane),
    (SELECT id FROM name WHERE text = e.target), (SELECT id FROM name WHERE text = e.priority), e.nonce, e.fingerprint,
    e.enqueued_at, e.not_after, ` + states1 + `, e.live, e.state = 'accepted' AND e.size > 0,
    CASE WHEN e.state IN ('waiting', 'dead', 'expired', 'cancelled') THEN ` + states1 + ` END, NULL,
    e.due_at, e.attempts, e.size, nullif(e.last_error, ''),
    CASE WHEN e.broker_message_id <> '' THEN ` + ident1("e.broker_message_id") + ` END, e.accepted_at, e.delivered_at
  FROM entry1 e ORDER BY e.seq;
INSERT INTO body SELECT e.seq, b.data FROM entry1 e JOIN body1 b USING (n) ORDER BY e.seq;
INSERT INTO head SELECT lane, due_at, min(seq), target FROM entry WHERE live = 1 GROUP BY lane, target;
INSERT INTO lane SELECT name, owner, incarnation, epoch, expires FROM lane1;
INSERT INTO total SELECT one, epochs, last_seq, (SELECT ifnull(max(id), 0) FROM name), last_seq, bytes,
  pending, waiting, accepted, delivered, dead, expired, cancelled, '' FROM total1;
DROP TABLE entry1;
DROP TABLE body1;
DROP TABLE lane1;
DROP TABLE total1;
` + indexes2 + view2

// states1 is the number of a state that version 1 has as a word.
const states1 = `CASE e.state WHEN 'pending' THEN 1 WHEN 'waiting' THEN 2 WHEN 'accepted' THEN 3 WHEN 'delivered' THEN 4
    WHEN 'dead' THEN 5 WHEN 'expired' THEN 6 ELSE 7 END`

// ident1 is the SQL of encodeIdent.
func ident1(column string) string {
	digits := func(n int) string { return strings.Repeat("[0-9a-f]", n) }
	pattern := digits(8) + "-" + digits(4) + "-" + digits(4) + "-" + digits(4) + "-" + digits(12)
	return "CASE WHEN " + column + " GLOB '" + pattern + "' THEN unhex(replace(" + column + ", '-', '')) ELSE " + column + " END"
}

// view2 shows the rows in words to who looks into the file.
var view2 = `
CREATE VIEW message AS SELECT seq, ` + ident2("id") + ` AS id,
  ifnull(` + ident2("client_message_id") + `, ` + ident2("id") + `) AS client_message_id,
  (SELECT text FROM name WHERE name.id = e.mesh) AS mesh, (SELECT text FROM name WHERE name.id = e.sender) AS sender,
  (SELECT text FROM name WHERE name.id = e.lane) AS lane, (SELECT text FROM name WHERE name.id = e.target) AS target,
  (SELECT text FROM name WHERE name.id = e.priority) AS priority,
  CASE state WHEN 1 THEN 'pending' WHEN 2 THEN 'waiting' WHEN 3 THEN 'accepted' WHEN 4 THEN 'delivered'
    WHEN 5 THEN 'dead' WHEN 6 THEN 'expired' WHEN 7 THEN 'cancelled' END AS state,
  attempts, size, last_error, ` + ident2("broker_message_id") + ` AS broker_message_id,
  ` + stamp2("enqueued_at") + `, ` + stamp2("not_after") + `, ` + stamp2("due_at") + `,
  ` + stamp2("accepted_at") + `, ` + stamp2("delivered_at") + ` FROM entry e;
`

// ident2 is the SQL of decodeIdent.
func ident2(column string) string {
	hex := "lower(hex(e." + column + "))"
	return "CASE typeof(e." + column + ") WHEN 'blob' THEN substr(" + hex + ", 1, 8) || '-' || substr(" + hex + ", 9, 4) || '-' || substr(" +
		hex + ", 13, 4) || '-' || substr(" + hex + ", 17, 4) || '-' || substr(" + hex + ", 21) ELSE e." + column + " END"
}

func stamp2(column string) string {
	return "CASE WHEN e." + column + " > 0 THEN strftime('%Y-%m-%dT%H:%M:%fZ', e." + column + " / 1000.0, 'unixepoch') END AS " + column
}
