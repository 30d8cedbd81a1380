package host

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/meshhost/meshhost/host/identity"
)

// echo is the peer of -dev: a daemon of its own on the same mesh with one
// session, "echo", that answers each direct message with its text.
type echo struct {
	logger hclog.Logger
	key    *identity.Key // the session's
	ctx    context.Context
}

// startEcho connects it until ctx ends; its member connection is the
// control-plane row that the role filter hides.
func startEcho(ctx context.Context, wg *sync.WaitGroup, seed devbroker.SeedMesh, dial func(context.Context) (net.Conn, error), logger hclog.Logger) error {
	member := seed.Members[1]
	memberKey, err := identity.ParseSecret(member.SecretKey)
	if err != nil {
		return err
	}
	session, err := identity.Generate()
	if err != nil {
		return err
	}
	e := &echo{logger: logger, key: session, ctx: ctx}
	m, err := broker.New(broker.Options{
		MeshID: seed.MeshID, Slug: seed.Slug, MemberID: member.MemberID, Key: memberKey, URL: "ws://127.0.0.1:7900/ws",
		Presence: broker.Presence{SessionID: "echo-daemon", PID: 2, Cwd: "/echo", DisplayName: "echo-daemon", PeerType: "ai", Channel: daemonChannel},
		Dial:     dial, Logger: logger, Handlers: broker.Handlers{OnPush: e.onPush},
	})
	if err != nil {
		return err
	}
	if _, err := m.AddSession(session, broker.Presence{
		SessionID: "echo-session", PID: 3, Cwd: "/echo", DisplayName: "echo", PeerType: "ai", Channel: "claudemesh-session",
	}); err != nil {
		return err
	}
	wg.Go(func() {
		if err := m.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			logger.Error("the echo peer ended", "error", err)
		}
	})
	return nil
}

// onPush answers in order; it may block.
func (e *echo) onPush(c *broker.Conn, pushes []*broker.Push) {
	for _, p := range pushes {
		from, err := identity.ParsePublicKey(p.SenderPubkey)
		if err != nil || !c.IsSession() {
			continue // system events and what was meant for the member
		}
		text, err := e.key.Open(from, p.Nonce, p.Ciphertext)
		if err != nil {
			continue // not sealed for echo
		}
		c.ClientAck(p.ClientMessageID, p.MessageID)
		nonce, ciphertext, err := e.key.Seal(from, text)
		if err != nil {
			e.logger.Warn("echo can't seal an answer", "error", err)
			continue
		}
		id := uuid.NewString()
		res := c.Send(e.ctx, &broker.Send{
			ID: id, ClientMessageID: id, TargetSpec: p.SenderPubkey, Priority: p.Priority, Nonce: nonce, Ciphertext: ciphertext,
		})
		if res.Outcome != broker.Accepted {
			e.logger.Warn("echo's answer was not taken", "outcome", res.Outcome.String(), "detail", res.Text)
		}
	}
}
