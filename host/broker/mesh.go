package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/meshhost/meshhost/host/identity"
)

// ErrSessionExists says that a session with this key is connected or connecting already.
var ErrSessionExists = errors.New("session exists already")

// Mesh is one mesh as one member sees it: the member's connection and those of its sessions.
type Mesh struct {
	opts   Options
	member *Conn

	mu       sync.Mutex
	ctx      context.Context // of Run; nil outside of it
	sessions map[identity.PublicKey]*running
}

// running is a session's connection with the means to end it.
type running struct {
	conn   *Conn
	cancel context.CancelFunc // nil before Run
	done   chan struct{}      // nil before Run; closed at its end
}

// New checks the options. It doesn't connect.
func New(opts Options) (*Mesh, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	m := &Mesh{opts: opts, sessions: make(map[identity.PublicKey]*running)}
	var err error
	if m.member, err = newConn(m, memberGreeter(&m.opts), m.opts.Presence); err != nil {
		return nil, err
	}
	return m, nil
}

// Member returns the member's connection.
func (m *Mesh) Member() *Conn { return m.member }

// Run keeps all connections until ctx ends, closes them in order and waits for everything that it started.
func (m *Mesh) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.ctx = ctx
	for _, s := range m.sessions {
		m.start(s)
	}
	m.mu.Unlock()
	m.member.run(ctx)
	cancel()
	m.mu.Lock()
	m.ctx = nil
	left := make([]*running, 0, len(m.sessions))
	for _, s := range m.sessions {
		left = append(left, s)
	}
	m.mu.Unlock()
	for _, s := range left {
		<-s.done
	}
	return nil
}

// start is called with mu held and Run's context set.
func (m *Mesh) start(s *running) {
	ctx, cancel := context.WithCancel(m.ctx)
	s.cancel, s.done = cancel, make(chan struct{})
	go func() { // Run or RemoveSession waits for it
		defer close(s.done)
		s.conn.run(ctx)
	}()
}

// AddSession connects a local agent session, whose key the member attests anew at each connect for twelve hours.
func (m *Mesh) AddSession(key *identity.Key, p Presence) (*Conn, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w of a session", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[key.Public()] != nil {
		return nil, fmt.Errorf("%w: %s", ErrSessionExists, key.Public())
	}
	conn, err := newConn(m, sessionGreeter(&m.opts, key), p)
	if err != nil {
		return nil, err
	}
	s := &running{conn: conn}
	m.sessions[key.Public()] = s
	if m.ctx != nil {
		m.start(s)
	}
	return conn, nil
}

// RemoveSession closes a session's connection and waits for its end. An unknown key is nothing to remove.
func (m *Mesh) RemoveSession(key identity.PublicKey) {
	m.mu.Lock()
	s := m.sessions[key]
	delete(m.sessions, key)
	m.mu.Unlock()
	if s == nil || s.done == nil {
		return
	}
	s.cancel()
	<-s.done
}

// Conn returns the connection of an identity of this mesh, nil if there is none.
func (m *Mesh) Conn(key identity.PublicKey) *Conn {
	if key == m.member.Public() {
		return m.member
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[key]; s != nil {
		return s.conn
	}
	return nil
}

// OwnKeys returns the public keys that are ours in this mesh, the member's first: what came back from one of them is an echo,
// or a sibling's message (PROTOCOL 5.4, rule 3).
func (m *Mesh) OwnKeys() []identity.PublicKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]identity.PublicKey, 1, 1+len(m.sessions))
	keys[0] = m.member.Public()
	for k := range m.sessions {
		keys = append(keys, k)
	}
	return keys
}

// greeter is what differs between a member's and a session's connection.
type greeter struct {
	key     *identity.Key
	session bool
	hello   func(p Presence, tsMillis int64) ([]byte, error)
}
