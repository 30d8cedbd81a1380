package main

// columns are what readEntry reads, in its order.
const columns = `e.seq, e.id, e.client_message_id, e.mesh, e.sender, e.lane, e.target, e.priority, e.nonce, e.fingerprint,
  e.enqueued_at, e.not_after, e.state, e.due_at, e.attempts, e.last_error, e.broker_message_id, e.accepted_at, e.delivered_at, e.size`

// The statements name their index: a plan that changes with the statistics
// would break the promise on what Fetch costs. An index has the seq behind its
// columns.
const (
	sqlName     = `SELECT id, until FROM name INDEXED BY name_text WHERE text = ?1`
	sqlNameText = `SELECT text FROM name WHERE id = ?1`
	sqlAddName  = `INSERT INTO name (id, until, text) VALUES (?1, ?2, ?3)`
	sqlSetName  = `UPDATE name SET until = ?2 WHERE id = ?1 AND text = ?3`
	sqlNamesOf  = `SELECT m.text, s.text, l.text, t.text, p.text FROM entry e
  CROSS JOIN name m ON m.id = e.mesh CROSS JOIN name s ON s.id = e.sender CROSS JOIN name l ON l.id = e.lane
  CROSS JOIN name t ON t.id = e.target CROSS JOIN name p ON p.id = e.priority WHERE e.seq = ?1`
	// A name may go when the first of all rows is behind what it was promised to.
	sqlFirstSeq    = `SELECT seq FROM entry ORDER BY seq LIMIT 1`
	sqlForgetTops  = `UPDATE total SET tops = max(tops, (SELECT ifnull(max(until), 0) FROM name INDEXED BY name_until WHERE until < ?1))`
	sqlForgetNames = `DELETE FROM name WHERE until < ?1`

	sqlInsert = `INSERT INTO entry (seq, id, client_message_id, mesh, sender, lane, target, priority, nonce, fingerprint,
  enqueued_at, not_after, state, live, due_at, attempts, size)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1, 1, ?13, 0, ?14) ON CONFLICT DO NOTHING`
	sqlImport = `INSERT INTO entry (seq, id, client_message_id, mesh, sender, lane, target, priority, nonce, fingerprint,
  enqueued_at, not_after, state, live, unconfirmed, rare, mark, due_at, attempts, size, last_error, broker_message_id, accepted_at, delivered_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)`
	sqlTaken = `SELECT 1 FROM entry WHERE seq = ?1`
	// What a lane had last, and what it ever had.
	sqlTops       = `SELECT lane, max(seq) FROM entry GROUP BY lane`
	sqlGone       = `SELECT id, top FROM name WHERE top > 0`
	sqlGoneAll    = `SELECT tops FROM total`
	sqlSetGone    = `UPDATE name SET top = max(top, ?2) WHERE id = ?1`
	sqlInsertBody = `INSERT INTO body (seq, data) VALUES (?1, ?2)`
	sqlMoveBody   = `UPDATE body SET seq = ?2 WHERE seq = ?1`
	sqlDropBody   = `DELETE FROM body WHERE seq = ?1`

	// A row whose client_message_id is its id is found by that.
	sqlByKey = `SELECT ` + columns + ` FROM entry e INDEXED BY entry_key WHERE client_message_id = ?1 AND sender = ?2 AND mesh = ?3`
	sqlByOwn = `SELECT ` + columns + ` FROM entry e INDEXED BY entry_id
WHERE id = ?1 AND sender = ?2 AND mesh = ?3 AND client_message_id IS NULL`
	sqlByID  = `SELECT ` + columns + ` FROM entry e INDEXED BY entry_id WHERE id = ?1`
	sqlKeyed = `SELECT 1 FROM entry INDEXED BY entry_key WHERE client_message_id IS NOT NULL LIMIT 1`
	sqlWhole = `SELECT ` + columns + `, b.data FROM entry e INDEXED BY entry_id LEFT JOIN body b USING (seq) WHERE id = ?1`
	sqlRow   = `SELECT seq, lane, target, mark, state, attempts, due_at, not_after, accepted_at, delivered_at,
  last_error, broker_message_id, size FROM entry INDEXED BY entry_id WHERE id = ?1`

	sqlAccepted = `UPDATE entry SET live = 0, state = 3, unconfirmed = ?2, size = ?3, broker_message_id = ?4, accepted_at = ?5
WHERE seq = ?1`
	sqlDelivered = `UPDATE entry SET state = 4, unconfirmed = 0, size = 0, delivered_at = ?2 WHERE seq = ?1`
	sqlPostpone  = `UPDATE entry SET mark = NULL, state = ?2, rare = ?3, due_at = ?4, attempts = ?5, last_error = ?6 WHERE seq = ?1`
	sqlSave      = `UPDATE entry SET mark = NULL, state = ?2, live = ?3, unconfirmed = ?4, rare = ?5, due_at = ?6, not_after = ?7,
  attempts = ?8, size = ?9, last_error = ?10, broker_message_id = ?11, accepted_at = ?12, delivered_at = ?13, seq = ?14 WHERE seq = ?1`
	sqlReroute = `UPDATE entry SET lane = ?2, nonce = ?3 WHERE seq = ?1`
	sqlWaiting = `SELECT seq, id, due_at FROM entry INDEXED BY entry_waiting WHERE rare = 2 AND lane = ?1 AND target = ?2 ORDER BY seq`
	sqlWake    = `UPDATE entry SET mark = NULL, state = 1, rare = NULL, due_at = ?2 WHERE seq = ?1`

	sqlFirst    = `SELECT seq, due_at FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq LIMIT 1`
	sqlFirstTwo = `SELECT seq, due_at FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq LIMIT 2`
	sqlLast     = `SELECT seq FROM entry INDEXED BY entry_queue WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY seq DESC LIMIT 1`
	sqlQueue    = `SELECT ` + columns + `, b.data FROM entry e INDEXED BY entry_queue LEFT JOIN body b USING (seq)
WHERE live = 1 AND lane = ?1 AND target = ?2 ORDER BY e.seq LIMIT ?3`

	sqlAddHead    = `INSERT INTO head (lane, due_at, seq, target) VALUES (?1, ?2, ?3, ?4)`
	sqlDropHead   = `DELETE FROM head WHERE lane = ?1 AND due_at = ?2 AND seq = ?3`
	sqlMoveHead   = `UPDATE head SET due_at = ?4 WHERE lane = ?1 AND due_at = ?2 AND seq = ?3`
	sqlHeads      = `SELECT target, due_at FROM head WHERE lane = ?1 ORDER BY due_at, seq`
	sqlHeadsAfter = `SELECT target, due_at FROM head WHERE lane = ?1 AND due_at > ?2 ORDER BY due_at, seq`
	sqlOldest     = `SELECT enqueued_at FROM entry WHERE seq = (SELECT min(seq) FROM head)`

	sqlLaneStats = `SELECT state, count(*), sum(size), max(not_after) FROM entry INDEXED BY entry_queue
WHERE live = 1 AND lane = ?1 GROUP BY state`
	sqlLaneOldest = `SELECT enqueued_at FROM entry WHERE seq = (SELECT min(seq) FROM head WHERE lane = ?1)`
	sqlWalkEnd    = `SELECT seq FROM entry WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET ?2`

	sqlLane    = `SELECT owner, incarnation, epoch, expires FROM lane WHERE name = ?1`
	sqlSetLane = `INSERT OR REPLACE INTO lane (name, owner, incarnation, epoch, expires) VALUES (?1, ?2, ?3, ?4, ?5)`
	sqlHolders = `SELECT owner, expires FROM lane WHERE expires > ?1 ORDER BY owner`
	sqlEpochs  = `SELECT epochs FROM total`
	// A lane that comes back after it was forgotten gets an epoch above all
	// that were ever granted.
	sqlForgetEpochs = `UPDATE total SET epochs = max(epochs, (SELECT ifnull(max(epoch), 0) FROM lane WHERE ` + oldLane + `))`
	sqlForgetLanes  = `DELETE FROM lane WHERE ` + oldLane
	oldLane         = `expires < ?1 AND NOT EXISTS (
  SELECT 1 FROM head WHERE head.lane = (SELECT id FROM name INDEXED BY name_text WHERE text = lane.name))`

	sqlTotal = `SELECT last_seq, last_name, bytes, pending, waiting, accepted, delivered, dead, expired, cancelled, sealed FROM total`

	sqlSealed = `SELECT sealed FROM total`

	sqlSetTotal = `UPDATE total SET last_seq = ?1, last_name = ?2, bytes = ?3, pending = ?4, waiting = ?5, accepted = ?6,
  delivered = ?7, dead = ?8, expired = ?9, cancelled = ?10, sealed = ?11`

	// What Prune chooses, as records.
	recordColumns = `SELECT seq, state, size, live, lane, target, due_at FROM entry`
	sqlDone       = recordColumns + ` INDEXED BY entry_done WHERE live = 0 AND not_after < ?1 ORDER BY not_after LIMIT ?2`
	sqlMarked     = recordColumns + ` INDEXED BY entry_mark WHERE mark = ?1 ORDER BY seq LIMIT ?2`
	sqlAll        = recordColumns + ` ORDER BY seq LIMIT ?1`
	sqlDrop       = `DELETE FROM entry WHERE seq = ?1`
)
