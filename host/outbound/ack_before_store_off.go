//go:build !ack_before_store

package outbound

// ackBeforeStore is false in every build but the one that proves that the
// tests would notice: there the caller hears "accepted" before the backend has
// answered.
const ackBeforeStore = false
