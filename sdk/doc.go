// Package sdk is all that the author of a meshhost plugin imports.
//
// A plugin is a program whose main calls Serve with a Plugin value: a name, a
// typed configuration and one or more of the four kinds (Outbox, PushHandler,
// PeerFilter, Feature). The host starts the program, asks what it is
// (Describe), checks its block of mesh.hcl against the schema that comes from
// its Go struct (Validate), hands it the values (Configure), calls it, and asks
// it to finish (Drain) before it ends it. One block of mesh.hcl is one process.
//
// Every call on the data path is a batch with a result per item: crossing the
// process boundary costs the same for one item as for ten.
//
// Calls of a kind come only after Configure returned nil, concurrently unless a
// method says otherwise, and none is in flight while Configure or Drain runs.
// What crosses the boundary, which sockets exist, how a crash is handled: the
// author need not know.
package sdk
