// Package devbroker is a claudemesh broker in one process, for `meshhost -dev`, for tests and for plugin authors.
//
// It shows the reference broker's behaviour where recorded transcripts show it: the same frames and fields, the same
// silences, close codes, 90 s grace leases, 30 s claims and drains. One reader goroutine per connection handles that
// connection's frames in order under the lock of its mesh; what a frame causes (records, frames, closes) is collected in
// a turn and released by commit: records reach the data file before any frame leaves. A writer goroutine per connection
// drains a bounded buffer, so a slow client is cut off and never stalls another.
//
// What is kept with Options.DataFile: queue, claims, saved member state, bans, shared state. Every record is written with
// write(2) before the ack it belongs to, which survives kill -9 of the process; there is no fsync, so a power cut may lose
// the tail. Presences and leases live in memory only, as in the reference.
package devbroker
