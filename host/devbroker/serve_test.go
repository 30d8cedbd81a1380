package devbroker

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/meshhost/meshhost/host/identity"
)

func TestServeTakesTCPUntilItsContextEnds(t *testing.T) {
	b, err := New(Options{Seed: GenerateSeed("m", "a")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln) }()
	ws, _, err := websocket.Dial(t.Context(), "ws://"+ln.Addr().String()+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"list_peers"}`)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.Read(t.Context()); err != nil || !strings.Contains(string(got), "no_hello") {
		t.Errorf("got %s, %v", got, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	ws.CloseNow()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Dialer()(t.Context(), "", ""); err == nil {
		t.Error("a closed broker still takes connections")
	}
}

// starved is a listener of a process that has no file descriptor left for a while.
type starved struct {
	net.Listener
	refusals int
}

func (s *starved) Accept() (net.Conn, error) {
	if s.refusals > 0 {
		s.refusals--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
	return s.Listener.Accept()
}

func TestServeOutlivesAShortageOfFileDescriptors(t *testing.T) {
	b, err := New(Options{Seed: GenerateSeed("m", "a")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(t.Context(), &starved{ln, 3}) }()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + ln.Addr().String() + "/health")
	if err != nil {
		t.Fatal(err, <-served)
	}
	resp.Body.Close()
	if err := errors.Join(b.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func TestCloseSaysShuttingDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a := w.join("a")
		if err := w.b.Close(); err != nil {
			t.Fatal(err)
		}
		if code, reason := a.closed(); code != 1001 || reason != "shutting down" {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
}

func TestAbortCutsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		a := w.join("a")
		if err := w.b.Abort(); err != nil {
			t.Fatal(err)
		}
		if code, _ := a.closed(); code != 1006 {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestNewSeedWritesWhatABrokerAndItsMembersNeed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "seed.json")
	var printed bytes.Buffer
	if err := NewSeed(file, 6, "ws://127.0.0.1:7900/ws", &printed); err != nil {
		t.Fatal(err)
	}
	seed, err := LoadSeed(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(seed.Meshes) != 1 || len(seed.Meshes[0].Members) != 6 {
		t.Fatalf("seed: %+v", seed)
	}
	for i, m := range seed.Meshes[0].Members {
		key, err := identity.LoadKeyFile(filepath.Join(dir, memberName(i)+".key"))
		if err != nil || key.Public().String() != m.PublicKey {
			t.Errorf("%s.key: %v", m.DisplayName, err)
		}
		block, err := os.ReadFile(filepath.Join(dir, m.DisplayName+".hcl"))
		if err != nil || !strings.Contains(string(block), `member_id       = "`+m.MemberID+`"`) || strings.Contains(string(block), m.SecretKey) {
			t.Errorf("%s.hcl: %s, %v", m.DisplayName, block, err)
		}
		if !strings.Contains(printed.String(), string(block)) {
			t.Errorf("the block of %s was not printed", m.DisplayName)
		}
	}
	for _, f := range []string{"seed.json", "alice.key", "alice.hcl"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
	}
	if err := NewSeed(file, 2, "ws://x/ws", nil); err == nil {
		t.Error("an existing seed was overwritten")
	}
}

func TestNewSeedThatFailsLeavesNothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	bob := filepath.Join(dir, "bob.key")
	if err := os.WriteFile(bob, []byte("of another mesh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewSeed(filepath.Join(dir, "seed.json"), 3, "ws://x/ws", nil); err == nil || !strings.Contains(err.Error(), "bob.key") {
		t.Errorf("an existing key: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "bob.key" {
		t.Errorf("left: %v, %v", left, err)
	}
	if got, err := os.ReadFile(bob); err != nil || string(got) != "of another mesh" {
		t.Errorf("bob.key holds %q, %v", got, err)
	}
}

func TestABadSeedIsRefusedWithItsPlace(t *testing.T) {
	dir := t.TempDir()
	key := strings.Repeat("ab", 32)
	for content, want := range map[string]string{
		``:                            "seed",
		`{}`:                          "no mesh",
		`{"meshes":[{"mesh_id":""}]}`: "meshes[0]",
		`{"meshes":[{"mesh":"x"}]}`:   "unknown",
		`{"meshes":[{"mesh_id":"m","members":[{"member_id":"a","public_key":"zz"}]}]}`:                        "public_key",
		`{"meshes":[{"mesh_id":"m","members":[{"member_id":"a","public_key":"` + key + `","role":"boss"}]}]}`: `"boss"`,
		`{"meshes":[{"mesh_id":"m","members":[{"public_key":"` + key + `"}]}]}`:                               "member_id",
	} {
		file := filepath.Join(dir, "seed.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSeed(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", content, err, want)
		}
	}
}
