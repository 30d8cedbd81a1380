package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	defaultLimit = 100  // PROTOCOL 10.3
	maxLimit     = 1000 // PROTOCOL 10.3
)

type listParams struct {
	Limit  int    `json:"limit,omitempty" doc:"How many messages, 1 to 1000; default 100."`
	Unread bool   `json:"unread,omitempty" doc:"Only messages that were not marked seen."`
	After  string `json:"after,omitempty" doc:"Only messages after the one with this id, oldest first."`
	Since  string `json:"since,omitempty" doc:"Only messages received at or after this time (RFC 3339)."`
	From   string `json:"from,omitempty" doc:"Only messages of this sender: a name, a public key or 8 digits of it."`
	Mesh   string `json:"mesh,omitempty" doc:"Only messages of this mesh."`
}

type listResult struct {
	Messages []message `json:"messages"`
	Warnings []string  `json:"warnings,omitempty" doc:"Why there are fewer than asked for."`
}

type idParams struct {
	ID string `json:"id" doc:"The message's id."`
}

type seenParams struct {
	IDs []string `json:"ids" doc:"Ids of messages."`
}

type seenResult struct {
	MarkedSeen int `json:"marked_seen" doc:"Messages that were unread before."`
}

type deleteResult struct {
	Removed int    `json:"removed"`
	ID      string `json:"id"`
}

type pruneParams struct {
	Before    string `json:"before,omitempty" doc:"Delete what was received before this time (RFC 3339)."`
	OlderThan string `json:"older_than,omitempty" doc:"Delete what is older than this, such as 168h."`
	Mesh      string `json:"mesh,omitempty" doc:"Only messages of this mesh."`
}

type pruneResult struct {
	Removed int `json:"removed"`
}

// feature declares the methods; their names and fields follow PROTOCOL 10.3.
func (b *inbox) feature() *sdk.Feature {
	return &sdk.Feature{
		Default: "list",
		Methods: []sdk.Method{
			sdk.NewMethod("list", "List messages, newest first.", sdk.CLI{
				Rows:    "messages",
				Columns: []string{"received_at", "sender_name", "sender_pubkey", "body", "id"},
				Follow:  &sdk.Follow{Event: "stored", Cursor: "after", Key: "id"},
			}, b.callList),
			sdk.NewMethod("show", "Show one message.", sdk.CLI{Args: []string{"id"}}, b.callShow),
			sdk.NewMethod("seen", "Mark messages as seen.", sdk.CLI{Args: []string{"ids"}}, b.callSeen),
			sdk.NewMethod("delete", "Delete one message for good.", sdk.CLI{Args: []string{"id"}}, b.callDelete),
			sdk.NewMethod("prune", "Delete old messages, seen or not.", sdk.CLI{}, b.callPrune),
		},
	}
}

// scopeOf is what a call may touch; mesh is the parameter of that name.
func scopeOf(call sdk.Call, mesh string) scope {
	if mesh == "" {
		mesh = call.Mesh
	}
	return scope{mesh: mesh, identity: call.Identity}
}

func (b *inbox) callList(ctx context.Context, call sdk.Call, p listParams) (listResult, error) {
	q := query{scope: scopeOf(call, p.Mesh), limit: p.Limit, unread: p.Unread, after: p.After, from: p.From}
	switch {
	case p.Limit == 0:
		q.limit = defaultLimit
	case p.Limit < 0 || p.Limit > maxLimit:
		return listResult{}, invalid("limit", "limit is %d; it must be 1 to %d", p.Limit, maxLimit)
	}
	if p.Since != "" {
		since, err := moment("since", p.Since)
		if err != nil {
			return listResult{}, err
		}
		q.since = since.UnixMilli()
	}
	messages, more, err := b.list(ctx, q)
	res := listResult{Messages: messages}
	if more {
		res.Warnings = []string{fmt.Sprintf("these are %d of the messages that were asked for: more don't fit one answer; choose by since, from or unread, or page by after", len(messages))}
	}
	return res, err
}

func (b *inbox) callShow(ctx context.Context, call sdk.Call, p idParams) (message, error) {
	return b.show(ctx, p.ID, scope{identity: call.Identity})
}

func (b *inbox) callSeen(ctx context.Context, call sdk.Call, p seenParams) (seenResult, error) {
	if len(p.IDs) > maxLimit {
		return seenResult{}, invalid("ids", "%d ids; at most %d in one call", len(p.IDs), maxLimit)
	}
	n, err := b.markSeen(ctx, p.IDs, scope{identity: call.Identity})
	return seenResult{MarkedSeen: n}, err
}

func (b *inbox) callDelete(ctx context.Context, call sdk.Call, p idParams) (deleteResult, error) {
	if err := b.remove(ctx, p.ID, scope{identity: call.Identity}); err != nil {
		return deleteResult{}, err
	}
	return deleteResult{Removed: 1, ID: p.ID}, nil
}

func (b *inbox) callPrune(ctx context.Context, call sdk.Call, p pruneParams) (pruneResult, error) {
	before, err := p.border(b.now())
	if err != nil {
		return pruneResult{}, err
	}
	n, err := b.prune(ctx, before, scopeOf(call, p.Mesh))
	return pruneResult{Removed: n}, err
}

// border is the time before which everything goes.
func (p pruneParams) border(now time.Time) (time.Time, error) {
	if (p.Before == "") == (p.OlderThan == "") {
		return time.Time{}, invalid("before", "say either before or older_than")
	}
	if p.Before != "" {
		return moment("before", p.Before)
	}
	age, err := time.ParseDuration(p.OlderThan)
	if err != nil || age < 0 {
		return time.Time{}, invalid("older_than", "older_than is %q; write a duration such as 168h", p.OlderThan)
	}
	return now.Add(-age), nil
}

func moment(name, value string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, invalid(name, "%s is %q; write a time such as 2026-01-31T12:00:00Z", name, value)
	}
	return at, nil
}

func invalid(reason, format string, args ...any) error {
	return sdk.Errorf(sdk.CodeInvalid, "bad_"+reason, format, args...)
}
