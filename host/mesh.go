package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/inbound"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/outbound"
	"github.com/meshhost/meshhost/host/roster"
	"github.com/meshhost/meshhost/sdk"
)

// daemonChannel is the channel that the mesh's clients know a daemon's member
// connection by where the broker names no class (PROTOCOL 8).
const daemonChannel = "claudemesh-daemon"

// mesh is one mesh with its broker connections, as the rooms see it.
type mesh struct {
	h      *Host
	cfg    *config.Mesh
	broker *broker.Mesh
	logger hclog.Logger
	// journalKey seals what the journal keeps in plain.
	journalKey *identity.AtRest
	// changed tells run, which may block, of a new state in last.
	changed chan struct{}
	// listWanted asks run for a peer list; listing runs one at a time.
	listWanted chan struct{}

	// telling is held while the broker is told of a presence, by whoever does;
	// told is the presence that knows all that is wanted of it, as far as answers
	// tell, and toldOn the socket that it was told on, 0 if there is more to tell;
	// guarded by it.
	telling turn
	told    string
	toldOn  uint64

	mu   sync.Mutex
	last broker.State // guarded by mu
	// followed is the state that was published last; followStates' own.
	followed broker.State
}

// newMesh prepares a mesh; run connects it.
func (h *Host) newMesh(ctx context.Context, cfg *config.Mesh) (*mesh, error) {
	id, err := h.store.MeshIdentity(ctx, cfg.Name)
	if err != nil {
		return nil, err
	}
	m := &mesh{h: h, cfg: cfg, logger: h.logger.Named("mesh." + cfg.Name), changed: make(chan struct{}, 1), listWanted: make(chan struct{}, 1), journalKey: cfg.Key.AtRest("journal"), telling: make(turn, 1)}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "" // optional in a hello (PROTOCOL 2.1)
	}
	m.broker, err = broker.New(broker.Options{
		MeshID: cfg.MeshID, Slug: cfg.Name, MemberID: cfg.MemberID, Key: cfg.Key, URL: cfg.BrokerURL,
		Presence: broker.Presence{
			SessionID: id.SessionID, PID: id.PID, Cwd: h.now().cfg.DataDir, DisplayName: cfg.DisplayName,
			Hostname: hostname, PeerType: "ai", Channel: daemonChannel,
		},
		Dial:   h.opts.dial,
		Logger: m.logger,
		Handlers: broker.Handlers{
			OnPush:    m.onPush,
			OnFrame:   m.onFrame,
			OnState:   m.onState,
			OnLateAck: func(_ *broker.Conn, id, messageID string) { h.outbound.LateAck(cfg.Name, id, messageID) },
			OnDropped: func(_ *broker.Conn, kind string, n int) {
				h.metrics.dropped.WithLabelValues(cfg.Name, kind).Add(float64(n))
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mesh %q: %w", cfg.Name, err)
	}
	return m, nil
}

// run keeps the connections until ctx ends.
func (m *mesh) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { m.followStates(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-m.listWanted:
				m.list(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	if err := m.broker.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		m.logger.Error("the mesh's connections ended", "error", err)
	}
	wg.Wait()
}

// wantList asks for a peer list soon; askers meanwhile share it.
func (m *mesh) wantList() {
	select {
	case m.listWanted <- struct{}{}:
	default:
	}
}

// list refreshes the roster, and with it what waits for peers.
func (m *mesh) list(ctx context.Context) {
	if _, err := m.h.roster.Refresh(ctx, m.cfg.Name); err != nil && ctx.Err() == nil {
		m.logger.Debug("the peers could not be listed; the next event or minute asks again", "error", err)
	}
}

func (m *mesh) onPush(c *broker.Conn, pushes []*broker.Push) {
	batch := make([]inbound.Delivery, len(pushes))
	for i, p := range pushes {
		batch[i] = inbound.Delivery{
			Mesh: m.cfg.Name, Identity: c.Public(), MessageID: p.MessageID, ClientMessageID: p.ClientMessageID,
			Sender: p.SenderPubkey, SenderMember: p.SenderMemberPubkey, SenderName: p.SenderName, Priority: p.Priority,
			Nonce: p.Nonce, Ciphertext: p.Ciphertext, ReplyToID: p.ReplyToID, CreatedAt: parseTime(p.CreatedAt),
			Subtype: p.Subtype, Event: p.Event, EventData: p.EventData,
		}
	}
	m.h.inbound.Accept(batch)
}

// parseTime reads a time of the broker's; zero if it isn't one.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (m *mesh) onFrame(c *broker.Conn, f broker.Frame) {
	m.h.features.Frame(sdk.Frame{Mesh: m.cfg.Name, Identity: c.Public().String(), Type: f.Type, Frame: f.Raw})
}

// onState notes a change of the member connection; what takes time is run's.
func (m *mesh) onState(c *broker.Conn, st broker.State) {
	if c.IsSession() {
		return
	}
	m.mu.Lock()
	m.last = st
	m.mu.Unlock()
	m.h.outbound.Online(m.cfg.Name, st.Phase == link.Ready, true)
	select {
	case m.changed <- struct{}{}:
	default: // run looks at the latest state anyway
	}
}

// splitFrame returns a frame's type and the rest of it.
func splitFrame(frame jsontext.Value) (string, jsontext.Value) {
	var members map[string]jsontext.Value
	if json.Unmarshal(frame, &members) != nil {
		return "", nil
	}
	var typ string
	if json.Unmarshal(members["type"], &typ) != nil {
		return "", nil
	}
	delete(members, "type")
	delete(members, "_reqId")
	body, err := json.Marshal(members)
	if err != nil {
		return "", nil
	}
	return typ, body
}

// meshState is the API's word for a connection's state (PROTOCOL 10.3), and
// ours for a terminal rejection.
func meshState(st broker.State) string {
	switch st.Phase {
	case link.Ready:
		return control.MeshOpen
	case link.Suspended:
		if !refusedForGood(st) {
			return control.MeshReconnecting // a twin: the broker took us, and may again
		}
		return control.MeshRejected
	case link.Stopped:
		return control.MeshClosed
	case link.Backoff:
		return control.MeshReconnecting
	default:
		if st.Attempts > 1 {
			return control.MeshReconnecting
		}
		return control.MeshConnecting
	}
}

func (m *mesh) status() control.MeshStatus {
	st := m.broker.Member().State()
	out := control.MeshStatus{
		Name: m.cfg.Name, MeshID: m.cfg.MeshID, MemberID: m.cfg.MemberID, PubKey: m.cfg.Key.Public().String(),
		BrokerURL: m.cfg.BrokerURL, State: meshState(st), Since: st.Since, Outbox: m.h.outbound.OutboxOf(m.cfg.Name),
	}
	if st.Phase != link.Ready {
		out.Detail = st.LastError
	}
	return out
}

// Send is outbound.Link.
func (m *mesh) Send(msg outbound.Message, done func(outbound.Outcome)) {
	m.broker.Member().SendAsync(&broker.Send{
		ID: msg.ID, ClientMessageID: msg.ClientMessageID, RequestFingerprint: msg.Fingerprint,
		TargetSpec: msg.Target, Priority: msg.Priority, Nonce: msg.Nonce, Ciphertext: msg.Ciphertext,
	}, func(r broker.SendResult) { done(outcome(r)) })
}

func outcome(r broker.SendResult) outbound.Outcome {
	out := outbound.Outcome{MessageID: r.MessageID, Detail: r.Text, PerMinute: float64(r.Rate.PerMinute), Poisoned: r.Poisoned}
	if out.Detail == "" && r.Err != nil {
		out.Detail = r.Err.Error()
	}
	switch r.Outcome {
	case broker.Accepted:
		out.Verdict = outbound.Accepted
	case broker.RateLimited:
		out.Verdict = outbound.RateLimited
	case broker.NoPeer:
		out.Verdict = outbound.NoPeer
	case broker.Permanent:
		out.Verdict = outbound.Refused
	case broker.Transient:
		out.Verdict = outbound.Transient
	case broker.NotSent:
		out.Verdict = outbound.NotSent
	default:
		out.Verdict = outbound.Unknown
	}
	return out
}

// Ready is outbound.Link.
func (m *mesh) Ready() bool { return m.broker.Member().Ready() }

// Delivered is outbound.Link.
func (m *mesh) Delivered(ctx context.Context, messageID string) (bool, time.Time, error) {
	st, err := m.broker.Member().MessageStatus(ctx, messageID)
	var remote *broker.RemoteError
	switch {
	case errors.As(err, &remote) && remote.Code == "not_found":
		return false, time.Time{}, outbound.ErrUnknownMessage
	case err != nil:
		return false, time.Time{}, err
	}
	var at time.Time
	if st.DeliveredAt != nil {
		at = parseTime(*st.DeliveredAt)
	}
	return st.Delivered, at, nil
}

// listPeers asks the broker and turns its rows into the sdk's.
func (m *mesh) listPeers(ctx context.Context) ([]sdk.Peer, error) {
	rows, err := m.broker.Member().ListPeers(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]sdk.Peer, 0, len(rows))
	for i := range rows {
		out = append(out, peerOf(m.cfg.Name, &rows[i]))
	}
	return out, nil
}

func peerOf(mesh string, r *broker.Peer) sdk.Peer {
	p := sdk.Peer{
		Mesh: mesh, PubKey: r.Pubkey, MemberPubKey: r.MemberPubkey, DisplayName: r.DisplayName, Status: r.Status,
		SessionID: r.SessionID, ConnectedAt: parseTime(r.ConnectedAt), Cwd: r.Cwd,
		Role:     roster.NormaliseRole(r.PeerRole, r.Role, r.Channel),
		Hostname: r.Hostname, PeerType: r.PeerType, Channel: r.Channel, Model: r.Model, Visible: r.Visible,
	}
	if r.Summary != nil {
		p.Summary = *r.Summary
	}
	for _, g := range r.Groups {
		p.Groups = append(p.Groups, sdk.Group{Name: g.Name, Role: g.Role})
	}
	p.Wire = wireRow(r)
	return p
}

// Candidates is inbound.Keys: the receiving session's key, then the member's.
func (h *Host) Candidates(name string, receiving identity.PublicKey) []inbound.Candidate {
	m := h.meshes[name]
	if m == nil {
		return nil
	}
	member := inbound.Candidate{Key: m.cfg.Key, Kind: inbound.RecipientMember}
	if receiving == m.cfg.Key.Public() {
		return []inbound.Candidate{member}
	}
	if c := m.broker.Conn(receiving); c != nil {
		return []inbound.Candidate{{Key: c.Key(), Kind: inbound.RecipientSession}, member}
	}
	return []inbound.Candidate{member}
}

// AtRest is inbound.Keys.
func (h *Host) AtRest(name string) *identity.AtRest {
	if m := h.meshes[name]; m != nil {
		return m.journalKey
	}
	return nil
}

// ClientAck is inbound.Acker.
func (h *Host) ClientAck(name string, receiving identity.PublicKey, clientMessageID, brokerMessageID string) {
	if m := h.meshes[name]; m != nil {
		if c := m.broker.Conn(receiving); c != nil {
			c.ClientAck(clientMessageID, brokerMessageID)
		}
	}
}
