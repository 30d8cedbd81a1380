// Package roster knows who is in a mesh: it lists peers through the configured filters, and turns what a person types after
// "send" into a routing key.
//
// A list ([Roster.List]) asks the broker once, however many callers wait for it, feeds the directory, and runs the filters in
// the order written, each on the rows kept so far. A filter that fails or takes too long follows its on_error, and the reply
// says so: every list is filtered or carries a warning, none does neither.
//
// A name ([Roster.Resolve]) is looked up in a live list younger than 30 s and in the directory, which remembers every key that
// was ever listed or announced, over restarts. Filters take no part in that, and this host's own keys never match.
package roster
