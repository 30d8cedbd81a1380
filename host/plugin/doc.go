// Package plugin runs the processes that give meshhost its behaviour: it
// verifies a binary, starts it, asks what it is, configures it, hands calls to
// it, watches it, restarts it and ends it.
//
// Flow: Start returns a Plugin at once; one goroutine per plugin owns its life
// (supervise.go) and moves it through starting -> ready -> draining -> backoff
// -> quarantined -> stopped. Each incarnation is one OS process (process.go)
// behind one go-plugin client (run.go) with one private socket for host
// services (hostserver.go). The facades (Outbox, PushHandler, PeerFilter,
// Feature) are stable: each call goes to the incarnation that is current, or
// fails at once with reason "plugin_down".
//
// Invariants: nothing of a process outlives its incarnation (children, socket
// directory, token); no call is in flight while a plugin is configured or
// drained; a client, a command and a runtime directory are never used twice;
// go-plugin never reads a plugin's stderr, and of stdout only the handshake
// line; every wait has a deadline.
//
// Grants (Spec.Allow) are guard rails, not a sandbox: a process of the same
// user can read what that user can read.
package plugin
