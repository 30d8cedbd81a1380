// Package link keeps one WebSocket to a broker alive: dial, upgrade, hello, ack, ready, close, back off, again.
//
// [Link.Run] owns all state; a reader goroutine per socket hands frames to Options.OnFrame in arrival order, and hands the
// hello_ack to the owner before it reads on, so that whoever sees a frame that follows the ack sees the link ready. Writes go
// through a bounded buffer below the WebSocket library, which collects frames while the previous write runs.
//
// Invariants: nothing but the hello is written before its ack; frames and the loss of a socket are told in order, and none of a
// socket's frames come after its loss; a first connection that fails is just another reconnect; only a terminal rejection
// suspends; every phase has a deadline. A reader of this package needn't know the library below: nothing here cancels a read or
// a write by context, since that would close the socket.
package link
