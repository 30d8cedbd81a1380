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

// tellAgain is when a ready presence that could not be told is told again; the
// pause doubles to tellAgainMax while that fails.
const (
	tellAgain    = 5 * time.Second
	tellAgainMax = 5 * time.Minute
)

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
	pause := tellAgain
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
		if m.follow(ctx, st) {
			again, pause = nil, tellAgain
			continue
		}
		again = time.After(pause)
		pause = min(2*pause, tellAgainMax)
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
	if err := m.tellPresence(ctx, me, st); err != nil {
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
// What the broker refuses or can't be sent is skipped, and silence to one frame
// keeps nothing from the rest. A presence that is found again on another socket
// is told once more what nobody answers: the frames may have died with the
// socket that they were written to.
func (m *mesh) tellPresence(ctx context.Context, me string, st broker.State) error {
	if err := m.telling.lock(ctx); err != nil {
		return err
	}
	defer m.telling.unlock()
	known := m.toldOn != 0 && m.told == st.PresenceID()
	if known && m.toldOn == st.Generation {
		return nil
	}
	frames, err := m.h.presences.frames(m.cfg.Name, me)
	if err != nil {
		return err
	}
	c := m.broker.Member()
	c.SetNudgeStatus(m.h.presences.status(m.cfg.Name, me))
	var silent error
	for _, f := range frames {
		typ, body := splitFrame(f)
		switch {
		case !hasReply(typ):
			err = c.Notify(ctx, typ, body)
		case known:
			continue
		default:
			_, err = c.Request(ctx, typ, body)
		}
		var refused *broker.RemoteError
		switch {
		case err == nil:
		case errors.As(err, &refused), errors.Is(err, broker.ErrTooLarge), errors.Is(err, broker.ErrMalformed):
			m.logger.Warn("a part of the desired presence was refused", "frame", typ, "error", err)
		case errors.Is(err, broker.ErrTimeout):
			silent = fmt.Errorf("%s: %w", typ, err)
		default:
			return fmt.Errorf("%s: %w", typ, err)
		}
	}
	if silent != nil {
		return silent
	}
	m.told, m.toldOn = st.PresenceID(), st.Generation
	return nil
}

// tellLater notes a wish that could not be told now: the next ready state tells
// all, even one that finds its old presence again. Called with telling held.
func (m *mesh) tellLater() {
	m.toldOn = 0
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// hasReply reports whether the broker answers a presence frame (PROTOCOL 7.1).
func hasReply(frameType string) bool {
	return frameType == "set_visible" || frameType == "set_profile"
}
