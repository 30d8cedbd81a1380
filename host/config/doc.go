// Package config reads mesh.hcl into a typed [Config], or says what is wrong with file, line, caret and a next step.
//
// [Load] parses a file or a directory of files, evaluates env, file and hostname, checks every block and resolves the
// host's own paths against the file that names them. The bodies of `config {}` blocks stay raw: only a plugin knows its
// options. Once the host has asked a plugin for its schema, [Use.DecodePlugin] checks the body and turns it into JSON,
// and [Use.MapDiagnostics] leads what the plugin says of its values back to the source.
//
// Invariants: a [Config] that Load returns had no error; every [Diagnostic] ends with what to do next and never wraps a
// line; what a schema calls a secret is in no diagnostic, neither in its words nor in the quoted source; input of any
// shape gives diagnostics, never a panic.
//
// Only host and cmd read this package; the rooms get their own options from host.
package config
