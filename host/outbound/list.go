package outbound

import (
	"context"
	"slices"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

// List pages through entries, newest first; with several outboxes one outbox
// after the other, by name.
func (o *Outbound) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	boxes := o.list()
	if a := o.meshes[req.Mesh]; a != nil {
		boxes = append([]*box{a.outbox()}, a.earlier()...)
		slices.SortFunc(boxes, func(a, b *box) int { return strings.Compare(a.name, b.name) })
	}
	if len(boxes) == 1 {
		return boxes[0].Outbox.List(ctx, req)
	}
	// A page's Next is NAME:NEXT of the outbox to go on with.
	from, before, _ := strings.Cut(req.Before, ":")
	for i, b := range boxes {
		if b.name < from {
			continue
		}
		req.Before = ""
		if b.name == from {
			req.Before = before
		}
		page, err := b.Outbox.List(ctx, req)
		switch {
		case err != nil && o.box(b.name) != b: // removed meanwhile
			continue
		case err != nil:
			return page, err
		}
		switch {
		case page.Next != "":
			page.Next = b.name + ":" + page.Next
		case i+1 < len(boxes):
			page.Next = boxes[i+1].name + ":"
		}
		if len(page.Entries) > 0 {
			return page, nil
		}
	}
	return sdk.ListPage{}, nil
}
