package plugin

import (
	"context"

	"github.com/meshhost/meshhost/sdk"
)

// filter is the facade of a peer filter.
type filter struct{ p *Plugin }

// PeerFilter returns the peer filter of this plugin, whatever process serves it
// now. It fails as Outbox does.
func (p *Plugin) PeerFilter() sdk.PeerFilter { return filter{p} }

func pickFilter(c *calls) (sdk.PeerFilter, bool) { return c.filter, c.filter != nil }

func (f filter) Filter(ctx context.Context, query sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	return call(ctx, f.p, MethodFilter, pickFilter, func(ctx context.Context, c sdk.PeerFilter) ([]sdk.Verdict, error) {
		res, err := c.Filter(ctx, query, rows)
		return checkLen(len(rows), res, err)
	})
}
