// Package broker speaks a mesh's protocol through its links: one connection as the member and one per local agent session.
//
// A [Mesh] is made from options and lives in [Mesh.Run]; a [Conn] is one identity's connection. Sends and requests are written
// at once and settled by their correlation id ("_reqId", else "id"), by a deadline, or by the end of the socket that they were
// written to, whichever is first and each exactly once. Pushes go from the reader through a bounded queue to one consumer
// goroutine, which hands over as many at once as have come in meanwhile; the reader never waits for it.
//
// Invariants: what is in flight belongs to one socket, and is [Unknown] when that socket ends; [NotSent] means that the broker
// can't have seen the frame; a full queue drops pushes and counts them, since a reader that waits answers no pings; tables
// and queues are bounded. Callbacks named On… and a send's done must not block, except OnPush and OnFrame.
package broker
