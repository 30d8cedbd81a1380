package devbroker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A hello that the broker drops in silence leaves a connection where it was, also when it named another mesh.
func TestAHelloThatComesToNothingLeavesTheConnectionInItsMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		if err := w.b.Close(); err != nil {
			t.Fatal(err)
		}
		other := w.mesh
		other.MeshID, other.Slug = newID(), "other"
		b, err := New(Options{Seed: Seed{Meshes: []SeedMesh{w.mesh, other}}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		w.b = b
		a := w.join("a")
		k, now := w.keys["a"], time.Now().UnixMilli()
		if got := a.ask(obj{ // no sessionId: the reference's insert fails
			"type": "hello", "meshId": other.MeshID, "memberId": "member-a", "pubkey": k.pub, "pid": 1, "cwd": "/", "timestamp": now,
			"signature": k.sign(fmt.Sprintf("%s|member-a|%s|%d", other.MeshID, k.pub, now)),
		}); len(got) != 0 {
			t.Errorf("answered: %v", got)
		}
		got := a.ask(obj{"type": "list_peers"})
		if peers, _ := got[0]["peers"].([]any); len(peers) != 1 {
			t.Errorf("it lists %v", got)
		}
		// And its presence becomes a lease where it is.
		a.hang()
		bob := w.join("b")
		wantFrames(t, "a send to the lease", bob.ask(dm(k, "x")), "ack")
		time.Sleep(graceLease + time.Second)
		wantFrames(t, "the lease ends", bob.take(), "push:peer_left")
	})
}
