// Package sqliteguard opens a SQLite file so that damage is an error and never
// fewer rows. SQLite alone takes a changed byte in a page for data, and a WAL that
// was cut short or has a bad frame for one that ends there.
//
// Two things are added. Each page of the database carries a checksum, in the four
// bytes that SQLite leaves free at its end: it is written when a checkpoint moves
// the page from the WAL into the file and tested whenever the page is read from
// there. And each transaction counts itself in table commit_count; once it is
// durable, its number goes into a file beside the database, PATH-mark. A database
// that knows of fewer transactions than its mark is refused, before anything is
// written to it.
//
// The mark is not synced at each commit: after power loss it may be old or gone.
// Then it claims less than is there, which is no harm. It never claims more.
//
// Pages in the WAL have SQLite's own checksums, which are tested when a process
// opens the file. Other programs may read the file and move its WAL; what they
// change, this package takes for damage. A file that was made without it (no four
// bytes free) is opened without checksums of pages.
package sqliteguard
