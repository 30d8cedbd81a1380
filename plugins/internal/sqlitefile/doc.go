// Package sqlitefile opens a SQLite database that a plugin owns and keeps its
// promises: what Write returned nil for survives kill -9 and power loss.
//
// Open creates the file (mode 0600), locks it against a second process, refuses
// what is not the plugin's own database, brings the schema up to date, and
// reads back that the journal is a WAL and that every commit is synced; without
// both it does not serve. One goroutine owns the only connection that writes:
// calls of Write that arrive while a commit runs share the next one, so no
// timer is needed. Read uses a small pool of read-only connections, each call
// in one snapshot, which sees every Write that returned before.
//
// An error of Write means that the outcome is unknown: nothing was committed as
// far as this process can tell. The file works again when the fault is gone.
package sqlitefile
