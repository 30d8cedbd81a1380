package wire

import "google.golang.org/grpc"

// The handshake. The cookie is no secret: it tells a plugin that a host started
// it and not a person.
const (
	CookieKey   = "MESHHOST_PLUGIN_COOKIE"
	CookieValue = "f3b6d1c2a9e74c0d8f51"
	// PluginSet is the one key in go-plugin's set of plugins: a process is one
	// plugin, whatever its kinds.
	PluginSet = "meshhost"
	// LogLevelEnv carries the level of the plugin's own log, an hclog word.
	LogLevelEnv = "MESHHOST_LOG_LEVEL"
	// HealthName is what go-plugin's server reports health for.
	HealthName = "plugin"
	// TokenKey is the metadata key of the host token.
	TokenKey = "meshhost-token"
)

// MaxMessageBytes limits one message in either direction, set on both sides:
// gRPC's default refuses 4 MiB on one of them only. Batches are cut at 1 MiB, so
// this leaves room for one outsized item and still bounds what a bad peer can
// make us allocate.
const MaxMessageBytes = 16 << 20

// MaxDepth limits how deep types and blocks of a schema nest.
const MaxDepth = 16

// windowBytes is the flow-control window of a stream and of a connection. A fixed
// one: gRPC's own estimate costs a ping, its answer and a window update for each
// message in each direction, a fifth of the CPU of a small call. On a local socket
// there is no round trip to estimate.
const windowBytes = 4 << 20

// ServerOptions are the limits of the end that serves.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.StaticStreamWindowSize(windowBytes),
		grpc.StaticConnWindowSize(windowBytes),
	}
}

// DialOptions are the limits of the end that calls.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes),
		),
		grpc.WithStaticStreamWindowSize(windowBytes),
		grpc.WithStaticConnWindowSize(windowBytes),
	}
}
