package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"zombiezen.com/go/sqlite"
)

const (
	backlog = 5000 // pushes that wait to be received
	window  = 64   // of the warm-up
)

// benchInbound measures a backlog of pushes from the moment at which the daemon
// can read them: to the last client_ack, by the broker's log, and to the last
// row in the inbox plugin's database, read directly. The daemon is frozen while
// the broker gets the messages, so that their sender is not part of it.
func benchInbound(b *testing.B, bin built, tab *table) {
	acked := &figure{name: "inbound_acked", unit: "1/s", aim: 20000, reference: "2206"}
	stored := &figure{name: "inbound_stored", unit: "1/s", per: backlog, aim: 20000, reference: "2206"}
	for range runs {
		inboundRun(b, bin, acked, stored)
	}
	tab.add(b, acked)
	tab.add(b, stored)
}

func inboundRun(b *testing.B, bin built, acked, stored *figure) {
	w := newWorld(b, bin, 3, "-log", "DIR/frames.log")
	d := w.newDaemon(0, nil)
	d.up()
	m, err := w.join(1)
	if err != nil {
		b.Fatal(err)
	}
	defer m.conn.Close()
	bareInbound(b, w, m, acked, stored)

	warm, _, err := m.frames(d.member.PublicKey, 200)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.pipeline(warm, window); err != nil {
		b.Fatal(err)
	}
	rows := d.countInbox()
	defer rows.close()
	await(b, 20*time.Second, "the warm-up is stored", func() error { return rows.atLeast(len(warm)) })

	frames, ids, err := m.frames(d.member.PublicKey, backlog)
	if err != nil {
		b.Fatal(err)
	}
	freeze(b, d.proc.pid())
	if err := m.pipeline(frames, 256); err != nil {
		b.Fatal(err)
	}
	meter := newMeter(b, map[string]int{"host": d.proc.pid(), "inbox": rows.pid, "broker": w.broker.pid()})
	begin := monotonic(b)
	thaw(b, d.proc.pid())
	await(b, time.Minute, "all pushes are stored", func() error { return rows.atLeast(len(warm) + backlog) })
	end := monotonic(b)
	meter.read(stored)
	stored.add(backlog / (end - begin).Seconds())

	var last time.Duration
	await(b, 20*time.Second, "all pushes are acked", func() error {
		var err error
		last, err = lastClientAck(filepath.Join(w.dir, "frames.log"), ids)
		return err
	})
	acked.add(backlog / (last - begin).Seconds())
	w.end(d)
	have := d.inbox()
	for _, id := range ids {
		if have[id] != text {
			b.Fatalf("%s is not in the inbox with its text", id)
		}
	}
}

// bareInbound has a member without a daemon take the same pushes from the same
// broker: read, decode, open the box, ack; no disk.
func bareInbound(b *testing.B, w *world, from *rawMember, figures ...*figure) {
	b.Helper()
	to, err := w.join(2)
	if err != nil {
		b.Fatal(err)
	}
	defer to.conn.Close()
	frames, _, err := from.frames(w.members[2].PublicKey, backlog)
	if err != nil {
		b.Fatal(err)
	}
	if err := from.pipeline(frames, 256); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	peer := from.key.Public()
	var out []byte
	for n := 0; n < backlog; {
		raw, err := to.next()
		if err != nil {
			b.Fatal(err)
		}
		var p struct {
			MessageID       string `json:"messageId"`
			ClientMessageID string `json:"client_message_id"`
			Nonce           string `json:"nonce"`
			Ciphertext      string `json:"ciphertext"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			b.Fatal(err)
		}
		if p.ClientMessageID == "" {
			continue
		}
		if _, err := to.key.Open(peer, p.Nonce, p.Ciphertext); err != nil {
			b.Fatal(err)
		}
		n++
		ack := fmt.Appendf(nil, `{"type":"client_ack","clientMessageId":%q,"brokerMessageId":%q}`, p.ClientMessageID, p.MessageID)
		if out = appendWS(out, opText, ack); to.in.Buffered() == 0 || n == backlog {
			if err := to.write(out); err != nil {
				b.Fatal(err)
			}
			out = out[:0]
		}
	}
	took := time.Since(begin)
	for _, f := range figures {
		f.ceil("broker_and_bare_recipient", backlog/took.Seconds())
	}
}

// inboxCount reads how many rows the inbox plugin has on disk.
type inboxCount struct {
	b    testing.TB
	conn *sqlite.Conn
	stmt *sqlite.Stmt
	pid  int
}

func (d *daemon) countInbox() *inboxCount {
	d.w.t.Helper()
	conn, err := sqlite.OpenConn(filepath.Join(d.dir, "data", "plugins", "push-inbox", "inbox.db"), sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		d.w.t.Fatal(err)
	}
	conn.SetBlockOnBusy()
	stmt, err := conn.Prepare("SELECT count(*) FROM messages")
	if err != nil {
		d.w.t.Fatal(err)
	}
	return &inboxCount{d.w.t, conn, stmt, d.pluginPID("push_handler", "inbox")}
}

func (c *inboxCount) close() { c.conn.Close() }

func (c *inboxCount) atLeast(want int) error {
	if _, err := c.stmt.Step(); err != nil {
		return err
	}
	n := c.stmt.ColumnInt(0)
	if err := c.stmt.Reset(); err != nil {
		return err
	}
	if n < want {
		return fmt.Errorf("%d of %d rows", n, want)
	}
	return nil
}

// lastClientAck finds when the last of these messages was first acked.
func lastClientAck(log string, ids []string) (last time.Duration, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	missing := make(map[string]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(`"type":"client_ack"`)) {
			continue
		}
		var l struct {
			MonoNS int64 `json:"mono_ns"`
			Frame  struct {
				ID string `json:"clientMessageId"`
			} `json:"frame"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return 0, err
		}
		if missing[l.Frame.ID] {
			delete(missing, l.Frame.ID)
			last = max(last, time.Duration(l.MonoNS))
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if len(missing) > 0 {
		return 0, fmt.Errorf("%d of %d are not acked", len(missing), len(ids))
	}
	return last, nil
}
