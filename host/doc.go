// Package host wires the rooms of the daemon: configuration, plugin processes,
// meshes, the way out, the way in, and the local API.
//
// Run reads mesh.hcl, takes the lock of data_dir, opens the host's store and
// the socket, starts the plugins side by side and then the connections. Nothing
// waits for a mesh: a first connection that fails is a reconnect. Close goes
// the other way, with one deadline for all: no new requests, what is on the
// wire is settled, what was journaled is acked, sockets say 1000, plugins end
// in reverse order.
//
// The rooms know each other only through small interfaces; the adapters are
// here.
package host
