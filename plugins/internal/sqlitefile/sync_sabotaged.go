//go:build nosync

package sqlitefile

// This build leaves syncing to the kernel and so breaks promise 1 on purpose, for
// tests that must notice.
const (
	synchronous     = "OFF"
	synchronousCode = 0
)
