package plugin

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/meshhost/meshhost/sdk"
)

// handshakeLine is what go-plugin's server prints: core version, protocol
// version, network, address, protocol. Anything else on stdout is noise.
var handshakeLine = regexp.MustCompile(`^\d+\|\d+\|(unix|tcp)\|[^|]+(\|.*)?$`)

// maxHandshake bounds the handshake line; it may carry a certificate.
const maxHandshake = 16 << 10

// handshake splits a plugin's stdout: the handshake line goes to go-plugin,
// what is before and after it to the log. It never blocks the plugin.
type handshake struct {
	log    *lineWriter
	reader *io.PipeReader

	mu     sync.Mutex
	writer *io.PipeWriter
	line   []byte // begun, not yet ended
	found  bool
	// problem says why the handshake is not ours; valid if found.
	problem error
	send    sync.WaitGroup
}

func newHandshake(log *lineWriter) *handshake {
	h := &handshake{log: log}
	h.reader, h.writer = io.Pipe()
	return h
}

// Write takes what the process wrote to stdout.
func (h *handshake) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rest := p
	for !h.found && len(rest) > 0 {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			h.line = append(h.line, rest...)
			rest = nil
			if len(h.line) > maxHandshake {
				h.noise(h.line)
			}
			break
		}
		h.line = append(h.line, rest[:i]...)
		rest = rest[i+1:]
		if handshakeLine.Match(bytes.TrimSpace(h.line)) {
			h.found = true
			h.problem = checkHandshake(strings.TrimSpace(string(h.line)))
			h.pass(h.line)
		} else {
			h.noise(append(h.line, '\n'))
		}
		h.line = nil
	}
	if len(rest) > 0 {
		_, _ = h.log.Write(rest)
	}
	return len(p), nil
}

// noise logs what was no handshake.
func (h *handshake) noise(line []byte) {
	_, _ = h.log.Write(line)
	h.line = nil
}

// pass gives the line to go-plugin's reader, which may not be reading yet.
func (h *handshake) pass(line []byte) {
	line = append(line, '\n')
	h.send.Go(func() {
		_, _ = h.writer.Write(line)
		_ = h.writer.Close()
	})
}

// end gives go-plugin's reader the end of the stream, and the log a line that
// was begun: it may say why there is no handshake.
func (h *handshake) end() {
	h.mu.Lock()
	if len(h.line) > 0 {
		h.noise(h.line)
	}
	h.mu.Unlock()
	_ = h.writer.Close()
	h.send.Wait()
}

// wrong says why the plugin's handshake was not ours, nil if it was or did not
// come.
func (h *handshake) wrong() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// checkHandshake compares what go-plugin compares too, but with an error that a
// caller can tell from a crash.
func checkHandshake(line string) error {
	f := strings.Split(line, "|")
	core, version, network, protocol := f[0], f[1], f[2], ""
	if len(f) > 4 {
		protocol = f[4]
	}
	switch {
	case core != strconv.Itoa(goplugin.CoreProtocolVersion):
		return fmt.Errorf("it speaks version %s of go-plugin's core protocol, this host %d; rebuild it with a current sdk", core, goplugin.CoreProtocolVersion)
	case version != strconv.Itoa(sdk.ProtocolVersion):
		return fmt.Errorf("it speaks plugin protocol %s, this host speaks %d; rebuild it with a current sdk", version, sdk.ProtocolVersion)
	case network != "unix":
		return fmt.Errorf("it listens on %s; only unix sockets are private", network)
	case protocol != string(goplugin.ProtocolGRPC):
		return fmt.Errorf("it speaks %q, this host speaks grpc; use go-plugin's gRPC server", protocol)
	}
	return nil
}
