package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// api: the routes that no verb reaches.
func (c *couple) api(t *testing.T) {
	get := func(path string, want ...string) string {
		t.Helper()
		code, body := c.b.raw(t, "GET", path, "")
		for _, w := range want {
			if code != 200 || !strings.Contains(body, w) {
				t.Errorf("GET %s: %d without %s: %s", path, code, w, body)
			}
		}
		return body
	}
	get("/v1/version", `"ipc_api":"v1"`, `"plugin_protocol":1`)
	get("/v1/health", `"ok":true`, `"team":"open"`)
	get("/v1/features", `"inbox"`, `"state"`, `"peers"`, `"default_method":"list"`)
	get("/v1/plugins", `"push_handler"`)
	if code, body := c.a.raw(t, "POST", "/v1/state", `{"key":"api","value":{"n":1}}`); code != 200 || !strings.Contains(body, `"ok":true`) {
		t.Errorf("POST /v1/state: %d %s", code, body)
	}
	get("/v1/state?key=api", `"updatedBy"`, `{"n":1}`)
	get("/v1/state?mesh=team", `"entries":[`, `"api"`)
	if code, _ := c.b.raw(t, "GET", "/v1/state?key=none", ""); code != 404 {
		t.Errorf("GET of a key that nobody set: %d", code)
	}
	if code, body := c.b.raw(t, "POST", "/v1/state", `{"key":"k"}`); code != 400 || !strings.Contains(body, "value") {
		t.Errorf("POST without a value: %d %s", code, body)
	}
	if code, body := c.b.raw(t, "POST", "/v1/features/state/get", `{"key":"api"}`); code != 200 || !strings.Contains(body, `{"n":1}`) {
		t.Errorf("POST /v1/features: %d %s", code, body)
	}
	if code, body := c.b.raw(t, "POST", "/v1/features/state/get", `{"params":{"key":"api"}}`); code != 400 {
		t.Errorf("POST /v1/features with an unknown parameter: %d %s", code, body)
	}
	c.apiInbox(t, get)
	for path, want := range map[string]int{
		"/v1/nothing": 404, "/v1/outbox/none": 404, "/v1/outbox?limit=x": 400, "/v1/inbox?limit=0": 400, "/v1/peers?all=perhaps": 400,
		"/v1/features/state/get": 405, "/v1/send": 405, "/v1/outbox/a/b/c": 404, "/v1/status?token=x": 400,
	} {
		code, body := c.b.raw(t, "GET", path, "")
		var e struct {
			Error   string `json:"error"`
			Message string `json:"message"`
			Next    string `json:"next"`
		}
		if err := json.Unmarshal([]byte(body), &e); code != want || err != nil || e.Error == "" || e.Message == "" {
			t.Errorf("GET %s: %d, want %d: %s", path, code, want, body)
		}
	}
	for _, body := range []string{`{`, `[]`, `{"to":1,"message":"m"}`, `{"to":"x"}`, `{"to":"x","to":"y","message":"m"}`, `{"message":"m"}`, ""} {
		if code, said := c.b.raw(t, "POST", "/v1/send", body); code != 400 {
			t.Errorf("POST /v1/send %s: %d %s", body, code, said)
		}
	}
	if code, said := c.b.raw(t, "POST", "/v1/send", `{"to":"x","message":"`+strings.Repeat("m", 2<<20)+`"}`); code != 413 {
		t.Errorf("2 MiB: %d %s", code, said)
	}
}

func (c *couple) apiInbox(t *testing.T, get func(string, ...string) string) {
	text := "read by the API"
	c.sa.run("send", c.b.member.PublicKey, text, "-wait", "delivered").exits(0)
	m := c.arrives(t, c.sb, text)
	id := fmt.Sprint(m["id"])
	get("/v1/inbox?limit=1", text, `"marked_seen":0`)
	get("/v1/inbox?unread_only=true", text) // a look does not mark
	if code, body := c.b.raw(t, "POST", "/v1/inbox/seen", fmt.Sprintf(`{"ids":[%q]}`, id)); code != 200 || !strings.Contains(body, `"marked_seen":1`) {
		t.Errorf("seen: %d %s", code, body)
	}
	if body := get("/v1/inbox?unread_only=true"); strings.Contains(body, text) {
		t.Errorf("seen, and unread: %s", body)
	}
	c.sa.run("send", c.b.member.PublicKey, "marked by reading", "-wait", "delivered").exits(0)
	c.arrives(t, c.sb, "marked by reading")
	get("/v1/inbox?limit=1&mark_seen=true", "marked by reading", `"marked_seen":1`)
	if code, body := c.b.raw(t, "DELETE", "/v1/inbox/"+id, ""); code != 200 || !strings.Contains(body, id) {
		t.Errorf("delete: %d %s", code, body)
	}
	if code, _ := c.b.raw(t, "DELETE", "/v1/inbox/"+id, ""); code != 404 {
		t.Errorf("delete again: %d", code)
	}
	if code, _ := c.b.raw(t, "DELETE", "/v1/inbox", ""); code != 400 {
		t.Errorf("DELETE /v1/inbox without before: %d", code)
	}
	before := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	if code, body := c.b.raw(t, "DELETE", "/v1/inbox?before="+before, ""); code != 200 || strings.Contains(body, `"removed":0`) {
		t.Errorf("prune: %d %s", code, body)
	}
	if rows := messages(c.sb); len(rows) != 0 {
		t.Errorf("left: %v", rows)
	}
}

// metric reads one number of GET /metrics; -1 if it is not there.
func (c *couple) metric(t *testing.T, d *daemon, series string) float64 {
	t.Helper()
	code, body := d.raw(t, "GET", "/metrics", "")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(body)
	if code != 200 || found == nil {
		return -1
	}
	v, err := strconv.ParseFloat(found[1], 64)
	must(t, err)
	return v
}

// metrics: each number follows what happens.
func (c *couple) metrics(t *testing.T) {
	for series, want := range map[string]float64{
		`meshhost_mesh_connected{mesh="team"}`: 1, `meshhost_plugin_ready{kind="push_handler",plugin="inbox"}`: 1,
		`meshhost_plugin_starts_total{kind="outbox",plugin="sqlite"}`: 1, `meshhost_plugin_crashes_total{kind="outbox",plugin="sqlite"}`: 0,
		`meshhost_push_waiting{handler="inbox"}`: 0, `meshhost_pushes_dropped_total`: 0, `meshhost_push_dead_letters_total`: 0,
		`meshhost_pushes_refused_total`: 0, `meshhost_pushes_echoed_total`: 0, `meshhost_pushes_undecryptable_total`: 0,
		`meshhost_pushes_queued`: 0,
	} {
		if got := c.metric(t, c.b, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	names := []string{"meshhost_pushes_received_total", "meshhost_pushes_stored_total", "meshhost_pushes_acked_total"}
	before := map[string]float64{}
	for _, n := range names {
		before[n] = c.metric(t, c.b, n)
	}
	done := `meshhost_outbox_messages{outbox="sqlite",state="delivered"}`
	was := max(c.metric(t, c.a, done), 0)
	c.sa.run("send", c.b.member.PublicKey, "counted", "-wait", "delivered").exits(0)
	c.arrives(t, c.sb, "counted")
	for _, n := range names {
		if now := c.metric(t, c.b, n); now < before[n]+1 || before[n] < 1 {
			t.Errorf("%s was %v, is %v", n, before[n], now)
		}
	}
	if now := c.metric(t, c.a, done); now < was+1 { // what was sent before may be learned meanwhile
		t.Errorf("%s was %v, is %v", done, was, now)
	}
	if c.metric(t, c.a, `meshhost_outbox_bytes{outbox="sqlite"}`) < 0 || c.metric(t, c.b, "meshhost_pushes_duplicate_total") < 0 {
		t.Error("a series is missing")
	}
	// What a frozen handler has not taken is in the journal.
	inbox := c.b.pluginPID("push_handler", "inbox")
	freeze(t, inbox)
	c.sa.run("send", c.b.member.PublicKey, "journaled", "-wait", "delivered").exits(0)
	rows, size := c.metric(t, c.b, "meshhost_journal_rows"), c.metric(t, c.b, "meshhost_journal_bytes")
	if waiting := c.metric(t, c.b, `meshhost_push_waiting{handler="inbox"}`); rows < 1 || size < 1 || waiting < 1 {
		t.Errorf("while the handler is frozen: %v rows, %v bytes, %v waiting", rows, size, waiting)
	}
	thaw(t, inbox)
	c.arrives(t, c.sb, "journaled")
	await(t, 10*time.Second, "the journal is empty", func() error {
		if n := c.metric(t, c.b, "meshhost_journal_rows"); n != 0 {
			return fmt.Errorf("it has %v rows", n)
		}
		return nil
	})
}

// gates: the API is for local programs of this user alone.
func (c *couple) gates(t *testing.T) {
	for _, g := range []struct {
		header []string
		want   int
	}{
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "127.0.0.1:1"}, 200},
		{[]string{"Origin", "http://localhost"}, 403},
		{[]string{"Origin", "null"}, 403},
	} {
		if code, body := c.b.raw(t, "GET", "/v1/status", "", g.header...); code != g.want {
			t.Errorf("%v: %d %.80s", g.header, code, body)
		}
	}
}
