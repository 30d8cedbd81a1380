package host

import (
	"context"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/roster"
	"github.com/meshhost/meshhost/sdk"
)

// keyOf shortens a signature of another room.
type keyOf = identity.PublicKey

// newRoster makes the roster with the filters in the order written.
func (h *Host) newRoster(ctx context.Context) (*roster.Roster, error) {
	var filters []roster.Filter
	for _, u := range h.now().of(sdk.KindPeerFilter) {
		filters = append(filters, roster.Filter{Name: u.cfg.Name, Filter: u.plugin.PeerFilter(), OnError: roster.OnError(u.cfg.OnError)})
	}
	return roster.New(ctx, roster.Options{
		Lister: lister{h}, Own: own{h}, Directory: h.store, Filters: filters, Logger: h.logger.Named("roster"),
	})
}

// lister is roster.Lister.
type lister struct{ h *Host }

// ListPeers asks the broker and tells the way out who is there.
func (l lister) ListPeers(ctx context.Context, name string) ([]sdk.Peer, error) {
	m := l.h.meshes[name]
	if m == nil {
		return nil, l.h.noMesh(name)
	}
	rows, err := m.listPeers(ctx)
	if err != nil {
		return nil, m.frameError(err)
	}
	keys := make([]string, 0, 2*len(rows))
	for i := range rows {
		keys = append(keys, rows[i].PubKey)
		if rows[i].MemberPubKey != rows[i].PubKey {
			keys = append(keys, rows[i].MemberPubKey)
		}
	}
	l.h.outbound.PeersSeen(name, keys)
	return rows, nil
}

// own is roster.Own.
type own struct{ h *Host }

// MemberKey is roster.Own.
func (o own) MemberKey(name string) string {
	if m := o.h.meshes[name]; m != nil {
		return m.cfg.Key.Public().String()
	}
	return ""
}

// IsOwn is roster.Own.
func (o own) IsOwn(name, key string) bool {
	m := o.h.meshes[name]
	if m == nil {
		return false
	}
	for _, k := range m.broker.OwnKeys() {
		if k.String() == key {
			return true
		}
	}
	return false
}

// listPeers is one mesh's list through the filters.
func (h *Host) listPeers(ctx context.Context, name string, all bool) (sdk.PeerView, error) {
	m := h.meshes[name]
	if m == nil {
		return sdk.PeerView{}, h.noMesh(name)
	}
	return h.roster.List(ctx, sdk.PeerQuery{Mesh: name, Viewer: m.cfg.Key.Public().String(), All: all})
}

// relist asks a mesh for its peers in the background, for what waits for them.
func (h *Host) relist(name string) {
	if m := h.meshes[name]; m != nil {
		m.wantList()
	}
}

// names is inbound.Names: the roster, with an ear for who comes.
type names struct{ h *Host }

// NameOf is inbound.Names.
func (n names) NameOf(mesh, key string) (string, string) { return n.h.roster.NameOf(mesh, key) }

// Announced feeds the directory; somebody who comes may be waited for under
// another key, so the list is asked for too.
func (n names) Announced(mesh, event string, data jsontext.Value) {
	n.h.roster.Announced(mesh, event, data)
	switch event {
	case "peer_joined", "peer_returned", "peer_visible":
		n.h.relist(mesh)
	}
}

// targets is outbound.Names.
type targets struct{ h *Host }

// Resolve is outbound.Names.
func (t targets) Resolve(ctx context.Context, mesh, to string) (outbound.Target, error) {
	target, err := t.h.roster.Resolve(ctx, mesh, to)
	var nobody *roster.NotFoundError
	var ourselves *roster.OwnKeyError
	switch {
	case errors.As(err, &nobody):
		next := "meshhost peer list -all shows who is there; 64 hex digits reach a key that was never seen."
		if len(nobody.Suggestions) > 0 {
			next = "Near to it: " + strings.Join(nobody.Suggestions, ", ") + ". " + next
		}
		return outbound.Target{}, sdk.Errorf(sdk.CodeNotFound, "route_failed", "%v", nobody).WithNext(next)
	case errors.As(err, &ourselves):
		return outbound.Target{}, sdk.Errorf(sdk.CodeInvalid, "own_key", "%v", ourselves).WithNext("meshhost peer list shows the others.")
	case err != nil:
		return outbound.Target{}, err
	}
	kind := outbound.Multicast
	if target.Kind == roster.TargetDirect {
		kind = outbound.Direct
	}
	return outbound.Target{Spec: target.Spec, Kind: kind, From: target.From, Name: target.Name}, nil
}

// wireRow encodes a peer row as the broker sent it.
func wireRow(r *broker.Peer) jsontext.Value {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil // a row that was decoded encodes; without it the named fields are shown
	}
	return raw
}
