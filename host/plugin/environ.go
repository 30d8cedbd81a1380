package plugin

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/meshhost/meshhost/sdk/bridge"
)

// inheritedEnv are the variables of the host that a plugin sees. The host's
// environment holds secrets; go-plugin would pass all of it.
var inheritedEnv = []string{"PATH", "HOME", "TMPDIR", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// socketDirEnv tells go-plugin's server where to put its socket. Its
// UnixSocketConfig does so for the client side only.
const socketDirEnv = "PLUGIN_UNIX_SOCKET_DIR"

// environ is a plugin's environment: what it inherits, what the Spec sets, what
// go-plugin needs, later ones first in rank.
func environ(s *Spec, goplugin []string, socketDir string) []string {
	var env []string
	for _, k := range inheritedEnv {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	env = append(env, bridge.LogLevelEnv+"="+s.Logger.GetLevel().String())
	for _, k := range slices.Sorted(maps.Keys(s.Env)) {
		env = append(env, k+"="+s.Env[k])
	}
	for _, kv := range goplugin {
		if !strings.HasPrefix(kv, socketDirEnv+"=") {
			env = append(env, kv)
		}
	}
	return append(env, socketDirEnv+"="+socketDir)
}

// reservedEnv reports whether a variable is the handshake's.
func reservedEnv(name string) bool {
	return strings.HasPrefix(name, "PLUGIN_") || name == bridge.CookieKey
}

func validEnvName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00")
}
