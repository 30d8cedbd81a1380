// Package event is a bounded bus of what happened in the daemon, for the local API and the command line.
//
// [Bus.Publish] never blocks: an event goes to each [Subscription] that has room, and nothing of it is kept. A subscriber that
// reads too slowly loses events, never time of the publisher, and finds a marker of kind [KindDropped] at the place of the gap.
//
// Invariants: Seq rises by one with each event of a bus; a subscription holds
// at most its buffer and one marker; after [Bus.Close] every subscription's channel is closed and publishing does nothing.
package event
