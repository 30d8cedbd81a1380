package broker

import (
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/wire"
)

// memberGreeter says hello as the member (PROTOCOL 2.1).
func memberGreeter(o *Options) greeter {
	return greeter{key: o.Key, hello: func(p Presence, ts int64) ([]byte, error) {
		return wire.Encode(wire.Hello{
			MeshID: o.MeshID, MemberID: o.MemberID, Pubkey: o.Key.Public().String(),
			DisplayName: p.DisplayName, SessionID: p.SessionID, PID: p.PID, Cwd: p.Cwd, Hostname: p.Hostname,
			PeerType: p.PeerType, Channel: p.Channel, Model: p.Model, Groups: p.Groups,
			Timestamp: ts, Signature: o.Key.SignHello(o.MeshID, o.MemberID, ts),
		})
	}}
}

// sessionGreeter says hello as a session, vouched for by the member from now for twelve hours (PROTOCOL 3.1, 3.2).
func sessionGreeter(o *Options, key *identity.Key) greeter {
	return greeter{key: key, session: true, hello: func(p Presence, ts int64) ([]byte, error) {
		parent, session := o.Key.Public(), key.Public()
		expires := ts + attestationTTL.Milliseconds()
		return wire.Encode(wire.SessionHello{
			MeshID: o.MeshID, ParentMemberID: o.MemberID, ParentMemberPubkey: parent.String(), SessionPubkey: session.String(),
			ParentAttestation: wire.Attestation{
				SessionPubkey: session.String(), ParentMemberPubkey: parent.String(),
				ExpiresAt: expires, Signature: o.Key.Attest(session, expires),
			},
			DisplayName: p.DisplayName, SessionID: p.SessionID, PID: p.PID, Cwd: p.Cwd, Hostname: p.Hostname,
			PeerType: p.PeerType, Channel: p.Channel, Model: p.Model, Groups: p.Groups,
			Timestamp: ts, Signature: key.SignSessionHello(o.MeshID, parent, ts),
		})
	}}
}
