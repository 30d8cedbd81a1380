package host

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/host/roster"
	"github.com/meshhost/meshhost/sdk"
)

// rooms shows the host to the local API.
type rooms struct{ h *Host }

// Send is control.Outbound.
func (r rooms) Send(ctx context.Context, req control.SendRequest) (control.SendReply, error) {
	return r.sent(r.h.outbound.Accept(ctx, requestOf(&req)))
}

// SendMany is control.Outbound.
func (r rooms) SendMany(ctx context.Context, reqs []control.SendRequest) func() []control.SendOutcome {
	asked := make([]outbound.Request, len(reqs))
	for i := range reqs {
		asked[i] = requestOf(&reqs[i])
	}
	accepting := r.h.outbound.AcceptMany(ctx, asked)
	return func() []control.SendOutcome {
		results := accepting.Wait()
		out := make([]control.SendOutcome, len(results))
		for i := range results {
			out[i].Reply, out[i].Err = r.sent(results[i].Reply, results[i].Err)
		}
		return out
	}
}

func requestOf(req *control.SendRequest) outbound.Request {
	return outbound.Request{
		Mesh: req.Mesh, To: req.To, Message: req.Message, Priority: req.Priority,
		Meta: req.Meta, ReplyToID: req.ReplyToID, ClientMessageID: req.ClientMessageID,
	}
}

// sent is what the API says of a message that the outbox has, or of the error.
func (r rooms) sent(rep outbound.Reply, err error) (control.SendReply, error) {
	if err != nil {
		return control.SendReply{}, r.sendError(rep, err)
	}
	return control.SendReply{
		ID: rep.ID, ClientMessageID: rep.ClientMessageID, Status: rep.Status, Duplicate: rep.Duplicate,
		BrokerMessageID: rep.BrokerMessageID, Durable: rep.Durable,
		Resolved: control.Resolved{Target: rep.Target, Name: rep.Name, From: rep.From},
	}, nil
}

// sendError turns the rooms' errors into the API's.
func (r rooms) sendError(rep outbound.Reply, err error) error {
	var conflict *outbound.Conflict
	var several *roster.AmbiguousError
	var e *sdk.Error
	switch {
	case errors.As(err, &conflict):
		return &control.Conflict{Kind: conflict.Kind, FingerprintPrefix: conflict.FingerprintPrefix, BrokerMessageID: conflict.BrokerMessageID}
	case errors.As(err, &several):
		out := &control.Ambiguous{Target: several.To}
		for _, c := range several.Candidates {
			out.Candidates = append(out.Candidates, control.Candidate{
				Mesh: several.Mesh, PubKey: c.Key, MemberPubKey: c.MemberKey, DisplayName: c.Name, Role: c.Role,
			})
		}
		return out
	case errors.As(err, &e) && e.Reason == "mesh_required":
		return &control.MeshRequired{Attached: r.h.meshNames()}
	case errors.As(err, &e) && (e.Code == sdk.CodeTimeout || plugin.OutcomeUnknown(err)):
		return &control.UnknownOutcome{ClientMessageID: rep.ClientMessageID, Err: err}
	default:
		return err
	}
}

// List is control.Outbox.
func (r rooms) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	return r.h.outbound.List(ctx, req)
}

// Get is control.Outbox.
func (r rooms) Get(ctx context.Context, id string) (*sdk.Entry, bool, error) {
	e, err := r.h.outbound.Get(ctx, id)
	return e, r.h.outbound.InFlight(id), err
}

// Inflight is control.Outbox.
func (r rooms) Inflight() []string { return r.h.outbound.Inflight() }

// Requeue is control.Outbox.
func (r rooms) Requeue(ctx context.Context, id string) (*sdk.Entry, error) {
	return r.h.outbound.Requeue(ctx, id)
}

// Cancel is control.Outbox.
func (r rooms) Cancel(ctx context.Context, id string) error {
	_, err := r.h.outbound.Cancel(ctx, id)
	return err
}

// Wait is control.Outbox. Nobody waits for a mesh that refused this member for
// good.
func (r rooms) Wait(ctx context.Context, id string, state sdk.EntryState) (*sdk.Entry, error) {
	if err := r.refused(ctx, id); err != nil {
		return nil, err
	}
	return r.h.outbound.Wait(ctx, id, state)
}

// refused is the broker's rejection of the member that a live message leaves as.
func (r rooms) refused(ctx context.Context, id string) error {
	suspended := func(m *mesh) bool { return m != nil && refusedForGood(m.broker.Member().State()) }
	if !slices.ContainsFunc(slices.Collect(maps.Values(r.h.meshes)), suspended) {
		return nil
	}
	e, err := r.h.outbound.Get(ctx, id)
	if err != nil || !e.State.Live() || !suspended(r.h.meshes[e.Mesh]) {
		return nil // Wait says what is wrong with the id
	}
	return r.h.meshes[e.Mesh].frameError(broker.ErrNotConnected)
}

// Peers is control.Peers: one mesh, or all of them.
func (r rooms) Peers(ctx context.Context, mesh string, all bool) (sdk.PeerView, error) {
	if mesh != "" {
		return r.h.listPeers(ctx, mesh, all)
	}
	names := r.h.meshNames()
	views, errs := make([]sdk.PeerView, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names { // side by side: a broker that is slow costs its own time, not that of all before it
		wg.Go(func() { views[i], errs[i] = r.h.listPeers(ctx, name, all) })
	}
	wg.Wait()
	var out sdk.PeerView
	for i, err := range errs {
		if err != nil {
			out.Warnings = append(out.Warnings, "mesh "+names[i]+": "+err.Error())
			continue
		}
		out.Peers = append(out.Peers, views[i].Peers...)
		out.Hidden = addHidden(out.Hidden, views[i].Hidden)
		out.Warnings = append(out.Warnings, views[i].Warnings...)
	}
	if !slices.Contains(errs, nil) {
		return sdk.PeerView{}, errs[0]
	}
	return out, nil
}

// addHidden adds counts of one filter and reason up.
func addHidden(sum, more []sdk.HiddenCount) []sdk.HiddenCount {
	for _, c := range more {
		i := slices.IndexFunc(sum, func(s sdk.HiddenCount) bool { return s.Filter == c.Filter && s.Reason == c.Reason })
		if i < 0 {
			sum = append(sum, c)
			continue
		}
		sum[i].Count += c.Count
	}
	return sum
}

// Features is control.Features.
func (r rooms) Features(context.Context) ([]control.Feature, error) {
	var out []control.Feature
	now := r.h.now()
	for _, d := range r.h.features.List() {
		u := now.use(d.Plugin)
		if u == nil {
			continue // an outbox that was removed before it said that it is no feature
		}
		st := u.plugin.Status()
		out = append(out, control.Feature{
			Name: d.Name, Plugin: d.Plugin, State: string(st.State), Version: d.Description.Version,
			Doc: d.Description.Doc, DefaultMethod: d.Description.DefaultMethod, Methods: d.Description.Methods,
		})
	}
	return out, nil
}

// Call is control.Features. A caller that names no mesh means the only one.
func (r rooms) Call(ctx context.Context, feature string, call sdk.Call) (jsontext.Value, error) {
	if call.Mesh == "" && len(r.h.now().cfg.Meshes) == 1 {
		call.Mesh = r.h.now().cfg.Meshes[0].Name
	}
	if call.Mesh != "" && r.h.meshes[call.Mesh] == nil {
		return nil, r.h.noMesh(call.Mesh)
	}
	return r.h.features.Call(ctx, feature, call)
}

// Plugins is control.Plugins.
func (r rooms) Plugins(context.Context) ([]control.PluginStatus, error) {
	uses := r.h.now().uses
	out := make([]control.PluginStatus, 0, len(uses))
	for _, u := range uses {
		st := u.plugin.Status()
		row := control.PluginStatus{
			Kind: st.Kind, Name: st.Name, Kinds: st.Description.Kinds, State: string(st.State),
			Version: st.Description.Version, PID: st.Pid, Since: st.Since, Restarts: max(st.Starts-1, 0),
			LastError: st.LastCrash, Path: u.cfg.Process.Path, SHA256: u.cfg.Process.SHA256,
		}
		if st.Err != nil {
			row.LastError = st.Err.Error()
		}
		if len(st.Description.Kinds) > 0 {
			row.Description = &st.Description
		}
		out = append(out, row)
	}
	return out, nil
}

// Status is control.Overview.
func (r rooms) Status(ctx context.Context) (control.Status, error) {
	st := control.Status{
		Version: Version(), PID: os.Getpid(), StartedAt: r.h.startedAt, UptimeMS: time.Since(r.h.startedAt).Milliseconds(),
		DataDir: r.h.now().cfg.DataDir, Socket: r.h.now().cfg.Control.Socket, Warnings: r.h.warnings(),
	}
	for _, m := range r.h.now().cfg.Meshes {
		st.Meshes = append(st.Meshes, r.h.meshes[m.Name].status())
	}
	st.Plugins, _ = r.Plugins(ctx) // it has no error
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, u := range r.h.now().of(sdk.KindOutbox) {
		row := control.OutboxStatus{Name: u.cfg.Name, Durable: u.plugin.Description().Durable}
		s, err := u.plugin.Outbox().Stats(ctx, sdk.StatsRequest{})
		if err != nil {
			row.Error = err.Error()
		} else {
			row.States, row.Bytes, row.OldestLive = s.States, s.Bytes, s.OldestLive
		}
		st.Outboxes = append(st.Outboxes, row)
	}
	return st, nil
}
