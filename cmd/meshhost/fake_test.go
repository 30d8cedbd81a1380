package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/sdk"
)

// fakeHost is a daemon's rooms. It notes every call as a line, and what it
// answers depends on what it is asked, so that scripts choose by their words.
type fakeHost struct {
	bus *event.Bus

	mu       sync.Mutex
	changed  *sync.Cond
	calls    []string
	messages int // in the inbox
	reloads  int // asked for
	starting bool
	ended    bool
}

func newFakeHost() *fakeHost {
	h := &fakeHost{bus: event.New(), messages: 2}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *fakeHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	h.changed.Broadcast()
}

// called waits until n calls hold want, and reports false once the script ended.
func (h *fakeHost) called(want string, n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		found := 0
		for _, c := range h.calls {
			if strings.Contains(c, want) {
				found++
			}
		}
		if found >= n || h.ended {
			return found >= n
		}
		h.changed.Wait()
	}
}

func (h *fakeHost) Send(_ context.Context, r control.SendRequest) (control.SendReply, error) {
	h.note("send to=%s message=%q priority=%s mesh=%s key=%s", r.To, r.Message, r.Priority, r.Mesh, r.ClientMessageID)
	rep := control.SendReply{
		ID: "0198-" + r.To, ClientMessageID: "0198-" + r.To, Status: control.StatusQueued, Durable: true,
		Resolved: control.Resolved{Target: "ab12", Name: r.To, From: "live"},
	}
	if r.ClientMessageID != "" {
		rep.ClientMessageID = r.ClientMessageID
	}
	switch r.To {
	case "several":
		return rep, &control.Ambiguous{Target: r.To, Candidates: []control.Candidate{
			{Mesh: "team", PubKey: "aa11", DisplayName: "several\x1b[31m", Role: "session"}, {Mesh: "team", PubKey: "bb22"},
		}}
	case "nobody":
		return rep, sdk.Errorf(sdk.CodeUnavailable, "route_failed", "nobody is called %q", r.To)
	case "reused":
		return rep, &control.Conflict{Kind: "outbox_done_fingerprint_mismatch"}
	case "meshes":
		return rep, &control.MeshRequired{Attached: []string{"team", "lab"}}
	case "down":
		return rep, sdk.Errorf(sdk.CodeUnavailable, "outbox_unavailable", "the outbox is down").WithNext("meshhost plugin list")
	case "unknown":
		return rep, &control.UnknownOutcome{ClientMessageID: "0198-key", Err: errors.New("killed")}
	case "long":
		return rep, sdk.Errorf(sdk.CodeInvalid, "message_too_large", "the message is too large")
	case "policy":
		return rep, sdk.Errorf(sdk.CodePermission, "", "sending is not allowed")
	case "banned":
		return rep, &control.Problem{Status: 503, Code: "identity_rejected", Message: "the broker has banned this member"}
	case "slow":
		return rep, sdk.Errorf(sdk.CodeTimeout, "", "no answer")
	case "twice":
		rep.Status, rep.Duplicate, rep.Durable = control.StatusDone, true, false
	case "offline", "AB12": // the second is the key that it goes to
		rep.Resolved.From = "directory"
	}
	return rep, nil
}

func (h *fakeHost) SendMany(ctx context.Context, reqs []control.SendRequest) func() []control.SendOutcome {
	out := make([]control.SendOutcome, len(reqs))
	for i, r := range reqs {
		out[i].Reply, out[i].Err = h.Send(ctx, r)
	}
	return func() []control.SendOutcome { return out }
}

func row(id string, state sdk.EntryState) sdk.Entry {
	return sdk.Entry{
		ID: id, ClientMessageID: "c-" + id, Mesh: "team", Sender: "member", Target: "ab12", Priority: "next",
		EnqueuedAt: time.UnixMilli(1700000000000), State: state, BrokerMessageID: "b1",
	}
}

func (h *fakeHost) List(_ context.Context, r sdk.ListRequest) (sdk.ListPage, error) {
	h.note("list states=%v mesh=%s target=%s limit=%d before=%s", r.States, r.Mesh, r.Target, r.Limit, r.Before)
	e := row("e1", sdk.StateDead)
	e.LastError = "payload too large"
	return sdk.ListPage{Entries: []sdk.Entry{e}, Next: "cursor2"}, nil
}

func (h *fakeHost) Get(_ context.Context, id string) (*sdk.Entry, bool, error) {
	h.note("get %s", id)
	if id == "none" {
		return nil, false, sdk.Errorf(sdk.CodeNotFound, "", "no message %s", id)
	}
	e := row(id, sdk.StatePending)
	return &e, true, nil
}

func (h *fakeHost) Inflight() []string { return []string{"e9"} }

func (h *fakeHost) Requeue(_ context.Context, id string) (*sdk.Entry, error) {
	h.note("requeue %s", id)
	if id == "none" {
		return nil, sdk.Errorf(sdk.CodeNotFound, "", "no message %s", id)
	}
	e := row(id, sdk.StatePending)
	return &e, nil
}

func (h *fakeHost) Cancel(_ context.Context, id string) error {
	h.note("cancel %s", id)
	if id == "flying" {
		return sdk.Errorf(sdk.CodeConflict, "in_flight", "the message is on its way")
	}
	return nil
}

func (h *fakeHost) Wait(ctx context.Context, id string, state sdk.EntryState) (*sdk.Entry, error) {
	h.note("wait %s %s", id, state)
	e := row(id, state)
	switch id {
	case "0198-never":
		<-ctx.Done()
		return nil, ctx.Err()
	case "0198-dead":
		e.State, e.LastError = sdk.StateDead, "payload too large"
	case "0198-blocked":
		e.State, e.LastError = sdk.StateDead, "blocked by recipient grants (sender lacks dm capability)"
	case "0198-all":
		e.State = sdk.StateAccepted
	}
	return &e, nil
}

func (h *fakeHost) Trace(_ context.Context, id string) (*control.MessageTrace, error) {
	h.note("trace %s", id)
	at, later := time.UnixMilli(1700000000000).UTC(), time.UnixMilli(1700000060000).UTC()
	e := row(id, sdk.StateAccepted)
	t := &control.MessageTrace{
		Entry: &e, Outbox: "sqlite", Durable: true,
		Hops: []control.TraceHop{
			{At: &at, Hop: "stored", Detail: "in outbox \"sqlite\"", FromRow: true},
			{Hop: "deferred", Detail: "busy"},
			{At: &at, Hop: "accepted", BrokerMessageID: "b1"},
			{At: &at, Hop: "asked", Detail: "not delivered yet", Times: 3, LastAt: &later},
		},
		Next: control.TraceNext{What: "ask", Detail: "the broker is asked", At: &later},
	}
	switch id {
	case "none":
		return nil, sdk.Errorf(sdk.CodeNotFound, "outbox_not_found", "no message %s", id)
	case "old":
		t.Earlier = "hops before the start are not known"
	case "lost":
		t.Entry, t.Next = nil, control.TraceNext{What: "nothing", Detail: "the outbox does not have the message"}
	}
	return t, nil
}

func (h *fakeHost) Peers(_ context.Context, mesh string, all bool) (sdk.PeerView, error) {
	h.note("peers mesh=%s all=%v", mesh, all)
	v := sdk.PeerView{
		Peers: []sdk.Peer{{Mesh: "team", Role: sdk.RoleSession, Wire: jsontext.Value(
			`{"pubkey":"aabbccddeeff00112233","memberPubkey":"99","displayName":"bob\u001b[2J","status":"idle","summary":null,"groups":[{"name":"ci","role":"lead"}],"peerRole":"session","stats":{"messagesIn":3}}`)}},
		Warnings: []string{"filter role is down"},
	}
	if all {
		v.Peers = append(v.Peers, sdk.Peer{Mesh: "team", Role: sdk.RoleControlPlane, PubKey: "ff"})
	}
	v.Hidden = []sdk.HiddenCount{{Filter: "role", Reason: "control-plane", Count: 1}}
	return v, nil
}

// Reload answers something else each time.
func (h *fakeHost) Reload(context.Context) (control.ReloadReply, error) {
	h.note("reload")
	h.mu.Lock()
	h.reloads++
	n := h.reloads
	h.mu.Unlock()
	switch n {
	case 1, 2:
		return control.ReloadReply{
			Changes:  []control.ReloadChange{{Block: `outbox "b"`, Change: "added"}, {Block: `mesh "team"`, Change: "moved\x1b[2J"}},
			Warnings: []string{"mesh.hcl:1:1: odd"},
		}, nil
	case 3:
		return control.ReloadReply{Changes: []control.ReloadChange{}, Warnings: []string{}}, nil
	case 4, 5:
		d := config.Diagnostic{Severity: sdk.SeverityError, Summary: "bad thing", Next: "Mend it.", File: "mesh.hcl", Line: 3, Column: 5, Source: "    x = 1", Caret: config.Caret{Start: 4, Length: 1}}
		return control.ReloadReply{}, &control.Problem{
			Status: 422, Code: "config_invalid", Message: "mistakes in the configuration: 1; the old configuration is kept", Next: "Correct them.",
			Fields: []control.Field{{Name: "diagnostics", Value: config.Diagnostics{d}}},
		}
	case 6:
		return control.ReloadReply{}, &control.Problem{Status: 409, Code: "restart_needed", Message: "a reload can't change this", Next: "Restart."}
	case 7:
		return control.ReloadReply{}, &control.Problem{Status: 502, Code: "reload_failed", Message: "it does not start", Next: "Look."}
	default:
		return control.ReloadReply{}, sdk.Errorf(sdk.CodeUnavailable, "stopping", "the daemon is stopping")
	}
}

func (h *fakeHost) Plugins(context.Context) ([]control.PluginStatus, error) {
	state := control.PluginReady
	h.mu.Lock()
	if h.starting {
		state = control.PluginStarting
	}
	h.mu.Unlock()
	return []control.PluginStatus{
		{
			Kind: sdk.KindOutbox, Name: "sqlite", State: state, Version: "1.0.0", PID: 42,
			Description: &sdk.Description{Name: "sqlite", Doc: "keeps messages", Protocol: 1, Schema: sdk.Schema{
				Attributes: []sdk.Attribute{{Name: "path", Type: sdk.Type{Name: sdk.TypePath}, Default: jsontext.Value(`"outbox.db"`), Doc: "where"}},
			}},
		},
		{Kind: sdk.KindPeerFilter, Name: "role", State: control.PluginQuarantined, Restarts: 5, LastError: "exit status 1"},
		{Kind: sdk.KindPushHandler, Name: "two", State: control.PluginReady},
		{Kind: sdk.KindFeature, Name: "two", State: control.PluginReady},
	}, nil
}

func (h *fakeHost) Status(ctx context.Context) (control.Status, error) {
	plugins, err := h.Plugins(ctx)
	return control.Status{
		Version: "1.2.3", PID: 7, UptimeMS: 61000, Plugins: plugins,
		Meshes:   []control.MeshStatus{{Name: "team", State: control.MeshReconnecting, Detail: "connection refused"}},
		Outboxes: []control.OutboxStatus{{Name: "sqlite", Durable: true, States: map[sdk.EntryState]int64{sdk.StatePending: 3}}},
		Warnings: []string{"mind the gap"},
	}, err
}

// Params and results of the fake features; their declarations come from
// sdk.NewMethod, as those of real plugins do.
type (
	listParams struct {
		Unread bool     `json:"unread,omitzero" doc:"only unread ones."`
		Limit  int      `json:"limit,omitzero" doc:"at most so many"`
		From   []string `json:"from_peer,omitempty" doc:"only of these senders"`
		After  string   `json:"after,omitempty" doc:"only later ones"`
	}
	message struct {
		ID   string `json:"id"`
		From string `json:"from"`
		Body string `json:"body"`
	}
	listResult struct {
		Messages []message `json:"messages"`
		Warnings []string  `json:"warnings,omitempty"`
	}
	seenParams struct {
		IDs []string `json:"ids"`
	}
	setParams struct {
		Key   string         `json:"key"`
		Value jsontext.Value `json:"value"`
	}
	getParams struct {
		Key string `json:"key"`
	}
	setResult struct {
		Key   string         `json:"key"`
		Value jsontext.Value `json:"value"`
	}
	none struct{}
)

func (h *fakeHost) feature(name string) *sdk.Feature {
	switch name {
	case "inbox":
		return &sdk.Feature{Default: "list", Methods: []sdk.Method{
			sdk.NewMethod("list", "List messages.", sdk.CLI{
				Rows: "messages", Columns: []string{"id", "from", "body"}, Schema: "inbox/v1",
				Follow: &sdk.Follow{Event: "new", Cursor: "after", Key: "id"},
			}, h.inbox),
			sdk.NewMethod("seen", "Mark messages seen.", sdk.CLI{Args: []string{"ids"}}, func(_ context.Context, _ sdk.Call, p seenParams) (none, error) {
				return none{}, nil
			}),
		}}
	case "state":
		return &sdk.Feature{Methods: []sdk.Method{
			sdk.NewMethod("get", "Read a key.", sdk.CLI{Args: []string{"key"}, Print: "value"}, func(_ context.Context, _ sdk.Call, p getParams) (setResult, error) {
				if p.Key == "none" {
					return setResult{}, sdk.Errorf(sdk.CodeNotFound, "state_not_found", "no key %q", p.Key)
				}
				return setResult{p.Key, jsontext.Value(`"text\tof ` + p.Key + `"`)}, nil
			}),
			sdk.NewMethod("set", "Write a key.", sdk.CLI{Args: []string{"key", "value"}}, func(_ context.Context, _ sdk.Call, p setParams) (setResult, error) {
				return setResult(p), nil
			}),
			sdk.NewMethod("watch", "Watch.", sdk.CLI{Stream: "change"}, func(context.Context, sdk.Call, none) (none, error) { return none{}, nil }),
		}}
	}
	return nil
}

func (h *fakeHost) inbox(_ context.Context, _ sdk.Call, p listParams) (listResult, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	res := listResult{Messages: []message{}, Warnings: []string{"the store is nearly full"}}
	for i := h.messages; i >= 1; i-- { // newest first
		if id := fmt.Sprintf("m%d", i); id > p.After {
			res.Messages = append(res.Messages, message{id, "bob", fmt.Sprintf("text %d\nline", i)})
		}
	}
	if p.After != "" {
		slices.Reverse(res.Messages) // and oldest first behind a cursor
	}
	return res, nil
}

func (h *fakeHost) Features(context.Context) ([]control.Feature, error) {
	var out []control.Feature
	for _, name := range []string{"inbox", "state"} {
		f := h.feature(name)
		out = append(out, control.Feature{
			Name: name, Plugin: "p." + name, State: control.PluginReady, Doc: "The feature " + name,
			DefaultMethod: f.Default, Methods: f.Methods,
		})
	}
	return out, nil
}

func (h *fakeHost) Call(ctx context.Context, feature string, c sdk.Call) (jsontext.Value, error) {
	h.note("call %s.%s mesh=%s params=%s", feature, c.Method, c.Mesh, c.Params)
	f := h.feature(feature)
	if f == nil {
		return nil, sdk.Errorf(sdk.CodeNotFound, "no_feature", "no feature %q", feature)
	}
	return f.Call(ctx, c)
}
