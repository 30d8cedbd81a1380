// Command meshhost-outbox-memory keeps the outbox in RAM: for tests, demos and
// hosts where losing what is queued is acceptable. It describes itself as not
// durable, so the host warns at start and in each answer to a sender.
//
// One mutex guards everything; no call does I/O. A queue is a slice of rows in
// seq order with a place in its lane's heap, ordered by the due time of the
// head, so Fetch costs what it returns and what is held. All rows stand in the
// order of seq, which List and Scan walk. Finished rows stay as small records for
// replays; beyond max_records the oldest are forgotten.
package main
