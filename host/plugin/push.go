package plugin

import (
	"context"

	"github.com/meshhost/meshhost/sdk"
)

// push is the facade of a push handler.
type push struct{ p *Plugin }

// PushHandler returns the push handler of this plugin, whatever process serves
// it now. It fails as Outbox does.
func (p *Plugin) PushHandler() sdk.PushHandler { return push{p} }

func pickPush(c *calls) (sdk.PushHandler, bool) { return c.push, c.push != nil }

func (h push) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return call(ctx, h.p, MethodHandle, pickPush, func(ctx context.Context, c sdk.PushHandler) ([]sdk.Outcome, error) {
		res, err := c.Handle(ctx, pushes)
		return checkLen(len(pushes), res, err)
	})
}
