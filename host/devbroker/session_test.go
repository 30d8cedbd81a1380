package devbroker

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSessionHelloFailures is the table of PROTOCOL 3.5.
func TestSessionHelloFailures(t *testing.T) {
	attest := func(f obj) obj { return f["parentAttestation"].(obj) }
	const mismatch = "parentAttestation does not bind the claimed session+parent pubkeys"
	cases := []struct {
		name, code, message string
		change              func(w *world, s testKey, f obj)
	}{
		{
			"session key not hex", "bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars",
			func(_ *world, s testKey, f obj) { f["sessionPubkey"] = strings.ToUpper(s.pub) },
		},
		{
			"parent key not hex", "bad_parent_pubkey", "parentMemberPubkey must be 64 lowercase hex chars",
			func(_ *world, _ testKey, f obj) { f["parentMemberPubkey"] = "x" },
		},
		{"no attestation", "attestation_mismatch", mismatch, func(_ *world, _ testKey, f obj) { delete(f, "parentAttestation") }},
		{"attestation of no object", "attestation_mismatch", mismatch, func(_ *world, _ testKey, f obj) { f["parentAttestation"] = 5 }},
		{
			"attests another session", "attestation_mismatch", mismatch,
			func(w *world, _ testKey, f obj) { attest(f)["sessionPubkey"] = w.keys["c"].pub },
		},
		{
			"attested by another parent", "attestation_mismatch", mismatch,
			func(w *world, _ testKey, f obj) { attest(f)["parentMemberPubkey"] = w.keys["c"].pub },
		},
		{
			"attestation signature malformed", "malformed", "attestation rejected: malformed",
			func(_ *world, _ testKey, f obj) { attest(f)["signature"] = "zz" },
		},
		{
			"attestation expired", "expired", "attestation rejected: expired",
			func(_ *world, _ testKey, f obj) { attest(f)["expiresAt"] = time.Now().UnixMilli() },
		},
		{
			"attestation for more than a day", "ttl_too_long", "attestation rejected: ttl_too_long",
			func(_ *world, _ testKey, f obj) {
				attest(f)["expiresAt"] = time.Now().Add(maxAttestTTL + time.Second).UnixMilli()
			},
		},
		{
			"attestation signed by another", "bad_signature", "attestation rejected: bad_signature",
			func(w *world, s testKey, f obj) {
				a := attest(f)
				a["signature"] = w.keys["c"].sign(fmt.Sprintf("claudemesh-session-attest|%s|%s|%v", w.keys["b"].pub, s.pub, a["expiresAt"]))
			},
		},
		{
			"stale timestamp", "timestamp_skew", "session_hello rejected: timestamp_skew",
			func(_ *world, _ testKey, f obj) { f["timestamp"] = time.Now().UnixMilli() - 60_001 },
		},
		{
			"timestamp of no number", "timestamp_skew", "session_hello rejected: timestamp_skew",
			func(_ *world, _ testKey, f obj) { f["timestamp"] = "now" },
		},
		{
			"signature malformed", "malformed", "session_hello rejected: malformed",
			func(_ *world, _ testKey, f obj) { f["signature"] = "ab" },
		},
		{
			"signature by another", "bad_signature", "session_hello rejected: bad_signature",
			func(w *world, _ testKey, f obj) { f["signature"] = w.keys["b"].sign("x") },
		},
		{
			"parent revoked", "revoked", `You've been removed from "m". Contact the mesh owner to rejoin.`,
			func(w *world, _ testKey, _ obj) { w.b.meshes[w.mesh.MeshID].members[w.keys["b"].pub].revoked = true },
		},
		{
			"parent unknown", "unauthorized", "parent pubkey not found in mesh",
			func(w *world, _ testKey, _ obj) { delete(w.b.meshes[w.mesh.MeshID].members, w.keys["b"].pub) },
		},
		{
			"another member's id", "parent_member_id_mismatch", "parentMemberId does not match parentMemberPubkey",
			func(_ *world, _ testKey, f obj) { f["parentMemberId"] = "member-c" },
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				s, c := newTestKey(), connect(t, w.b)
				got := c.ask(w.sessionHello("b", s, func(f obj) { tc.change(w, s, f) }))
				if len(got) != 1 || got[0]["code"] != tc.code || got[0]["message"] != tc.message {
					t.Errorf("got %v", got)
				}
				wantCode, wantReason := 1008, tc.code
				if tc.code == "revoked" {
					wantCode, wantReason = 4002, "banned"
				}
				if code, reason := c.closed(); code != wantCode || reason != wantReason {
					t.Errorf("closed with %d %q", code, reason)
				}
			})
		})
	}
}

func TestASessionIsItsOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, b, s := w.join("a"), w.join("b"), newTestKey()
		sess := connect(t, w.b)
		sess.ask(w.sessionHello("b", s))
		a.take()
		b.take()
		a.send(dm(s, "to-session"))
		wantFrames(t, "the session", sess.take(), "push:to-session")
		wantFrames(t, "its member", b.take(), "")
		// A row for a session key can't be acked from the member's connection.
		b.send(obj{"type": "client_ack", "clientMessageId": "to-session"})
		b.take()
		time.Sleep(31 * time.Second)
		a.send(dm(s, "next"))
		wantFrames(t, "the session again", sess.take(), "push:to-session push:next")
	})
}

func TestAReattachedSessionIsToldByAMissingProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a, s := w.join("a"), newTestKey()
		first := connect(t, w.b)
		id := first.ask(w.sessionHello("b", s))[0]["presenceId"]
		a.take()
		first.hang()
		time.Sleep(time.Minute)
		second := connect(t, w.b)
		got := second.ask(w.sessionHello("b", s))
		if len(got) != 1 || got[0]["presenceId"] != id || got[0]["memberProfile"] != nil {
			t.Errorf("got %v", got)
		}
		time.Sleep(2 * time.Minute)
		if second.pingCount() == 0 {
			t.Error("a healthy re-attach is pinged")
		}
		wantFrames(t, "others", a.take(), "")
	})
}
