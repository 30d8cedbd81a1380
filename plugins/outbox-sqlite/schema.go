package main

// applicationID marks an outbox file: "MHob".
const applicationID = 0x4d486f62

// schema brings the file from one version to the next.
//
// The columns live and head repeat what state and seq imply: with them, an
// update of a finished row touches no index, and an index never holds more than
// the rows that its query wants.
var schema = []string{`
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
`}

// columns are what readEntry reads, in its order.
const columns = `n, id, client_message_id, mesh, sender, lane, target, priority, nonce, fingerprint,
  enqueued_at, not_after, seq, state, due_at, attempts, last_error, broker_message_id, accepted_at, delivered_at, size`

// The statements of the hot path name their index: a plan that changes with
// the statistics would break the promise on what Fetch costs.
const (
	sqlInsert = `INSERT INTO entry (n, id, client_message_id, mesh, sender, lane, target, priority, nonce, fingerprint,
  enqueued_at, not_after, seq, state, live, head, due_at, attempts, size, last_error, broker_message_id, accepted_at, delivered_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?1, 'pending', 1, ?15,
  ?13, 0, ?14, '', '', 0, 0) ON CONFLICT DO NOTHING`
	sqlLast       = `SELECT seq FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq DESC LIMIT 1`
	sqlInsertBody = `INSERT INTO body (n, data) VALUES (?1, ?2)`
	sqlByKey      = `SELECT n, id, client_message_id, mesh, sender, fingerprint, seq, state, broker_message_id
FROM entry INDEXED BY entry_key WHERE mesh = ?1 AND sender = ?2 AND client_message_id = ?3`
	sqlByID = `SELECT n, id, client_message_id, mesh, sender, fingerprint, seq, state, broker_message_id
FROM entry INDEXED BY entry_id WHERE id = ?1`
	sqlRow = `SELECT n, lane, target, head, seq, state, attempts, due_at, not_after, accepted_at, delivered_at,
  last_error, broker_message_id, size FROM entry INDEXED BY entry_id WHERE id = ?1`

	sqlLeave = `UPDATE entry SET live = 0, head = 0, state = ?2, size = ?3, last_error = ?4, broker_message_id = ?5,
  accepted_at = ?6 WHERE n = ?1`
	sqlPostpone = `UPDATE entry SET state = ?2, due_at = ?3, attempts = ?4, last_error = ?5 WHERE n = ?1`
	sqlFinished = `UPDATE entry SET state = ?2, size = ?3, broker_message_id = ?4, accepted_at = ?5, delivered_at = ?6 WHERE n = ?1`
	sqlRequeue  = `UPDATE entry SET live = 1, state = 'pending', seq = ?2, due_at = ?3, not_after = ?4, attempts = 0,
  last_error = '', broker_message_id = '', accepted_at = 0, delivered_at = 0,
  head = NOT EXISTS (SELECT 1 FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?5 AND target = ?6)
WHERE n = ?1`
	sqlFirst = `SELECT n FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq LIMIT 1`
	sqlHead  = `UPDATE entry SET head = 1 WHERE n = ?1`
	sqlWake  = `UPDATE entry INDEXED BY entry_waiting SET state = 'pending', due_at = ?3
WHERE state = 'waiting' AND lane = ?1 AND target = ?2`
	sqlDropBody = `DELETE FROM body WHERE n = ?1`

	sqlHeads      = `SELECT target, due_at FROM entry INDEXED BY entry_due WHERE head = 1 AND lane = ?1 ORDER BY due_at, seq`
	sqlHeadsAfter = `SELECT target, due_at FROM entry INDEXED BY entry_due WHERE head = 1 AND lane = ?1 AND due_at > ?2
ORDER BY due_at, seq`
	sqlQueue = `SELECT ` + columns + ` FROM entry INDEXED BY entry_queue
WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq LIMIT ?3`
	sqlBody = `SELECT data FROM body WHERE n = ?1`

	sqlLane    = `SELECT owner, incarnation, epoch, expires FROM lane WHERE name = ?1`
	sqlSetLane = `INSERT OR REPLACE INTO lane (name, owner, incarnation, epoch, expires) VALUES (?1, ?2, ?3, ?4, ?5)`
	sqlEpochs  = `SELECT epochs FROM total`
	// A lane that comes back after it was forgotten gets an epoch above all
	// that were ever granted.
	sqlForgetEpochs = `UPDATE total SET epochs = max(epochs, (SELECT ifnull(max(epoch), 0) FROM lane WHERE ` + oldLane + `))`
	sqlForgetLanes  = `DELETE FROM lane WHERE ` + oldLane
	oldLane         = `expires < ?1 AND NOT EXISTS (
  SELECT 1 FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = lane.name)`

	sqlDone = `SELECT n, state, size FROM entry INDEXED BY entry_done WHERE live = 0 AND not_after < ?1 ORDER BY not_after LIMIT ?2`
	sqlDrop = `DELETE FROM entry WHERE n = ?1`

	sqlTotal    = `SELECT last_seq, bytes, pending, waiting, accepted, delivered, dead, expired, cancelled FROM total`
	sqlSetTotal = `UPDATE total SET last_seq = ?1, bytes = ?2, pending = ?3, waiting = ?4, accepted = ?5, delivered = ?6,
  dead = ?7, expired = ?8, cancelled = ?9`
	sqlOldest = `SELECT enqueued_at FROM entry INDEXED BY entry_live WHERE live = 1 ORDER BY n LIMIT 1`
)
