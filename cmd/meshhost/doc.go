// Meshhost joins a machine to a message mesh: the daemon and its client verbs.
//
// `meshhost -config mesh.hcl` is the daemon, `meshhost -dev` one with a broker
// of its own; everything else is a verb. A verb that this binary does not have
// is looked for among the features of the running daemon: their declarations
// (parameters, results, hints) become flags, tables and -json output here, so
// that a new plugin brings its verbs along (feature.go).
//
// The flow: main makes an app, app.run finds the verb, asks the daemon if it
// must, builds the command tree and runs it. A handler writes data to stdout
// and words to stderr and returns an error; exit.go alone turns errors into
// sentences and exit codes.
package main
