package outbound

import (
	"context"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

// List pages through entries, newest first; with several outboxes one outbox
// after the other, by name.
func (o *Outbound) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if a := o.meshes[req.Mesh]; a != nil {
		return a.store.Outbox.List(ctx, req)
	}
	if len(o.outboxes) == 1 {
		return o.opts.Outboxes[o.outboxes[0]].Outbox.List(ctx, req)
	}
	// A page's Next is NAME:NEXT of the outbox to go on with.
	from, before, _ := strings.Cut(req.Before, ":")
	for i, name := range o.outboxes {
		if name < from {
			continue
		}
		req.Before = ""
		if name == from {
			req.Before = before
		}
		page, err := o.opts.Outboxes[name].Outbox.List(ctx, req)
		if err != nil {
			return page, err
		}
		switch {
		case page.Next != "":
			page.Next = name + ":" + page.Next
		case i+1 < len(o.outboxes):
			page.Next = o.outboxes[i+1] + ":"
		}
		if len(page.Entries) > 0 {
			return page, nil
		}
	}
	return sdk.ListPage{}, nil
}
