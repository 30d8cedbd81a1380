// Command meshhost-feature-state is the feature "state": the shared key-value
// state of a mesh (PROTOCOL 7.2), as get, set, list and watch.
//
// The broker answers nothing to set_state and drops what it can't store without
// a word, so set reads the key back and fails unless the value is there. It
// tells others of a change but not the one who made it, so set publishes the
// event itself. null can't be stored, and nothing can be deleted.
package main
