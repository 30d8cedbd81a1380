// Package bridge is the host's end of the plugin boundary, for hosts and test
// kits. Authors of plugins need only package sdk, which holds the other end.
//
// Client speaks to a plugin over any gRPC connection and gives back the plain
// interfaces of sdk; RegisterHost serves sdk.Host to plugins; Plugins, Handshake
// and DialOptions are what go-plugin's client needs. Each converter is one
// function per type, in a file that says the direction: toproto or fromproto.
//
// Invariants: what comes from a plugin is checked before anyone sees it. A wrong
// number of results, an unknown enum or invalid JSON is a *Fault, an error that
// says which call and what was wrong. Every call passes its context on. Errors of
// calls are *sdk.Error values.
package bridge
