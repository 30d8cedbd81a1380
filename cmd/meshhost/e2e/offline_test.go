package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// What is sent while the recipient is away, and over a broker's crash, arrives
// when the recipient comes back; one target's messages leave in order.
func TestMessagesOutliveAnAbsentPeerAndACrashedBroker(t *testing.T) {
	bin := binaries(t)
	w := newWorld(t, bin, 2, "-data", "DIR/broker.data", "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	v := newDriver(t, a, b.member.PublicKey)

	v.must(300)
	b.proc.signal(syscall.SIGTERM, 10*time.Second)
	pace := time.NewTicker(50 * time.Millisecond)
	for range 400 {
		v.must(1)
		<-pace.C
	}
	pace.Stop()
	w.broker.kill9()
	w.startBroker()
	v.must(300)
	b.launch()
	back := time.Now()

	var stored map[string]string
	await(t, 150*time.Second, "all 1,000 messages are stored", func() error {
		stored = b.inbox()
		if len(stored) < 1000 {
			return fmt.Errorf("%d are", len(stored))
		}
		return nil
	})
	took := time.Since(back)
	lost, ghost, wrong, err := v.check(stored)
	order := acksInOrder(t, filepath.Join(w.dir, "frames.log"), v.accepted)
	fmt.Printf("RESULT offline accepted=%d stored=%d lost=%d ghost=%d wrong=%d in_order=%v seconds=%.1f\n",
		len(v.accepted), len(stored), lost, ghost, wrong, order == nil, took.Seconds())
	if len(v.accepted) != 1000 || len(stored) != 1000 || err != nil || order != nil {
		t.Errorf("accepted %d, stored %d: %v; order: %v", len(v.accepted), len(stored), err, order)
	}
}

// frame is a line of the broker's log.
type frame struct {
	MonoNS int64  `json:"mono_ns"`
	Dir    string `json:"dir"`
	Conn   int    `json:"conn"`
	Frame  struct {
		Type            string `json:"type"`
		ID              string `json:"id"`
		ClientMessageID string `json:"client_message_id"`
		Queued          bool   `json:"queued"`
	} `json:"frame"`
}

// acksInOrder checks that the first queued ack of each client id came in the
// order in which the driver got its 202s.
func acksInOrder(t testing.TB, log string, want []string) error {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	client := map[string]string{} // correlation id -> client_message_id
	seen := map[string]bool{}
	var got []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		var fr frame
		if err := json.Unmarshal(lines.Bytes(), &fr); err != nil {
			continue // a frame that is not an object, or the line that the kill cut
		}
		switch {
		case fr.Dir == "in" && fr.Frame.Type == "send":
			client[fr.Frame.ID] = fr.Frame.ClientMessageID
		case fr.Dir == "out" && fr.Frame.Type == "ack" && fr.Frame.Queued:
			if id := client[fr.Frame.ID]; id != "" && !seen[id] {
				seen[id] = true
				got = append(got, id)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if slices.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("ack %d is of %s, the 202 was of %s (%d acks, %d accepted)", i, got[i], want[i], len(got), len(want))
		}
	}
	return fmt.Errorf("%d acks, %d accepted", len(got), len(want))
}
