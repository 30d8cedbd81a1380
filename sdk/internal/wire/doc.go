// Package wire holds what both ends of the plugin boundary must agree on and
// that has no place in the protos: the handshake, the limits, how times, enums
// and errors are written.
//
// The plugin's end is in package sdk, the host's end in package sdk/bridge; each
// converts between the generated messages and the plain structs of sdk. This
// package knows neither: it deals in strings, numbers and generated types, so
// that both can import it.
package wire
