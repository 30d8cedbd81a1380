// Package control is the local HTTP API of the daemon, server and Go client.
//
// The server answers HTTP/1.1 on a unix socket: 0600 from the moment that its
// name exists, in a directory that nobody else can write to, for processes of
// the same user only (PROTOCOL 10.2 to 10.5 says which routes and fields).
// It decides nothing: every answer comes from a room of the host through one of
// the interfaces in rooms.go, and every failure becomes one JSON object
// {"error", "message", "next"} in problem.go, the only place that knows which
// status belongs to which error.
//
// Invariants: bodies, headers, connections, waiters and event readers are
// bounded; a slow reader of events loses events, is told how many, and stalls
// nobody; Shutdown returns only when every handler has returned.
//
// The client (client.go) is what the command line uses: one connection, typed
// replies, and *APIError or *UnreachableError when it fails.
package control
