// Package wire gives the broker's frames Go types: encode, decode, classify. It does no I/O.
//
// One frame is one JSON object with a "type". [Classify] looks at a frame that came in: once over it, checking that it is one
// valid object (no duplicate names, no invalid UTF-8; [MendSurrogates] helps where a peer's text is half a character), and taking
// its type and correlation ids; [Decode] then fills a type of
// this package. Unknown members are ignored, except in a [Peer], which keeps them. Values that belong to users (state, event
// data, tool schemas) stay [jsontext.Value], byte for byte. [Encode] writes what goes out and refuses what the broker would
// not take: a frame of more than [MaxFrame] bytes.
//
// The names follow PROTOCOL.md; a comment names the section. Rooms above host/broker don't see these types.
package wire
