// Command meshhost-outbox-sqlite keeps the outbox in one SQLite file.
//
// Apply calls that arrive while a commit runs share the next one; each commit
// is a WAL append with one sync, so an answer means that the ops survive power
// loss. The file is locked: one process at a time.
//
// Table entry has one row per message, in the order of arrival (n). Its body is
// in table body and goes as soon as it is no longer needed; what is left is
// the small record that answers replays. A row in a queue has live = 1, the
// first of its queue also head = 1, and the partial indexes on these two make
// Fetch cost what it returns. Table total has the counts and the last seq,
// table lane who may schedule. Times are Unix milliseconds, 0 for "not yet".
// Whoever looks into the file with another program should only read.
package main
