//go:build ack_before_store

package outbound

// ackBeforeStore breaks promise 1 on purpose.
const ackBeforeStore = true
