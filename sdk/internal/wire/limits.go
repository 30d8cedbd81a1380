package wire

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
