// Package outboxstate holds what every outbox backend decides alike: which ops
// are well formed, what an op does to a row in a state (ARCHITECTURE 5), who
// holds a lane, and which limits refuse an append.
//
// Everything here is a pure function of its arguments. A backend finds the
// row, calls Decide, and stores what came out; it also keeps the queues, since
// only it knows its indexes. Times are wall-clock milliseconds of the backend.
package outboxstate
