package main

import "github.com/meshhost/meshhost/sdk"

func main() { sdk.Serve(plugin(&handler{})) }

// plugin says what this program is. Tests start the same value.
func plugin(h *handler) sdk.Plugin {
	return sdk.Plugin{
		Name:        "exec",
		Version:     "0.1.0",
		Doc:         "Runs a command for each message.",
		Config:      sdk.Configured(h.configure, validate),
		PushHandler: h,
		Wants:       []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushDirect, sdk.PushBroadcast}}},
	}
}
