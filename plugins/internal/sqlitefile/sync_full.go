//go:build !nosync

package sqlitefile

// synchronous is how SQLite syncs: FULL is a sync at each commit. With NORMAL,
// SQLite's own advice for a WAL, a power cut takes all since the last checkpoint.
const (
	synchronous     = "FULL"
	synchronousCode = 2
)
