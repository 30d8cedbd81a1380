//go:build ack_before_store

package inbound

// ackBeforeStore is true: this build breaks promise 2 on purpose, for tests that must notice.
const ackBeforeStore = true
