// Package feature knows the RPC features of the running plugins: which methods
// they declare, how to call one, and who hears of connections and frames.
//
// A feature has the name of the block that brings it. Its declaration comes
// with the plugin's description and changes when the plugin is replaced, so
// nothing is kept here: a list asks each source anew. OnConnect and OnFrame are
// fed by one goroutine per feature from a bounded queue: a feature that is slow
// or down loses frames, which the mesh does not repeat either, and stalls
// nobody.
package feature
