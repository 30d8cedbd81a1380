package main

import (
	"context"
	"strings"

	"github.com/meshhost/meshhost/host/control"
	"github.com/urfave/cli/v3"
)

func (a *app) eventsVerb() *cli.Command {
	var kinds, mesh string
	return &cli.Command{
		Name: "events", Usage: "print what happens, one JSON object a line, until interrupted",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kind", Usage: "only these `KINDS`, separated by commas", Destination: &kinds},
			meshFlag(&mesh),
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if _, err := words(cmd, 0, 0); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			var list []string
			if kinds != "" {
				list = strings.Split(kinds, ",")
			}
			return c.Events(ctx, list, mesh, nil, a.printEvent)
		},
	}
}

// printEvent prints {"schema":"event/v1","kind",…}; -json=a,b selects fields.
func (a *app) printEvent(ev control.StreamEvent) error {
	ms, err := members(ev.Data)
	if err != nil {
		return err
	}
	line := []member{{"kind", text(ev.Kind)}}
	for _, m := range ms {
		if m.name == "kind" {
			m.name = "data_kind" // the data's own; one object can't hold both
		}
		line = append(line, m)
	}
	return a.emit("event/v1", "", appendValue(line))
}
