package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/sdk"
)

// tellAgain is when a ready presence that could not be told is told again.
const tellAgain = 5 * time.Second

// turn is a mutex that a context can stop waiting for.
type turn chan struct{}

func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) unlock() { <-t }

// followStates reacts to changes of the member connection until ctx ends.
func (m *mesh) followStates(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-m.changed:
		case <-again:
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		st := m.last
		m.mu.Unlock()
		again = nil
		if !m.follow(ctx, st) {
			again = time.After(tellAgain)
		}
	}
}

// follow publishes a new state and tells a fresh presence what is wanted of it;
// false if that must be tried again.
func (m *mesh) follow(ctx context.Context, st broker.State) bool {
	me := m.broker.Member().Public().String()
	fresh := st.Phase != m.followed.Phase || st.Generation != m.followed.Generation || !st.Since.Equal(m.followed.Since)
	m.followed = st
	if fresh {
		m.h.bus.Publish(event.KindBrokerStatus, m.cfg.Name, map[string]string{"status": meshState(st), "reason": st.Reason})
		if st.Phase == link.Ready {
			m.wantList() // so that senders have names before anybody asks for them
			m.h.features.Connected(m.connected(st))
		}
	}
	if st.Phase != link.Ready {
		return true
	}
	if err := m.tellPresence(ctx, me, st.PresenceID()); err != nil {
		if ctx.Err() == nil {
			m.logger.Warn("the desired presence was not applied; it is tried again", "error", err)
		}
		return !m.broker.Member().Ready() // else the next connection does it
	}
	return true
}

// connected is what features hear of a ready state.
func (m *mesh) connected(st broker.State) sdk.Connected {
	return sdk.Connected{Mesh: m.cfg.Name, Identity: m.broker.Member().Public().String(), PresenceID: st.PresenceID(), At: st.Since}
}

// tellPresence tells a presence that does not know it yet all that is wanted.
// What the broker refuses is skipped: the rest may do.
func (m *mesh) tellPresence(ctx context.Context, me, presence string) error {
	if err := m.telling.lock(ctx); err != nil {
		return err
	}
	defer m.telling.unlock()
	if m.told == presence {
		return nil
	}
	frames, err := m.h.presences.frames(m.cfg.Name, me)
	if err != nil {
		return err
	}
	c := m.broker.Member()
	c.SetNudgeStatus(m.h.presences.status(m.cfg.Name, me))
	for _, f := range frames {
		typ, body := splitFrame(f)
		if hasReply(typ) {
			_, err = c.Request(ctx, typ, body)
		} else {
			err = c.Notify(ctx, typ, body)
		}
		var refused *broker.RemoteError
		if errors.As(err, &refused) {
			m.logger.Warn("the broker refused a part of the desired presence", "frame", typ, "error", err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", typ, err)
		}
	}
	m.told = presence
	return nil
}

// tellLater notes a wish that could not be told now: the next ready state tells
// all, even one that finds its old presence again. Called with telling held.
func (m *mesh) tellLater() {
	m.told = ""
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// hasReply reports whether the broker answers a presence frame (PROTOCOL 7.1).
func hasReply(frameType string) bool {
	return frameType == "set_visible" || frameType == "set_profile"
}
