package devbroker

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// startChild runs a broker process and returns it with its address.
func startChild(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // also when the test fails in the middle
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the broker process said %q: %v", addr, err)
	}
	return cmd, strings.TrimSpace(addr)
}

// TestWhatWasAckedIsThereAfterKillNine kills a broker process in the middle of a burst, five times over one data file.
func TestWhatWasAckedIsThereAfterKillNine(t *testing.T) {
	dir := t.TempDir()
	if err := NewSeed(filepath.Join(dir, "seed.json"), 2, "ws://127.0.0.1:0/ws", nil); err != nil {
		t.Fatal(err)
	}
	seed, err := LoadSeed(filepath.Join(dir, "seed.json"))
	if err != nil {
		t.Fatal(err)
	}
	mesh := seed.Meshes[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var acked []string
	for round := range 5 {
		cmd, addr := startChild(t, dir)
		from, to := dialChild(ctx, t, addr, mesh, 0), dialChild(ctx, t, addr, mesh, 1)
		writes := make(chan struct{})
		go func() { // until the kill
			defer close(writes)
			for i := 0; ; i++ {
				frame := fmt.Sprintf(`{"type":"send","id":"%d-%d","targetSpec":%q,"priority":"next","nonce":"","ciphertext":"eA=="}`, round, i, mesh.Members[1].PublicKey)
				if from.Write(ctx, websocket.MessageText, []byte(frame)) != nil {
					return
				}
			}
		}()
		for n := 0; ; n++ {
			f, err := readUntil(ctx, from, "ack")
			if err != nil {
				break // the kill; acks that the kernel still held were read before
			}
			acked = append(acked, f.MessageID)
			if n == 200 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		<-writes
		_ = cmd.Wait() // "signal: killed"
		_ = from.CloseNow()
		_ = to.CloseNow()
	}
	cmd, addr := startChild(t, dir)
	ws := dialChild(ctx, t, addr, mesh, 0)
	lost := 0
	for _, id := range acked {
		if err := ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"message_status","messageId":%q}`, id)); err != nil {
			t.Fatal(err)
		}
		if _, err := readUntil(ctx, ws, "message_status_result", "error"); err != nil {
			t.Logf("%s: %v", id, err)
			lost++
		}
	}
	if lost > 0 || len(acked) < 1000 {
		t.Errorf("%d of %d acked sends are unknown after the kills", lost, len(acked))
	}
	_ = ws.CloseNow()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func dialChild(ctx context.Context, t *testing.T, addr string, m SeedMesh, i int) *websocket.Conn {
	t.Helper()
	ws, err := dialMember(ctx, addr, m, i, secretOf(t, m.Members[i]))
	if err != nil {
		t.Fatal(err)
	}
	return ws
}
