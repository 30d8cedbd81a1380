// Command meshhost-feature-witness tells which connections its process heard of.
package main

import (
	"context"
	"slices"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

type none struct{}

type heard struct {
	Presences []string `json:"presences"`
}

func main() {
	var mu sync.Mutex
	var all heard
	sdk.Serve(sdk.Plugin{
		Name: "witness", Version: "0.1.0", Doc: "Notes connections.",
		Feature: &sdk.Feature{
			Methods: []sdk.Method{
				sdk.NewMethod("list", "what was heard", sdk.CLI{}, func(context.Context, sdk.Call, none) (heard, error) {
					mu.Lock()
					defer mu.Unlock()
					return heard{slices.Clone(all.Presences)}, nil
				}),
			},
			OnConnect: func(_ context.Context, c sdk.Connected) error {
				mu.Lock()
				defer mu.Unlock()
				all.Presences = append(all.Presences, c.PresenceID)
				return nil
			},
		},
	})
}
