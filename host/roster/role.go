package roster

import "github.com/meshhost/meshhost/sdk"

// daemonChannel is what control-plane connections called their channel before brokers told the class (PROTOCOL 8).
const daemonChannel = "claudemesh-daemon"

// NormaliseRole returns the class of a peer's connection, one of the sdk.Role constants, from what the broker sent (PROTOCOL
// 8): peerRole if it is a class, else role if it is one (free text is none), else, where the broker sent neither, the
// channel; else a session. The channel alone proves nothing: a member-keyed row can carry one of its sessions'.
func NormaliseRole(peerRole, role, channel string) string {
	if isClass(peerRole) {
		return peerRole
	}
	if isClass(role) {
		return role
	}
	if peerRole == "" && channel == daemonChannel {
		return sdk.RoleControlPlane
	}
	return sdk.RoleSession
}

func isClass(s string) bool {
	return s == sdk.RoleControlPlane || s == sdk.RoleSession || s == sdk.RoleService
}
