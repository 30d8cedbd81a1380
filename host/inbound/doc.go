// Package inbound takes what the mesh pushes, keeps it, acks it, and hands it to the push handlers.
//
// The flow of a push: [Receiver.Accept] opens it (which key opens it tells whom it was for) and queues it; the committer
// goroutine puts all that is queued into one transaction of the journal {dedup keys, frame, one work item per handler that
// wants it}, then acks on the connection that it came on, duplicates too, then gives the work to the handlers' goroutines.
// Each of those feeds its handler in batches, in order per (recipient, sender), from memory or from the journal.
//
// Invariants: nothing is acked before the journal has it on disk; Accept never waits, so the reader of the socket never does;
// what doesn't fit into the queue or the journal is either not acked and asked for again, or, if the protocol can't repeat it,
// dropped and counted; a handler that is slow, down or failing delays nobody but itself; a retry delays its order key alone.
//
// A work item is done at the handler's answer. Its mark is written with the next transaction, at most a moment later, so
// after a crash a handler can see the last pushes again: that is what [sdk.Push.DedupKeys] are for.
package inbound
