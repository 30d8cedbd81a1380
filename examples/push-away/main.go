package main

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func main() { sdk.Serve(plugin(&handler{now: time.Now})) }

// plugin says what this program is. Tests start the same value.
func plugin(h *handler) sdk.Plugin {
	return sdk.Plugin{
		Name:        "away",
		Version:     "0.1.0",
		Doc:         "Answers direct messages while you are away.",
		Config:      sdk.Configured(h.configure, validate),
		PushHandler: h,
		Wants:       []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushDirect}}},
	}
}
