//go:build !nosync

package store

// synchronous is how SQLite syncs: FULL is a sync at each commit. With NORMAL, SQLite's own advice for a WAL, a power cut
// takes every commit since the last checkpoint.
const (
	synchronous     = "FULL"
	synchronousCode = "2"
)
