package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// couple is two daemons and their shells, in one mesh with three more members.
type couple struct {
	w    *world
	a, b *daemon
	sa   shell
	sb   shell
}

// The verbs, one after the other on one pair of daemons.
func TestVerbs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 5)
	c := &couple{w: w, a: w.newDaemon(0, nil), b: w.newDaemon(1, nil)}
	c.a.up()
	c.b.up()
	for _, part := range []struct {
		name string
		run  func(*couple, *testing.T)
	}{
		{"status", (*couple).status},
		{"plugin", (*couple).plugin},
		{"peer list", (*couple).peerList},
		{"send", (*couple).send},
		{"send to a name", (*couple).sendByName},
		{"send again", (*couple).sendAgain},
		{"inbox", (*couple).inbox},
		{"inbox -follow", (*couple).inboxFollow},
		{"outbox", (*couple).outbox},
		{"state", (*couple).state},
		{"events", (*couple).events},
		{"help", (*couple).help},
		{"api", (*couple).api},
		{"metrics", (*couple).metrics},
		{"gates of the api", (*couple).gates},
		{"peers", (*couple).peers},
	} {
		t.Run(part.name, func(t *testing.T) {
			c.sa, c.sb = c.a.at(t), c.b.at(t)
			part.run(c, t)
		})
	}
}

func (c *couple) status(t *testing.T) {
	var st struct {
		PID     int    `json:"pid"`
		Socket  string `json:"socket"`
		DataDir string `json:"data_dir"`
		Meshes  []struct {
			State     string `json:"state"`
			PubKey    string `json:"pubkey"`
			BrokerURL string `json:"broker_url"`
		} `json:"meshes"`
		Plugins  []pluginRow `json:"plugins"`
		Outboxes []struct {
			Durable bool `json:"durable"`
		} `json:"outboxes"`
	}
	c.sa.run("status", "-json").into("status/v1", &st)
	if st.PID != c.a.proc.pid() || st.Socket != c.a.socket || st.DataDir != filepath.Join(c.a.dir, "data") || len(st.Plugins) != 5 ||
		len(st.Meshes) != 1 || st.Meshes[0].State != "open" || st.Meshes[0].PubKey != c.a.member.PublicKey || len(st.Outboxes) != 1 || !st.Outboxes[0].Durable {
		t.Errorf("%+v", st)
	}
	if err := c.sa.run("status").has("open", "outbox", "empty", fmt.Sprint(c.a.proc.pid())); err != nil {
		t.Error(err)
	}
}

func (c *couple) plugin(t *testing.T) {
	if p := c.sa.plugin("inbox"); p.Kind != "push_handler" || p.State != "ready" || p.PID == 0 || p.Version == "" {
		t.Errorf("%+v", p)
	}
	must(t, c.sa.run("plugin", "list").has("push_handler", "inbox", "ready"))
	for _, name := range []string{"inbox", "push-inbox", "push_handler.inbox"} {
		must(t, c.sa.run("plugin", "info", name).has("retention", "720h", "method", "prune"))
	}
	c.sa.run("plugin", "info", "push-inbx").exits(5, "push-inbox")
	path := filepath.Join(c.w.bin.plugins, "meshhost-outbox-sqlite")
	none := c.sa
	none.flags = []string{"-socket", filepath.Join(c.w.dir, "nobody")}
	must(t, none.run("plugin", "info", path).has("outbox", "path", "outbox.db"))
	var info struct {
		Name        string `json:"name"`
		State       string `json:"state"`
		Description struct {
			Durable bool `json:"durable"`
		} `json:"description"`
	}
	none.run("plugin", "info", path, "-json").into("plugin_info/v1", &info)
	if info.Name != "sqlite" || !info.Description.Durable || info.State != "not started" {
		t.Errorf("%+v", info)
	}
	none.run("plugin", "info", c.w.bin.meshhost).exits(1, "meshhost plugin")
	none.run("plugin", "info", "./nothing").exits(5, "nothing")
	none.run("plugin", "list").exits(4)
}

func (c *couple) peerList(t *testing.T) {
	var shown, all peerList
	c.sa.run("peer", "list", "-json").into("peer_list/v1", &shown)
	c.sa.run("peer", "list", "-all", "-json").into("peer_list/v1", &all)
	if all.has("control-plane") < 1 || shown.has("control-plane") != 0 || len(all.Peers)-len(shown.Peers) != shown.hidden() {
		t.Errorf("%d of %d rows, hidden %+v", len(shown.Peers), len(all.Peers), shown.Hidden)
	}
	c.sa.run("peer", "list").exits(0, "hidden", "-all")
	must(t, c.sa.run("peer", "list", "-all", "-mesh", "team").has(c.b.member.PublicKey[:16], "control-plane"))
	var few struct {
		Peers []map[string]any `json:"peers"`
	}
	c.sa.run("peer", "list", "-all", "-json=pubkey,no_such").into("peer_list/v1", &few)
	if len(few.Peers) != len(all.Peers) || len(few.Peers[0]) != 2 || few.Peers[0]["no_such"] != nil || few.Peers[0]["pubkey"] == nil {
		t.Errorf("-json=fields: %v", few.Peers)
	}
	if row := c.row(t, c.sa, c.b); row["member_pubkey"] != c.b.member.PublicKey || row["mesh"] != "team" || row["role"] != "control-plane" {
		t.Errorf("%v", row)
	}
}

// row is a member's row of `peer list -all` as another sees it.
func (c *couple) row(t *testing.T, s shell, of *daemon) map[string]any {
	t.Helper()
	var l peerList
	s.run("peer", "list", "-all", "-json").into("peer_list/v1", &l)
	for _, p := range l.Peers {
		if p["pubkey"] == of.member.PublicKey {
			return p
		}
	}
	return nil
}

// arrives waits until the other inbox has a text and returns its row.
func (c *couple) arrives(t *testing.T, s shell, text string) map[string]any {
	t.Helper()
	var found map[string]any
	await(t, 10*time.Second, fmt.Sprintf("%.20q arrives", text), func() error {
		for _, m := range messages(s) {
			if m["body"] == text {
				found = m
				return nil
			}
		}
		return errors.New("it is not there")
	})
	return found
}

// messages are `inbox -json` with further flags.
func messages(s shell, flags ...string) []map[string]any {
	s.t.Helper()
	var in struct {
		Messages []map[string]any `json:"messages"`
	}
	s.run(append([]string{"inbox", "-json"}, flags...)...).into("inbox_list/v1", &in)
	return in.Messages
}

func (c *couple) inbox(t *testing.T) {
	for i := range 3 {
		c.sa.run("send", c.b.member.PublicKey, fmt.Sprintf("mail %d", i), "-wait", "delivered").exits(0)
		c.arrives(t, c.sb, fmt.Sprintf("mail %d", i))
	}
	newest := messages(c.sb, "-limit", "2")
	if len(newest) != 2 || newest[0]["body"] != "mail 2" || newest[1]["body"] != "mail 1" {
		t.Fatalf("-limit 2: %v", newest)
	}
	id, _ := newest[0]["id"].(string)
	unread := len(messages(c.sb, "-unread"))
	must(t, c.sb.run("inbox", "show", id).has("mail 2", id))
	c.sb.run("inbox", "seen", id).exits(0)
	if n := len(messages(c.sb, "-unread")); n != unread-1 {
		t.Errorf("%d unread before, %d after one was seen", unread, n)
	}
	if from := messages(c.sb, "-from", c.a.member.PublicKey[:8], "-mesh", "team"); len(from) == 0 {
		t.Error("-from finds nothing")
	}
	if from := messages(c.sb, "-from", strings.Repeat("0", 8)); len(from) != 0 {
		t.Errorf("-from a stranger: %v", from)
	}
	if since := messages(c.sb, "-since", time.Now().Add(time.Hour).Format(time.RFC3339)); len(since) != 0 {
		t.Errorf("-since the future: %v", since)
	}
	if after := messages(c.sb, "-after", fmt.Sprint(newest[1]["id"])); len(after) != 1 || after[0]["id"] != id {
		t.Errorf("-after: %v", after)
	}
	must(t, c.sb.run("inbox").has("RECEIVED AT", "mail 2"))
	must(t, c.sb.run("inbox", "list", "-limit", "1").has("mail 2"))
	c.sb.run("inbox", "delete", id).exits(0)
	c.sb.run("inbox", "show", id).exits(5)
	c.sb.run("inbox", "delete", id).exits(5)
	c.sb.run("inbox", "-limit", "many").exits(2, "limit")
	c.sb.run("inbox", "-limit", "5000").exits(2)
	c.sb.run("inbox", "frobnicate").exits(2, "frobnicate", "prune")
	c.sb.run("inbox", "show").exits(2)
	c.sb.run("inbox", "prune").exits(2, "before")
	c.sb.run("inbox", "prune", "-older-than", "1h").exits(0)
	if len(messages(c.sb)) == 0 {
		t.Error("prune -older-than 1h took what is young")
	}
	var pruned struct {
		Removed int `json:"removed"`
	}
	c.sb.run("inbox", "prune", "-before", time.Now().Add(time.Minute).Format(time.RFC3339), "-json").into("inbox_prune/v1", &pruned)
	if left := messages(c.sb); len(left) != 0 || pruned.Removed == 0 {
		t.Errorf("prune removed %d, left %v", pruned.Removed, left)
	}
}

func (c *couple) inboxFollow(t *testing.T) {
	c.sa.run("send", c.b.member.PublicKey, "before the follower", "-wait", "delivered").exits(0)
	c.arrives(t, c.sb, "before the follower")
	p := start(t, "follow", nil, c.w.bin.meshhost, "-socket", c.b.socket, "inbox", "-follow")
	shows := func(text string) {
		await(t, 10*time.Second, "the follower prints "+text, func() error {
			if !strings.Contains(p.text(), text) {
				return fmt.Errorf("it printed %q", p.text())
			}
			return nil
		})
	}
	shows("before the follower")
	c.sa.run("send", c.b.member.PublicKey, "while it follows").exits(0)
	shows("while it follows")
	p.signal(syscall.SIGINT, 5*time.Second)
	if code := p.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted, it exits %d", code)
	}
	if n := strings.Count(p.text(), "before the follower"); n != 1 {
		t.Errorf("a row was printed %d times:\n%s", n, p.text())
	}
}

func (c *couple) state(t *testing.T) {
	watch := start(t, "watch", nil, c.w.bin.meshhost, "-socket", c.b.socket, "state", "watch")
	await(t, 10*time.Second, "the watcher begins", func() error {
		if watch.text() == "" {
			return errors.New("it printed nothing")
		}
		return nil
	})
	c.sa.run("state", "set", "color", `"green"`).exits(0).prints("green\n")
	c.sb.run("state", "get", "color").exits(0).prints("green\n")
	c.sa.run("state", "set", "plain", "not JSON").exits(0)
	c.sb.run("state", "get", "plain").prints("not JSON\n")
	c.sa.run("state", "set", "deep", `{"a":[1,2,{"b":null}]}`).exits(0)
	var e struct {
		Key   string `json:"key"`
		Value struct {
			A []any `json:"a"`
		} `json:"value"`
		By string `json:"updated_by"`
	}
	c.sb.run("state", "get", "deep", "-json").into("state_get/v1", &e)
	if e.Key != "deep" || len(e.Value.A) != 3 || e.By == "" {
		t.Errorf("%+v", e)
	}
	must(t, c.sb.run("state", "list").has("color", "green", "plain", "deep"))
	must(t, c.sb.run("state").has("color"))
	c.sb.run("state", "get", "nothing").exits(5, "nothing")
	c.sb.run("state", "set", "k", "null").exits(2, "null")
	c.sb.run("state", "get").exits(2, "KEY")
	c.sb.run("state", "get", "").exits(2)
	await(t, 10*time.Second, "the watcher prints the change", func() error {
		for line := range strings.Lines(watch.text()) {
			if strings.Contains(line, `"deep"`) && strings.Contains(line, `"schema":"event/v1"`) {
				return nil
			}
		}
		return fmt.Errorf("it printed %s", watch.text())
	})
	watch.signal(syscall.SIGTERM, 5*time.Second)
}

func (c *couple) events(t *testing.T) {
	all := start(t, "events", nil, c.w.bin.meshhost, "-socket", c.b.socket, "events")
	some := start(t, "some events", nil, c.w.bin.meshhost, "-socket", c.b.socket, "events", "-kind", "inbox", "-mesh", "team", "-json=kind,seq")
	n := 0
	await(t, 10*time.Second, "both see a message", func() error {
		n++ // they may not be connected yet
		c.sa.run("send", c.b.member.PublicKey, fmt.Sprintf("event %d", n), "-wait", "delivered").exits(0)
		if !strings.Contains(all.text(), `"kind":"message"`) || !strings.Contains(some.text(), "inbox.stored") {
			return fmt.Errorf("%s\n%s", all.text(), some.text())
		}
		return nil
	})
	for line := range strings.Lines(some.text()) {
		var ev map[string]any
		if err := json.Unmarshal([]byte(line), &ev); err != nil || len(ev) != 3 || ev["schema"] != "event/v1" || ev["seq"] == nil || !strings.HasPrefix(fmt.Sprint(ev["kind"]), "inbox.") {
			t.Errorf("-kind inbox prints %s", line)
		}
	}
	for line := range strings.Lines(all.text()) {
		var ev map[string]any
		if err := json.Unmarshal([]byte(line), &ev); err != nil || ev["ts"] == nil || ev["kind"] == nil {
			t.Errorf("a line is %s", line)
		}
	}
}

func (c *couple) help(t *testing.T) {
	must(t, c.sa.run("-h").has("inbox", "state", "peers", "devbroker"))
	must(t, c.sa.run("help", "inbox").has("prune", "inbox list"))
	must(t, c.sa.run("inbox", "list", "--help").has("-unread", "-follow"))
	c.sa.run("inbx").exits(2, `"inbox"`)
	c.sa.run("state", "frob").exits(2, "frob")
	c.sa.run("state", "get", "-frob", "k").exits(2, "-frob")
	c.sa.run("peer", "lst").exits(2, `"list"`)
	c.sa.run("peer").exits(2, "list")
	c.sa.run("status", "now").exits(2)
}

// peers: what one daemon says of itself is what the other lists, also after
// the broker forgot everything.
func (c *couple) peers(t *testing.T) {
	for _, args := range [][]string{
		{"summary", "writing tests"},
		{"status", "working"},
		{"profile", "-title", "builder", "-capabilities", "go", "-capabilities", "sql"},
		{"join", "@crew", "lead"},
		{"join", "others"},
		{"leave", "others"},
	} {
		c.sa.run(append([]string{"peers"}, args...)...).exits(0)
	}
	c.sa.run("peers", "status", "sleepy").exits(2, "idle")
	c.sa.run("peers", "profile").exits(2, "-title")
	c.sa.run("peers", "visible", "perhaps").exits(2)
	shown := func(p map[string]any) error {
		profile, _ := p["profile"].(map[string]any)
		groups, _ := p["groups"].([]any)
		if p == nil || p["summary"] != "writing tests" || p["status"] != "working" || profile["title"] != "builder" ||
			fmt.Sprint(profile["capabilities"]) != "[go sql]" || len(groups) != 1 || fmt.Sprint(groups[0]) != "map[name:crew role:lead]" {
			return fmt.Errorf("%v", p)
		}
		return nil
	}
	await(t, 10*time.Second, "b sees a as it wants", func() error { return shown(c.row(t, c.sb, c.a)) })
	if code, body := c.a.raw(t, "POST", "/v1/profile", `{"bio":"by the API","visible":true}`); code != 200 || !strings.Contains(body, `"applied":["visible","bio"]`) {
		t.Errorf("POST /v1/profile: %d %s", code, body)
	}
	await(t, 10*time.Second, "the bio is there", func() error {
		if p, _ := c.row(t, c.sb, c.a)["profile"].(map[string]any); p["bio"] != "by the API" {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
	c.w.broker.kill9()
	await(t, 10*time.Second, "a notices", func() error { return c.sa.run("status").has("reconnecting") })
	c.sa.run("peers", "leave", "crew").exits(0) // offline
	c.sa.run("peers", "join", "crew", "lead").exits(0)
	c.w.startBroker()
	c.a.ready()
	c.b.ready()
	await(t, 20*time.Second, "b sees a as before, of a broker that forgot", func() error { return shown(c.row(t, c.sb, c.a)) })

	c.sa.run("peers", "visible", "false").exits(0)
	await(t, 10*time.Second, "b sees a no more", func() error {
		if p := c.row(t, c.sb, c.a); p != nil && p["visible"] != false {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
	c.sa.run("peers", "visible", "true").exits(0)
	await(t, 10*time.Second, "and again", func() error {
		if p := c.row(t, c.sb, c.a); p == nil || p["visible"] == false {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
}
