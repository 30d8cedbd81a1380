// Command meshhost-outbox-sqlite keeps the outbox in one SQLite file.
//
// Apply calls that arrive while a commit runs share the next one; each commit
// is a WAL append with one sync, so an answer means that the ops survive power
// loss. The file is locked: one process at a time.
//
// Table entry has one row per message, whose place (rowid) is its seq: a row
// that enters a queue anew moves to a new place. Its body is in table body and
// goes as soon as it is no longer needed; what is left is the small record that
// answers replays. A row in a queue has live = 1, and the first of each queue is
// in table head by its due time: with these Fetch costs what it returns.
// Texts that many rows have are numbers of table name, UUIDs are their bytes.
// Table total has the counts, the last seq and the seal, table lane who may
// schedule. Times are Unix milliseconds, 0 for "not yet".
//
// The writing goroutine keeps in memory what it would otherwise read back: the
// counts, recent rows, the ends of queues, the numbers of texts. All of it is
// bounded, and read anew after a transaction that did not commit.
//
// Whoever looks into the file with another program should only read; view
// message shows the rows in words.
package main
