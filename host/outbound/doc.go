// Package outbound takes messages from local programs and gets them into the
// mesh: accept, outbox, send, settle (ARCHITECTURE 3 and 5).
//
// Accept checks limits, answers replays, resolves the target, seals the text
// and appends the entry; only after the backend says "stored" does the caller
// hear of it. A Committer per outbox puts appends and settlements of whoever
// waits into one Apply; nothing is timed. A Lane per (mesh, identity) owns the
// rows that are due: it takes fresh ones from memory, the rest by Fetch, keeps
// one message per target in flight, and turns what the mesh answers into facts
// (accepted) and schedule (defer, wait, die) for the next Apply.
//
// A ladder per lane asks the broker what became of accepted rows (message_status)
// and sends again what it lost; a trail per mesh remembers the hops of the last
// messages for Trace.
//
// Which outboxes there are and which mesh sends from which may change at run
// time (AddOutbox, Attach, RemoveOutbox), and an outbox can be held still while
// its rows are copied (Hold, Resume): a lane belongs to one outbox for its whole
// life, so a mesh that moves gets a new one when the old one has ended.
//
// Invariants: what was accepted is in the backend before the caller is told;
// what a caller was told is not stored never will be; a queue leaves memory
// only when its settlements are applied, so that a Fetch never brings back
// what was sent; within one target rows leave in seq order, one at a time; in
// flight is memory only, so a crash recovers by doing nothing. A row past its
// not_after is expired when its turn comes, which needs a connection.
package outbound
