package host

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/host/roster"
	"github.com/meshhost/meshhost/sdk"
)

// services is what plugins ask of the daemon (plugin.Services); grants and
// limits were checked before a call gets here.
type services struct{ h *Host }

// deferred answers a presence request while the mesh is not connected: it is
// kept and applied at the next hello_ack.
var deferred = jsontext.Value(`{"type":"ack","queued":false,"deferred":true}`)

// await returns when the rooms stand.
func (s services) await(ctx context.Context) error {
	select {
	case <-s.h.wired:
		return nil
	case <-ctx.Done():
		return sdk.Errorf(sdk.CodeUnavailable, "starting", "the daemon is starting").WithNext("Try again in a moment.")
	}
}

// Request is plugin.Services.
func (s services) Request(ctx context.Context, _ plugin.Caller, req sdk.FrameRequest) (jsontext.Value, error) {
	if err := s.await(ctx); err != nil {
		return nil, err
	}
	c, mesh, err := s.h.conn(req)
	if err != nil {
		return nil, err
	}
	typ, body := splitFrame(req.Frame)
	kept, done, err := s.keep(ctx, c, mesh, typ, req.Frame)
	if err != nil {
		return nil, err
	}
	defer done()
	reply, err := c.Request(ctx, typ, body)
	switch {
	case err == nil:
		return reply, nil
	case kept && notSent(err):
		mesh.tellLater()
		return deferred, nil
	default:
		if kept && errors.Is(err, broker.ErrTimeout) {
			mesh.toldOn = 0 // it may have died with its socket: the next one tells it
		}
		return nil, mesh.frameError(err)
	}
}

// keep records a presence frame; until done is called, no fresh presence is
// told what it holds, or an older wish could overtake this one.
func (s services) keep(ctx context.Context, c *broker.Conn, mesh *mesh, typ string, frame jsontext.Value) (kept bool, done func(), err error) {
	if !isPresence(typ) {
		return false, func() {}, nil
	}
	if err := mesh.telling.lock(ctx); err != nil {
		return false, nil, err
	}
	me := c.Public().String()
	if kept, err = s.h.presences.record(ctx, mesh.cfg.Name, me, frame); err != nil {
		mesh.telling.unlock()
		return false, nil, err
	}
	c.SetNudgeStatus(s.h.presences.status(mesh.cfg.Name, me))
	return kept, mesh.telling.unlock, nil
}

// notSent says that the connection was not there, so the next one tells what is
// kept.
func notSent(err error) bool {
	return errors.Is(err, broker.ErrNotConnected) || errors.Is(err, broker.ErrConnectionLost)
}

// Notify is plugin.Services.
func (s services) Notify(ctx context.Context, _ plugin.Caller, req sdk.FrameRequest) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	c, mesh, err := s.h.conn(req)
	if err != nil {
		return err
	}
	typ, body := splitFrame(req.Frame)
	kept, done, err := s.keep(ctx, c, mesh, typ, req.Frame)
	if err != nil {
		return err
	}
	defer done()
	err = c.Notify(ctx, typ, body)
	switch {
	case err == nil:
		return nil
	case kept && notSent(err):
		mesh.tellLater()
		return nil
	default:
		return mesh.frameError(err)
	}
}

// conn finds the connection that a frame goes out on.
func (h *Host) conn(req sdk.FrameRequest) (*broker.Conn, *mesh, error) {
	name := req.Mesh
	if name == "" {
		if len(h.now().cfg.Meshes) > 1 {
			return nil, nil, sdk.Errorf(sdk.CodeInvalid, "mesh_required", "several meshes are attached").WithNext("Name one: -mesh " + h.now().cfg.Meshes[0].Name + ".")
		}
		name = h.now().cfg.Meshes[0].Name
	}
	m := h.meshes[name]
	if m == nil {
		return nil, nil, h.noMesh(name)
	}
	if req.Identity == "" {
		return m.broker.Member(), m, nil
	}
	key, err := identity.ParsePublicKey(req.Identity)
	if err != nil {
		return nil, nil, sdk.Errorf(sdk.CodeInvalid, "bad_identity", "identity: %v", err)
	}
	if c := m.broker.Conn(key); c != nil {
		return c, m, nil
	}
	return nil, nil, sdk.Errorf(sdk.CodeNotFound, "no_identity", "no session %s on mesh %q", req.Identity, name)
}

func (h *Host) noMesh(name string) error {
	return sdk.Errorf(sdk.CodeNotFound, "mesh_not_attached", "no mesh %q is attached", name).
		WithNext("meshhost status lists the meshes.")
}

// frameError turns what the broker room says into what a plugin understands.
func (m *mesh) frameError(err error) error {
	return frameError(m.cfg.Name, m.broker.Member().State(), err)
}

// refusedForGood reports whether the broker rejected the member, and nobody
// tries again.
func refusedForGood(st broker.State) bool {
	return st.Phase == link.Suspended && st.RetryAt.IsZero()
}

func frameError(mesh string, st broker.State, err error) error {
	var remote *broker.RemoteError
	switch {
	case errors.Is(err, broker.ErrNotConnected) && refusedForGood(st):
		return sdk.Errorf(sdk.CodePermission, "identity_rejected", "mesh %q: the broker rejected this member (%s): %s", mesh, st.Reason, st.LastError).
			WithNext("Trying again won't help: check mesh_id, member_id and the key, or ask an administrator of the mesh; then run meshhost reload, or start again after a change of the mesh block.")
	case errors.As(err, &remote):
		code := sdk.CodeInvalid
		switch remote.Code {
		case "not_found", "topic_not_found":
			code = sdk.CodeNotFound
		case "forbidden":
			code = sdk.CodePermission
		}
		return sdk.Errorf(code, remote.Code, "the broker refused: %s", remote.Message)
	case errors.Is(err, broker.ErrNotConnected), errors.Is(err, broker.ErrBusy):
		return sdk.Errorf(sdk.CodeUnavailable, "mesh_not_connected", "mesh %q: %v", mesh, err).
			WithNext("meshhost status shows why; it reconnects by itself.")
	case errors.Is(err, broker.ErrTimeout), errors.Is(err, broker.ErrConnectionLost), errors.Is(err, context.DeadlineExceeded):
		return sdk.Errorf(sdk.CodeTimeout, "no_answer", "mesh %q: the broker did not answer: %v", mesh, err).
			WithNext("Try again; what was asked may have happened.")
	default:
		return sdk.Errorf(sdk.CodeInvalid, "bad_frame", "mesh %q: %v", mesh, err)
	}
}

// Send is plugin.Services.
func (s services) Send(ctx context.Context, _ plugin.Caller, req sdk.SendRequest) (sdk.SendReply, error) {
	if err := s.await(ctx); err != nil {
		return sdk.SendReply{}, err
	}
	rep, err := s.h.outbound.Accept(ctx, outbound.Request{
		Mesh: req.Mesh, To: req.To, Message: req.Message, Priority: req.Priority, ClientMessageID: req.ClientMessageID,
	})
	var conflict *outbound.Conflict
	if errors.As(err, &conflict) {
		return sdk.SendReply{}, sdk.Errorf(sdk.CodeConflict, conflict.Kind, "%v", conflict)
	}
	var several *roster.AmbiguousError
	if errors.As(err, &several) {
		return sdk.SendReply{}, sdk.Errorf(sdk.CodeConflict, "ambiguous_target", "%v", several).WithNext("Send to the key of one of them.")
	}
	if err != nil {
		return sdk.SendReply{}, err
	}
	return sdk.SendReply{ID: rep.ID, ClientMessageID: rep.ClientMessageID, Durable: rep.Durable}, nil
}

// Peers is plugin.Services.
func (s services) Peers(ctx context.Context, _ plugin.Caller, req sdk.PeersRequest) (sdk.PeerView, error) {
	if err := s.await(ctx); err != nil {
		return sdk.PeerView{}, err
	}
	return rooms(s).Peers(ctx, req.Mesh, req.All)
}

// Emit is plugin.Services. An event whose data names a mesh belongs to it.
func (s services) Emit(_ context.Context, caller plugin.Caller, kind string, data jsontext.Value) error {
	var of struct {
		Mesh string `json:"mesh"`
	}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &of); err != nil {
			return sdk.Errorf(sdk.CodeInvalid, "bad_event", "the data of event %q is not a JSON object with a text as mesh: %v", kind, err)
		}
	}
	s.h.bus.Publish(caller.Name+"."+kind, of.Mesh, data)
	return nil
}

// StoreGet is plugin.Services.
func (s services) StoreGet(ctx context.Context, caller plugin.Caller, key string) ([]byte, error) {
	return s.h.store.KVGet(ctx, caller.Space(), key)
}

// StorePut is plugin.Services.
func (s services) StorePut(ctx context.Context, caller plugin.Caller, key string, value []byte) error {
	return s.h.store.KVPut(ctx, caller.Space(), key, value)
}

// StoreDelete is plugin.Services.
func (s services) StoreDelete(ctx context.Context, caller plugin.Caller, key string) error {
	return s.h.store.KVDelete(ctx, caller.Space(), key)
}

// StoreList is plugin.Services.
func (s services) StoreList(ctx context.Context, caller plugin.Caller, prefix string) ([]string, error) {
	return s.h.store.KVList(ctx, caller.Space(), prefix)
}
