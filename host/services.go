package host

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// services is what plugins ask of the daemon (plugin.Services); grants and
// limits were checked before a call gets here.
type services struct{ h *Host }

// deferred answers a presence request while the mesh is not connected: it is
// kept and applied at the next hello_ack.
var deferred = jsontext.Value(`{"type":"ack","queued":false,"deferred":true}`)

// Request is plugin.Services.
func (s services) Request(ctx context.Context, _ plugin.Caller, req sdk.FrameRequest) (jsontext.Value, error) {
	c, mesh, err := s.h.conn(req)
	if err != nil {
		return nil, err
	}
	typ, body := splitFrame(req.Frame)
	kept, err := s.h.presences.record(ctx, mesh.cfg.Name, c.Public().String(), req.Frame)
	if err != nil {
		return nil, err
	}
	if kept && !c.Ready() {
		return deferred, nil
	}
	reply, err := c.Request(ctx, typ, body)
	if err != nil {
		return nil, frameError(mesh.cfg.Name, err)
	}
	return reply, nil
}

// Notify is plugin.Services.
func (s services) Notify(ctx context.Context, _ plugin.Caller, req sdk.FrameRequest) error {
	c, mesh, err := s.h.conn(req)
	if err != nil {
		return err
	}
	typ, body := splitFrame(req.Frame)
	me := c.Public().String()
	kept, err := s.h.presences.record(ctx, mesh.cfg.Name, me, req.Frame)
	if err != nil {
		return err
	}
	if kept {
		c.SetNudgeStatus(s.h.presences.status(mesh.cfg.Name, me))
		if !c.Ready() {
			return nil
		}
	}
	if err := c.Notify(ctx, typ, body); err != nil {
		return frameError(mesh.cfg.Name, err)
	}
	return nil
}

// conn finds the connection that a frame goes out on.
func (h *Host) conn(req sdk.FrameRequest) (*broker.Conn, *mesh, error) {
	name := req.Mesh
	if name == "" {
		if len(h.cfg.Meshes) > 1 {
			return nil, nil, sdk.Errorf(sdk.CodeInvalid, "mesh_required", "several meshes are attached").WithNext("Name one: -mesh " + h.cfg.Meshes[0].Name + ".")
		}
		name = h.cfg.Meshes[0].Name
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
func frameError(mesh string, err error) error {
	var remote *broker.RemoteError
	switch {
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
	rep, err := s.h.outbound.Accept(ctx, outbound.Request{
		Mesh: req.Mesh, To: req.To, Message: req.Message, Priority: req.Priority, ClientMessageID: req.ClientMessageID,
	})
	var conflict *outbound.Conflict
	if errors.As(err, &conflict) {
		return sdk.SendReply{}, sdk.Errorf(sdk.CodeConflict, conflict.Kind, "%v", conflict)
	}
	if err != nil {
		return sdk.SendReply{}, err
	}
	return sdk.SendReply{ID: rep.ID, ClientMessageID: rep.ClientMessageID, Durable: rep.Durable}, nil
}

// Peers is plugin.Services.
func (s services) Peers(ctx context.Context, _ plugin.Caller, req sdk.PeersRequest) (sdk.PeerView, error) {
	return rooms{s.h}.Peers(ctx, req.Mesh, req.All)
}

// Emit is plugin.Services.
func (s services) Emit(_ context.Context, caller plugin.Caller, kind string, data jsontext.Value) error {
	s.h.bus.Publish(caller.Name+"."+kind, "", data)
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
