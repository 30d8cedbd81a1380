package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

// versionInfo is what this binary is, without asking a daemon.
type versionInfo struct {
	Version        string `json:"version"`
	Revision       string `json:"revision,omitempty"`
	Time           string `json:"time,omitempty"`
	Modified       bool   `json:"modified,omitzero"`
	Go             string `json:"go"`
	Platform       string `json:"platform"`
	API            string `json:"api"`
	PluginProtocol int    `json:"plugin_protocol"`
	SDK            string `json:"sdk"`
}

func (a *app) versionVerb() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "show the version of this binary and of what it speaks",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if _, err := words(cmd, 0, 0); err != nil {
				return err
			}
			v := a.versionInfo()
			if a.json.on {
				return a.emit("version/v1", "", v)
			}
			_, err := fmt.Fprintf(a.stdout, "meshhost %s (%s, %s), API %s, plugin protocol %d, SDK %s\n",
				v.Version, v.Go, v.Platform, v.API, v.PluginProtocol, v.SDK)
			return err
		},
	}
}

func (a *app) versionInfo() versionInfo {
	v := versionInfo{
		Version: a.daemon.version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		API: control.APIVersion, PluginProtocol: sdk.ProtocolVersion, SDK: sdk.Version,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
