// Package store is the host's own durable store, one SQLite file (host.db, mode 0600) in its data directory: who this install
// is, the inbound journal, the peer directory, desired presence, and the key-value space of each plugin.
//
// One goroutine owns the only writing connection. Whatever is asked for while a transaction runs goes into the next one, so
// many writers share one sync to disk and a lone one waits for nobody. A write that returned nil is durable: WAL and
// synchronous=FULL are read back at open, and a file that can't have them is refused.
//
// The journal keeps a push from the moment it may be acked until each handler is done with it, and its dedup keys for longer.
// Frames are stored as they are given; sealing what is not ciphertext is the caller's. Everything here is bounded: the journal
// in rows and bytes, keys in number and age, dead letters, directory, presences and key-value spaces in number and size.
package store
