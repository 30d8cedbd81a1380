package bridge

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
)

const (
	// MaxMessageBytes limits one message in either direction, on both sides.
	MaxMessageBytes = wire.MaxMessageBytes
	// PluginSet is the key of the one plugin in Plugins.
	PluginSet = wire.PluginSet
	// LogLevelEnv is the environment variable that carries the level of a
	// plugin's own log, a word of hclog.
	LogLevelEnv = wire.LogLevelEnv
	// CookieKey is the environment variable that tells a plugin that a host started
	// it.
	CookieKey = wire.CookieKey
)

// Handshake is what host and plugin must agree on before the first call.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  sdk.ProtocolVersion,
		MagicCookieKey:   wire.CookieKey,
		MagicCookieValue: wire.CookieValue,
	}
}

// Plugins is the set for go-plugin's client; Dispense(PluginSet) gives a *Client.
func Plugins() plugin.PluginSet { return plugin.PluginSet{PluginSet: glue{}} }

// DialOptions sets the limits of messages. go-plugin's client appends its own
// options first, so these win.
func DialOptions() []grpc.DialOption { return wire.DialOptions() }

// glue is the client's half of go-plugin's interface.
type glue struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer is the plugin's half, which sdk.Serve has.
func (glue) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("bridge: sdk.Serve serves plugins")
}

// GRPCClient makes a *Client. go-plugin's context is the plugin's life, not a
// call's, so nothing here uses it.
func (glue) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewClient(conn), nil
}
