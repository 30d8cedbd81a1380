package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

func meshFlag(dest *string) cli.Flag {
	return &cli.StringFlag{Name: "mesh", Usage: "the `MESH`, by its name in the configuration", Destination: dest}
}

func (a *app) peerVerb() *cli.Command {
	var mesh string
	var all bool
	return &cli.Command{Name: "peer", Usage: "see who is in the mesh", Commands: []*cli.Command{{
		Name: "list", Usage: "list the peers that the filters show",
		Flags: []cli.Flag{
			meshFlag(&mesh),
			&cli.BoolFlag{Name: "all", Usage: "show those that the filters hide, too", Destination: &all},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if _, err := words(cmd, 0, 0); err != nil {
				return err
			}
			return a.peerList(ctx, mesh, all)
		},
	}}}
}

func (a *app) peerList(ctx context.Context, mesh string, all bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := c.Peers(ctx, mesh, all)
	if err != nil {
		return err
	}
	for i, row := range reply.Peers {
		if reply.Peers[i], err = snakePeer(row); err != nil {
			return fmt.Errorf("peers[%d] of the daemon's answer: %w", i, err)
		}
	}
	for _, w := range reply.Warnings {
		a.warn("%s", clean(w))
	}
	if a.json.on {
		return a.emit("peer_list/v1", "peers", reply)
	}
	return a.printPeers(&reply, all)
}

func (a *app) printPeers(reply *control.PeersReply, all bool) error {
	t := newTable(a.stdout, "NAME", "KEY", "ROLE", "STATUS", "MESH", "GROUPS", "SUMMARY")
	for _, row := range reply.Peers {
		ms, err := members(row)
		if err != nil {
			return err
		}
		cells := make([]string, 0, 7)
		for _, name := range []string{"display_name", "pubkey", "role", "status", "mesh", "groups", "summary"} {
			cells = append(cells, cell(field(ms, name)))
		}
		cells[1] = cells[1][:min(16, len(cells[1]))]
		t.row(cells...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(reply.Hidden) > 0 && !all {
		a.warn("%s; -all shows them", hiddenWords(reply.Hidden))
	}
	return nil
}

func hiddenWords(hidden []sdk.HiddenCount) string {
	n, parts := 0, []string(nil)
	for _, h := range hidden {
		n += h.Count
		parts = append(parts, fmt.Sprintf("%d %s by %s", h.Count, clean(h.Reason), clean(h.Filter)))
	}
	return fmt.Sprintf("%d hidden (%s)", n, strings.Join(parts, ", "))
}

// snakePeer turns the wire's names of a row into ours: memberPubkey becomes
// member_pubkey. Annotations keep what their filters chose.
func snakePeer(row jsontext.Value) (jsontext.Value, error) {
	ms, err := members(row)
	if err != nil {
		return nil, err
	}
	var out []member
	for _, m := range ms {
		m.name = snake(m.name)
		if (m.name == "stats" || m.name == "profile") && m.value.Kind() == jsontext.KindBeginObject {
			if m.value, err = snakePeer(m.value); err != nil {
				return nil, err
			}
		}
		if !slices.ContainsFunc(out, func(o member) bool { return o.name == m.name }) {
			out = append(out, m)
		}
	}
	return appendObject(nil, out), nil
}

func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) {
			if i > 0 {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// text is a Go string as JSON.
func text(s string) jsontext.Value {
	v, err := json.Marshal(s)
	if err != nil {
		return jsontext.Value(`""`)
	}
	return v
}
