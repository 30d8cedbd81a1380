package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

func (c *couple) send(t *testing.T) {
	b := c.b.member.PublicKey
	id := strings.TrimSpace(c.sa.run("send", b, "plain words").exits(0).out)
	if m := c.arrives(t, c.sb, "plain words"); m["client_message_id"] != id || m["sender_pubkey"] != c.a.member.PublicKey {
		t.Errorf("id %q, the message %v", id, m)
	}
	long := "from stdin\nüber " + strings.Repeat("x", 40_000)
	c.sa.feed(long, "send", b, "-").exits(0)
	c.arrives(t, c.sb, long)
	c.sa.feed(strings.Repeat("x", 50_000), "send", b, "-").exits(2, "48")
	c.sa.feed(strings.Repeat("x", 300_000), "send", b, "-").exits(2, "stdin")
	c.sa.feed("\xff\xfe", "send", b, "-").exits(2, "UTF-8")
	c.sa.run("send", "-mesh", "team", b[:12], "by prefix", "-priority", "now").exits(0)
	if m := c.arrives(t, c.sb, "by prefix"); m["priority"] != "now" {
		t.Errorf("%v", m)
	}
	c.sa.run("send", "-priority", "low", "--", b, "-begins with a dash").exits(0)
	if m := c.arrives(t, c.sb, "-begins with a dash"); m["priority"] != "low" {
		t.Errorf("%v", m)
	}
	c.sa.run("send", b, "m", "-mesh", "nowhere").exits(5, "nowhere")

	var sent struct {
		ID          string `json:"id"`
		Client      string `json:"client_message_id"`
		State       string `json:"state"`
		Broker      string `json:"broker_message_id"`
		DeliveredAt string `json:"delivered_at"`
		Durable     bool   `json:"durable"`
	}
	c.sa.run("send", b, "waited for", "-wait", "delivered", "-json").into("send/v1", &sent)
	if sent.State != "delivered" || sent.Broker == "" || sent.DeliveredAt == "" || !sent.Durable || sent.ID != sent.Client {
		t.Errorf("%+v", sent)
	}
	sent.State = ""
	c.sa.run("send", b, "accepted", "-wait=accepted", "-json").into("send/v1", &sent)
	if sent.State != "accepted" && sent.State != "delivered" {
		t.Errorf("%+v", sent)
	}
	begin := time.Now()
	r := c.sa.run("send", c.w.members[2].PublicKey, "never", "-wait", "delivered", "-timeout", "700ms").exits(8, "stays queued")
	if took := time.Since(begin); took < 700*time.Millisecond || took > 5*time.Second {
		t.Errorf("-timeout 700ms took %v", took)
	}
	c.sa.run("outbox", "cancel", strings.TrimSpace(r.out)).exits(0)
	c.sa.run("send", "@all", "to everybody").exits(0)
	c.arrives(t, c.sb, "to everybody")
	c.sa.run("send", c.a.member.PublicKey, "to myself").exits(2, "this host itself")
	c.sa.run("send", c.a.member.PublicKey[:16], "to myself").exits(2, "this host itself")
	c.sa.run("send", "nobody-of-that-name", "m").exits(5, "nobody-of-that-name", "peer list")
	c.sa.run("send", b).exits(2)
	c.sa.run("send", b, "two", "words").exits(2, "quotes")
	c.sa.run("send", b, "m", "-priority", "urgent").exits(2, "now, next or low")
	c.sa.run("send", b, "m", "-wait", "read").exits(2, "accepted or delivered")
	c.sa.run("send", b, "m", "-timeout", "1s").exits(2, "-wait")
	c.sa.run("send", b, "m", "-wait", "accepted", "-timeout", "-1s").exits(2)
}

// sendByName: a name that one peer has is enough; of two the caller chooses.
func (c *couple) sendByName(t *testing.T) {
	for i := 2; i < 4; i++ {
		d := c.w.newDaemon(i, nil)
		d.edit("mesh \"team\" {", fmt.Sprintf("mesh \"team\" {\n display_name = %q", []string{"only", "twin"}[i-2]))
		d.up()
		defer d.proc.signal(syscall.SIGTERM, 10*time.Second)
		if i == 2 {
			await(t, 10*time.Second, "a unique name is known", func() error {
				if r := c.sa.run("send", "only", "by name"); r.code != 0 {
					return errors.New(r.words)
				}
				return nil
			})
			c.arrives(t, d.at(t), "by name")
		}
	}
	d := c.w.newDaemon(4, nil)
	d.edit("mesh \"team\" {", "mesh \"team\" {\n display_name = \"twin\"")
	d.up()
	defer d.proc.signal(syscall.SIGTERM, 10*time.Second)
	await(t, 10*time.Second, "two of one name are seen", func() error {
		r := c.sa.run("send", "twin", "which")
		if r.code != 5 || !strings.Contains(r.words, c.w.members[3].PublicKey) || !strings.Contains(r.words, c.w.members[4].PublicKey) {
			return fmt.Errorf("exit %d: %s", r.code, r.words)
		}
		return nil
	})
	code, body := c.a.raw(t, "POST", "/v1/send", `{"to":"twin","message":"m"}`)
	var amb struct {
		Error      string           `json:"error"`
		Candidates []map[string]any `json:"candidates"`
	}
	must(t, json.Unmarshal([]byte(body), &amb))
	if code != 409 || amb.Error != "ambiguous_target" || len(amb.Candidates) != 2 {
		t.Errorf("%d %s", code, body)
	}
}

func (c *couple) sendAgain(t *testing.T) {
	b := c.b.member.PublicKey
	c.sa.run("send", b, "once", "-key", "k1", "-wait", "accepted").exits(0).prints("k1\n")
	c.sa.run("send", b, "once", "-key", "k1").exits(0, "already").prints("k1\n")
	c.sa.run("send", b, "another text", "-key", "k1").exits(10, "idempotency key reused")
	c.sa.run("send", b, "m", "-key", strings.Repeat("k", 129)).exits(2, "128")
	c.arrives(t, c.sb, "once")
	n := 0
	for _, m := range messages(c.sb) {
		if m["client_message_id"] == "k1" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it arrived %d times", n)
	}
	code, first := c.a.raw(t, "POST", "/v1/send", fmt.Sprintf(`{"to":%q,"message":"by header"}`, b), "Idempotency-Key", "k2")
	if code != 202 || !strings.Contains(first, `"client_message_id":"k2"`) || !strings.Contains(first, `"durable":true`) {
		t.Errorf("%d %s", code, first)
	}
	if code, body := c.a.raw(t, "POST", "/v1/send", fmt.Sprintf(`{"to":%q,"message":"changed"}`, b), "Idempotency-Key", "k2"); code != 409 || !strings.Contains(body, "idempotency_key_reused") {
		t.Errorf("%d %s", code, body)
	}
}

// outboxRow is the part of `outbox show -json` that tests read.
type outboxRow struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Status   string `json:"status"`
	Target   string `json:"target"`
	Attempts int    `json:"attempts"`
}

func (s shell) outboxRow(id string) outboxRow {
	s.t.Helper()
	var row outboxRow
	s.run("outbox", "show", id, "-json").into("outbox_show/v1", &row)
	return row
}

// outbox: a row waits for a key that nobody has connected, and can be taken
// back and sent after all.
func (c *couple) outbox(t *testing.T) {
	// A key of another mesh: nobody will ever connect with it.
	absent := newWorld(t, c.w.bin, 1).members[0].PublicKey
	id := strings.TrimSpace(c.sa.run("send", absent, "for later").exits(0, "").out)
	is := func(id, state, status string) {
		t.Helper()
		await(t, 10*time.Second, "the row is "+state, func() error {
			if row := c.sa.outboxRow(id); row.State != state || row.Status != status {
				return fmt.Errorf("%+v", row)
			}
			return nil
		})
	}
	is(id, "waiting", "pending")
	must(t, c.sa.run("outbox", "list", "-target", absent).has(id, "waiting"))
	must(t, c.sa.run("outbox", "list", "-status", "pending", "-mesh", "team").has(id))
	if r := c.sa.run("outbox", "list", "-status", "done").exits(0); strings.Contains(r.out, id) {
		t.Error("-status done lists a waiting row")
	}
	must(t, c.sa.run("outbox", "show", id).has("waiting", absent))
	c.sa.run("outbox", "cancel", id).exits(0)
	is(id, "cancelled", "aborted")
	must(t, c.sa.run("outbox", "list", "-status", "aborted").has(id))
	c.sa.run("outbox", "cancel", id).exits(0) // again: nothing changes
	is(id, "cancelled", "aborted")
	var done struct {
		Items []outboxRow `json:"items"`
	}
	c.sa.run("outbox", "requeue", id, "-json").into("outbox_requeue/v1", &done)
	if len(done.Items) != 1 || done.Items[0].ID != id {
		t.Errorf("%+v", done)
	}
	is(id, "waiting", "pending")
	c.sa.run("outbox", "requeue", id).exits(0) // of a row that is on its way: nothing changes
	is(id, "waiting", "pending")
	c.sa.run("outbox", "cancel", id, "no-such-id").exits(6, "no-such-id")
	c.sa.run("outbox", "cancel", "no-such-id").exits(5)
	c.sa.run("outbox", "show", "no-such-id").exits(5)
	c.sa.run("outbox", "requeue").exits(2)
	c.sa.run("outbox", "list", "-limit", "0").exits(2)
	c.sa.run("outbox", "list", "-status", "lost").exits(2, "aborted")
	first := c.sa.run("outbox", "list", "-limit", "1").exits(0, "-before")
	cursor := strings.TrimSpace(first.words[strings.LastIndex(first.words, "-before ")+len("-before "):])
	second := c.sa.run("outbox", "list", "-limit", "1", "-before", cursor).exits(0)
	if first.out == second.out || strings.Count(second.out, "\n") != 2 {
		t.Errorf("the second page is\n%s", second.out)
	}
	accepted := strings.TrimSpace(c.sa.run("send", c.b.member.PublicKey, "gone", "-wait", "accepted").exits(0).out)
	c.sa.run("outbox", "cancel", accepted).exits(10)
	if code, body := c.a.raw(t, "POST", "/v1/outbox/requeue", fmt.Sprintf(`{"id":%q,"new_client_message_id":"x"}`, id)); code != 400 || !strings.Contains(body, "new_client_message_id") {
		t.Errorf("new_client_message_id: %d %s", code, body)
	}
}

// A row that waits for a key goes within seconds when its peer appears.
func TestAWaitingMessageGoesWhenItsPeerAppears(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 2)
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	sh := a.at(t)
	id := strings.TrimSpace(sh.run("send", b.member.PublicKey, "for later").exits(0).out)
	await(t, 10*time.Second, "the row waits", func() error {
		if row := sh.outboxRow(id); row.State != "waiting" {
			return fmt.Errorf("%+v", row)
		}
		return nil
	})
	b.up()
	begin := time.Now()
	await(t, 8*time.Second, "it arrives", func() error {
		if !slices.ContainsFunc(messages(b.at(t)), func(m map[string]any) bool { return m["client_message_id"] == id }) {
			return errors.New("not yet")
		}
		return nil
	})
	fmt.Printf("RESULT waiting_woken ms=%d\n", time.Since(begin).Milliseconds())
}
