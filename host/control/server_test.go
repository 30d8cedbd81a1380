package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// ask sends one request through the client's connection and returns the answer.
func (ts *testServer) ask(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header[header[i]] = []string{header[i+1]}
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := ts.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// holds reports whether every member of want is in got; a null in want means
// null in got.
func holds(got, want string) error {
	var g, w map[string]jsontext.Value
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		return fmt.Errorf("not an object: %s", got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		return err
	}
	for name, v := range w {
		if name == "*" {
			continue
		}
		a, b := g[name].Clone(), v.Clone()
		if a == nil {
			return fmt.Errorf("%s is missing in %s", name, got)
		}
		a.Canonicalize()
		b.Canonicalize()
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s is %s, want %s", name, a, b)
		}
	}
	return nil
}

var entry = sdk.Entry{
	ID: "e1", ClientMessageID: "c1", Mesh: "team", Sender: "member", Target: "ab12", Priority: "next",
	EnqueuedAt: time.UnixMilli(1700000000000), DueAt: time.UnixMilli(1700000001000), NotAfter: time.UnixMilli(1700604800000),
	State: sdk.StatePending, Attempts: 2, LastError: "rate_limit", Seq: 7, Body: []byte("sealed"),
}

func entryIn(s sdk.EntryState) *sdk.Entry {
	e := entry
	e.State = s
	return &e
}

func TestRoutesAnswer(t *testing.T) {
	echo := func(feature string, c sdk.Call) (jsontext.Value, error) {
		return jsontext.Value(fmt.Sprintf(`{"feature":%q,"method":%q,"mesh":%q,"params":%s}`, feature, c.Method, c.Mesh, c.Params)), nil
	}
	answer := func(want, result string) func(string, sdk.Call) (jsontext.Value, error) {
		return func(feature string, c sdk.Call) (jsontext.Value, error) {
			if got := feature + " " + c.Method + " " + c.Mesh + " " + string(c.Params); got != want {
				return nil, fmt.Errorf("called %s, want %s", got, want)
			}
			return jsontext.Value(result), nil
		}
	}
	status := Status{
		Version: "1.2.3", Meshes: []MeshStatus{{Name: "team", State: MeshOpen}, {Name: "lab", State: MeshReconnecting}},
		Plugins: []PluginStatus{{Kind: sdk.KindOutbox, Name: "sqlite", State: PluginReady, PID: 4}},
	}
	for _, c := range []struct {
		name         string
		rooms        fake
		method, path string
		body         string
		status       int
		want         string
	}{
		{"version", fake{}, "GET", "/v1/version", "", 200, `{"daemon_version":"1.2.3","ipc_api":"v1","schema_version":1}`},
		{"health", fake{status: status}, "GET", "/v1/health", "", 200, `{"ok":true,"brokers":{"team":"open","lab":"reconnecting"}}`},
		{
			"health of a rejected mesh",
			fake{status: Status{Meshes: []MeshStatus{{Name: "team", State: MeshRejected}}}},
			"GET", "/v1/health", "", 200, `{"ok":true,"brokers":{"team":"closed"}}`,
		},
		{"status", fake{status: status}, "GET", "/v1/status", "", 200, `{"version":"1.2.3","meshes":[{"name":"team","state":"open"},{"name":"lab","state":"reconnecting"}]}`},
		{"reload", fake{}, "POST", "/v1/reload", "", 200, `{"changes":[{"block":"outbox \"b\"","change":"added"}],"warnings":[]}`},
		{"plugins", fake{status: status}, "GET", "/v1/plugins", "", 200, `{"plugins":[{"kind":"outbox","name":"sqlite","state":"ready","pid":4,"restarts":0}]}`},
		{
			"peers keep the wire's fields",
			fake{peers: func(mesh string, all bool) (sdk.PeerView, error) {
				return sdk.PeerView{
					Peers: []sdk.Peer{{
						Mesh: "team", Role: "session", Wire: jsontext.Value(`{"pubkey":"ab","role":"free text","peerRole":"session","new":{"x":1}}`),
						Annotations: map[string]string{"k": "v"},
					}},
					Hidden:   []sdk.HiddenCount{{Filter: "role", Reason: "control-plane", Count: 2}},
					Warnings: []string{mesh, fmt.Sprint(all)},
				}, nil
			}},
			"GET", "/v1/peers?mesh=team&all=true", "", 200,
			`{"peers":[{"pubkey":"ab","peerRole":"session","new":{"x":1},"mesh":"team","role":"session","annotations":{"k":"v"}}],"hidden":[{"filter":"role","reason":"control-plane","count":2}],"warnings":["team","true"]}`,
		},
		{
			"peers of no mesh",
			fake{peers: func(mesh string, all bool) (sdk.PeerView, error) {
				return sdk.PeerView{Peers: []sdk.Peer{{Mesh: "m", Role: "session", PubKey: "k"}}}, nil
			}},
			"GET", "/v1/peers", "", 200,
			`{"hidden":[],"warnings":[],"peers":[{"pubkey":"k","memberPubkey":"","displayName":"","status":"","summary":null,"groups":[],"sessionId":"","cwd":"","peerRole":"session","mesh":"m","role":"session"}]}`,
		},
		{
			"outbox list",
			fake{inflight: []string{"e1"}, list: func(r sdk.ListRequest) (sdk.ListPage, error) {
				if r.Limit != 50 || len(r.States) != 0 {
					return sdk.ListPage{}, fmt.Errorf("request %+v", r)
				}
				return sdk.ListPage{Entries: []sdk.Entry{entry}, Next: "n"}, nil
			}},
			"GET", "/v1/outbox", "", 200,
			`{"next":"n","items":[{"id":"e1","client_message_id":"c1","status":"inflight","state":"pending","mesh":"team","sender":"member","target":"ab12","priority":"next","attempts":2,"enqueued_at":"2023-11-14T22:13:20Z","next_attempt_at":"2023-11-14T22:13:21Z","not_after":"2023-11-21T22:13:20Z","accepted_at":null,"delivered_at":null,"broker_message_id":null,"last_error":"rate_limit","payload_bytes":6,"seq":7}]}`,
		},
		{"outbox pending leaves out what is in flight", fake{inflight: []string{"e1"}, list: func(r sdk.ListRequest) (sdk.ListPage, error) {
			if fmt.Sprint(r.States) != "[pending waiting]" || r.Limit != 500 || r.Mesh != "team" {
				return sdk.ListPage{}, fmt.Errorf("request %+v", r)
			}
			return sdk.ListPage{Entries: []sdk.Entry{entry}}, nil
		}}, "GET", "/v1/outbox?status=pending&limit=9999&mesh=team", "", 200, `{"items":[]}`},
		{"outbox inflight", fake{inflight: []string{"e0", "e1"}, get: func(id string) (*sdk.Entry, bool, error) {
			if id == "e0" {
				return nil, false, sdk.ErrNotFound
			}
			return &entry, true, nil
		}}, "GET", "/v1/outbox?status=inflight", "", 200, `{"*":1}`},
		{
			"outbox show",
			fake{get: func(id string) (*sdk.Entry, bool, error) { return &entry, false, nil }},
			"GET", "/v1/outbox/e1", "", 200, `{"id":"e1","status":"pending"}`,
		},
		{
			"outbox wait",
			fake{wait: func(_ context.Context, id string, s sdk.EntryState) (*sdk.Entry, error) { return entryIn(s), nil }},
			"GET", "/v1/outbox/e1/wait?state=delivered", "", 200, `{"status":"done","state":"delivered"}`,
		},
		{
			"outbox trace",
			fake{trace: func(id string) (*MessageTrace, error) {
				return &MessageTrace{
					Entry: &sdk.Entry{ID: id, State: sdk.StatePending}, InFlight: true, Outbox: id,
					Hops: []TraceHop{{Hop: "stored", FromRow: true}}, Next: TraceNext{What: "turn", Detail: "it goes"},
				}, nil
			}},
			"GET", "/v1/outbox/my%2Fkey/trace", "", 200,
			`{"outbox":"my/key","durable":false,"hops":[{"at":null,"hop":"stored","from_row":true}],"next":{"what":"turn","detail":"it goes","at":null}}`,
		},
		{
			"trace of what the outbox has not",
			fake{trace: func(id string) (*MessageTrace, error) { return &MessageTrace{Earlier: "e"}, nil }},
			"GET", "/v1/outbox/e1/trace", "", 200, `{"message":null,"hops":[],"earlier":"e"}`,
		},
		{
			"requeue",
			fake{requeue: func(id string) (*sdk.Entry, error) { return &entry, nil }},
			"POST", "/v1/outbox/requeue", `{"id":"e1"}`, 200, `{"id":"e1","client_message_id":"c1","status":"pending"}`,
		},
		{"cancel", fake{cancel: func(id string) error { return nil }}, "POST", "/v1/outbox/cancel", `{"id":"e1"}`, 200, `{"id":"e1","status":"aborted"}`},
		{
			"features",
			fake{features: []Feature{{Name: "state", State: "ready", Methods: []sdk.Method{{Name: "get", Params: jsontext.Value(`{"type":"object"}`)}}}}},
			"GET", "/v1/features", "", 200, `{"features":[{"name":"state","plugin":"","state":"ready","methods":[{"name":"get","params":{"type":"object"}}]}]}`,
		},
		{
			"feature call",
			fake{call: echo},
			"POST", "/v1/features/state/get?mesh=lab", `{"key":"k"}`, 200,
			`{"feature":"state","method":"get","mesh":"lab","params":{"key":"k"}}`,
		},
		{"feature call without parameters", fake{call: echo}, "POST", "/v1/features/state/list", "", 200, `{"params":{}}`},
		{
			"state get",
			fake{call: answer(`state get lab {"key":"k"}`, `{"key":"k","value":[1],"updated_by":"bob","updated_at":"t"}`)},
			"GET", "/v1/state?key=k&mesh=lab", "", 200, `{"state":{"key":"k","value":[1],"updatedBy":"bob","updatedAt":"t","mesh":"lab"}}`,
		},
		{
			"state list",
			fake{call: answer(`state list  {}`, `{"entries":[{"key":"k","value":null,"mesh":"team"}]}`)},
			"GET", "/v1/state", "", 200, `{"entries":[{"key":"k","value":null,"updatedBy":"","updatedAt":"","mesh":"team"}]}`,
		},
		{
			"state set",
			fake{call: answer(`state set team {"key":"k","value":{"a":1}}`, `{"mesh":"team"}`)},
			"POST", "/v1/state", `{"key":"k","value":{"a":1},"mesh":"team"}`, 200, `{"ok":true,"key":"k","mesh":"team"}`,
		},
		{
			"inbox",
			fake{call: answer(`inbox list team {"from":"bob","limit":5,"unread":true}`, `{"messages":[{"id":"m1","body":"hi"}]}`)},
			"GET", "/v1/inbox?mesh=team&limit=5&unread_only=true&from=bob", "", 200,
			`{"items":[{"id":"m1","body":"hi","client_message_id":null,"broker_message_id":null,"mesh":null,"topic":null,"sender_pubkey":null,"sender_name":null,"received_at":null,"reply_to_id":null,"seen_at":null,"recipient_pubkey":null,"recipient_kind":null}],"marked_seen":0}`,
		},
		{
			"inbox seen",
			fake{call: answer(`inbox seen  {"ids":["a","b"]}`, `{"marked_seen":2}`)},
			"POST", "/v1/inbox/seen", `{"ids":["a","b"]}`, 200, `{"marked_seen":2}`,
		},
		{
			"inbox prune",
			fake{call: answer(`inbox prune team {"before":"2026-01-01T00:00:00Z"}`, `{"removed":3}`)},
			"DELETE", "/v1/inbox?before=2026-01-01T00:00:00Z&mesh=team", "", 200, `{"removed":3}`,
		},
		{"inbox delete", fake{call: answer(`inbox delete  {"id":"m1"}`, `{"removed":1}`)}, "DELETE", "/v1/inbox/m1", "", 200, `{"removed":1,"id":"m1"}`},
		{
			"profile",
			fake{status: status, call: echo},
			"POST", "/v1/profile", `{"summary":"s","title":"t"}`, 200,
			`{"ok":true,"applied":["summary","title"],"meshes":["team","lab"]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, &c.rooms)
			got, body := ts.ask(t, c.method, c.path, c.body)
			if got != c.status {
				t.Fatalf("%s %s: %d %s; want %d", c.method, c.path, got, body, c.status)
			}
			if err := holds(body, c.want); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMarkSeenOnlyWhenAsked(t *testing.T) {
	var calls []string
	f := &fake{call: func(feature string, c sdk.Call) (jsontext.Value, error) {
		calls = append(calls, c.Method+string(c.Params))
		if c.Method == "seen" {
			return jsontext.Value(`{"marked_seen":1}`), nil
		}
		return jsontext.Value(`{"messages":[{"id":"m1"}]}`), nil
	}}
	ts := start(t, f)
	ts.ask(t, "GET", "/v1/inbox", "")
	if len(calls) != 1 {
		t.Fatalf("a plain GET called %v", calls)
	}
	_, body := ts.ask(t, "GET", "/v1/inbox?mark_seen=true", "")
	if err := holds(body, `{"marked_seen":1}`); err != nil || calls[2] != `seen{"ids":["m1"]}` {
		t.Errorf("mark_seen=true called %v: %v", calls, err)
	}
}

func TestErrorsHaveOneForm(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		want   string
	}{
		{sdk.Errorf(sdk.CodeInvalid, "message_too_large", "too large"), 400, `{"error":"message_too_large","message":"too large","next":"correct the request; docs/api.md has the fields of each route"}`},
		{sdk.Errorf(sdk.CodeInvalid, "", "x").WithNext("do y"), 400, `{"error":"invalid","next":"do y"}`},
		{sdk.Errorf(sdk.CodeNotFound, "state_not_found", "x"), 404, `{"error":"state_not_found"}`},
		{sdk.Errorf(sdk.CodeConflict, "in_flight", "x"), 409, `{"error":"in_flight"}`},
		{sdk.Errorf(sdk.CodeUnavailable, "outbox_unavailable", "x"), 503, `{"error":"outbox_unavailable"}`},
		{sdk.Errorf(sdk.CodeUnavailable, "route_failed", "x"), 502, `{"error":"route_failed"}`},
		{sdk.Errorf(sdk.CodePermission, "", "x"), 403, `{"error":"permission"}`},
		{sdk.Errorf(sdk.CodeFenced, "", "x"), 503, `{"error":"fenced"}`},
		{sdk.Errorf(sdk.CodeSealed, "", "x"), 503, `{"error":"sealed"}`},
		{sdk.Errorf(sdk.CodeTimeout, "", "x"), 504, `{"error":"timeout"}`},
		{sdk.Errorf(sdk.CodeFull, "outbox_full", "x"), 503, `{"error":"outbox_full"}`},
		{sdk.Errorf(sdk.CodeInternal, "", "x"), 500, `{"error":"internal"}`},
		{fmt.Errorf("append: %w", sdk.Errorf(sdk.CodeFull, "", "no room")), 503, `{"error":"full","message":"append: no room"}`},
		{
			&Conflict{Kind: "outbox_dead_fingerprint_match", FingerprintPrefix: "0123456789abcdef"}, 409,
			`{"error":"idempotency_key_reused","conflict":"outbox_dead_fingerprint_match","daemon_fingerprint_prefix":"0123456789abcdef","broker_message_id":null}`,
		},
		{&Conflict{Kind: "outbox_done_fingerprint_mismatch", BrokerMessageID: "b"}, 409, `{"broker_message_id":"b"}`},
		{
			&Ambiguous{Target: "bob", Candidates: []Candidate{{Mesh: "team", PubKey: "aa"}, {Mesh: "team", PubKey: "bb"}}}, 409,
			`{"error":"ambiguous_target","candidates":[{"mesh":"team","pubkey":"aa"},{"mesh":"team","pubkey":"bb"}]}`,
		},
		{&MeshRequired{Attached: []string{"a", "b"}}, 400, `{"error":"mesh_required","attached":["a","b"]}`},
		{&UnknownOutcome{ClientMessageID: "c1", Err: io.ErrUnexpectedEOF}, 503, `{"error":"outcome_unknown","client_message_id":"c1"}`},
		{&Problem{Status: 418, Code: "tea", Message: "m", Next: "n"}, 418, `{"error":"tea","message":"m","next":"n"}`},
		{context.DeadlineExceeded, 504, `{"error":"timeout"}`},
		{fmt.Errorf("call: %w", context.Canceled), 503, `{"error":"stopping"}`},
		{errors.New("pipe \xff broke"), 500, `{"error":"internal","message":"pipe \ufffd broke"}`},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			ts := start(t, &fake{send: func(SendRequest) (SendReply, error) { return SendReply{}, c.err }})
			status, body := ts.ask(t, "POST", "/v1/send", `{"to":"bob","message":"hi"}`)
			if status != c.status {
				t.Fatalf("status %d (%s), want %d", status, body, c.status)
			}
			if err := holds(body, c.want); err != nil {
				t.Error(err)
			}
			if strings.Contains(body, `"next":""`) {
				t.Errorf("no next step in %s", body)
			}
		})
	}
}

func TestRetryAfterIsWholeSecondsRoundedUp(t *testing.T) {
	e := sdk.Errorf(sdk.CodeUnavailable, "", "x")
	e.RetryAfter = 1200 * time.Millisecond
	ts := start(t, &fake{send: func(SendRequest) (SendReply, error) { return SendReply{}, e }})
	resp, err := ts.client.http.Post("http://localhost/v1/send", "", strings.NewReader(`{"to":"a","message":""}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After is %q, want 2", got)
	}
}

func TestBadRequestsAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     string
	}{
		{"no route", "GET", "/v1/nothing", "", nil, 404, "not_found"},
		{"no route below a prefix", "GET", "/v1/outbox/a/b", "", nil, 404, "not_found"},
		{"no route of a feature", "POST", "/v1/features/state", "", nil, 404, "not_found"},
		{"double slash", "GET", "//v1/version", "", nil, 404, "not_found"},
		{"wrong method", "DELETE", "/v1/send", "", nil, 405, "method_not_allowed"},
		{"token in the query", "GET", "/v1/version?token=x", "", nil, 400, "token_in_query"},
		{"foreign host", "GET", "/v1/version", "", []string{"Host", "evil.example"}, 403, "bad_host"},
		{"foreign host with a port", "GET", "/v1/version", "", []string{"Host", "evil.example:80"}, 403, "bad_host"},
		{"origin", "GET", "/v1/version", "", []string{"Origin", "http://localhost"}, 403, "origin_refused"},
		{"empty origin", "GET", "/v1/version", "", []string{"Origin", ""}, 403, "origin_refused"},
		{"send: no body", "POST", "/v1/send", "", nil, 400, "invalid_json"},
		{"send: no JSON", "POST", "/v1/send", "{", nil, 400, "invalid_json"},
		{"send: two objects", "POST", "/v1/send", "{}{}", nil, 400, "invalid_json"},
		{"send: a name twice", "POST", "/v1/send", `{"to":"a","to":"b","message":"x"}`, nil, 400, "invalid_json"},
		{"send: an unknown name", "POST", "/v1/send", `{"to":"a","message":"x","prio":"now"}`, nil, 400, "invalid_json"},
		{"send: invalid UTF-8", "POST", "/v1/send", "{\"to\":\"a\",\"message\":\"\xff\"}", nil, 400, "invalid_json"},
		{"send: no to", "POST", "/v1/send", `{"message":"x"}`, nil, 400, "missing_field"},
		{"send: no message", "POST", "/v1/send", `{"to":"a"}`, nil, 400, "missing_field"},
		{"send: priority", "POST", "/v1/send", `{"to":"a","message":"x","priority":"high"}`, nil, 400, "bad_priority"},
		{"send: meta", "POST", "/v1/send", `{"to":"a","message":"x","meta":[1]}`, nil, 400, "bad_meta"},
		{"send: too large", "POST", "/v1/send", `{"to":"a","message":"` + strings.Repeat("x", bodySend) + `"}`, nil, 413, "payload_too_large"},
		{"outbox: status", "GET", "/v1/outbox?status=lost", "", nil, 400, "bad_status"},
		{"outbox: limit", "GET", "/v1/outbox?limit=0", "", nil, 400, "bad_limit"},
		{"wait: state", "GET", "/v1/outbox/a/wait?state=dead", "", nil, 400, "bad_state"},
		{"wait: timeout", "GET", "/v1/outbox/a/wait?timeout=never", "", nil, 400, "bad_timeout"},
		{"requeue: no id", "POST", "/v1/outbox/requeue", `{}`, nil, 400, "missing_field"},
		{"requeue: new id", "POST", "/v1/outbox/requeue", `{"id":"a","new_client_message_id":"n"}`, nil, 400, "new_client_message_id_refused"},
		{"requeue: too large", "POST", "/v1/outbox/requeue", `{"id":"` + strings.Repeat("x", bodyOutbox) + `"}`, nil, 413, "payload_too_large"},
		{"cancel: no id", "POST", "/v1/outbox/cancel", `{}`, nil, 400, "missing_field"},
		{"peers: all", "GET", "/v1/peers?all=maybe", "", nil, 400, "bad_all"},
		{"feature: no object", "POST", "/v1/features/state/get", `[1]`, nil, 400, "invalid_json"},
		{"feature: no JSON", "POST", "/v1/features/state/get", `{"a":`, nil, 400, "invalid_json"},
		{"feature: bad reply", "POST", "/v1/features/state/get", `{}`, nil, 502, "bad_plugin_reply"},
		{"state: no value", "POST", "/v1/state", `{"key":"k"}`, nil, 400, "missing_field"},
		{"state: no key", "POST", "/v1/state", `{"value":1}`, nil, 400, "missing_field"},
		{"inbox: limit", "GET", "/v1/inbox?limit=x", "", nil, 400, "bad_limit"},
		{"inbox: seen without ids", "POST", "/v1/inbox/seen", `{}`, nil, 400, "missing_field"},
		{"inbox: prune without before", "DELETE", "/v1/inbox", "", nil, 400, "bad_before"},
		{"profile: nothing", "POST", "/v1/profile", `{}`, nil, 400, "missing_field"},
		{"events: no such mesh", "GET", "/v1/events?mesh=lost", "", nil, 404, "mesh_not_attached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, &fake{call: func(string, sdk.Call) (jsontext.Value, error) { return jsontext.Value(`[]`), nil }})
			status, body := ts.ask(t, c.method, c.path, c.body, c.header...)
			if status != c.status {
				t.Fatalf("status %d (%s), want %d", status, body, c.status)
			}
			if err := holds(body, fmt.Sprintf(`{"error":%q}`, c.code)); err != nil {
				t.Error(err)
			}
			var e struct{ Message, Next string }
			if json.Unmarshal([]byte(body), &e, json.MatchCaseInsensitiveNames(true)) != nil || e.Message == "" || e.Next == "" {
				t.Errorf("no message or next step in %s", body)
			}
		})
	}
}

func TestWhoNamesNoMeshIsToldWhichThereAre(t *testing.T) {
	ts := start(t, &fake{
		status: Status{Meshes: []MeshStatus{{Name: "team"}, {Name: "lab"}}},
		call:   func(_ string, c sdk.Call) (jsontext.Value, error) { return nil, c.NeedMesh() },
	})
	for _, c := range [][3]string{
		{"POST", "/v1/state", `{"key":"k","value":1}`},
		{"GET", "/v1/state", ""},
		{"POST", "/v1/features/state/list", ""},
	} {
		status, body := ts.ask(t, c[0], c[1], c[2])
		if err := holds(body, `{"error":"mesh_required","attached":["team","lab"]}`); status != 400 || err != nil {
			t.Errorf("%s %s: %d %v", c[0], c[1], status, err)
		}
	}
}

func TestARefusalOfAPluginHasANextStepOnEveryRoute(t *testing.T) {
	refuse := func(string, sdk.Call) (jsontext.Value, error) {
		return nil, sdk.Errorf(sdk.CodeInvalid, "bad_params", "list: since is odd")
	}
	for _, c := range [][3]string{
		{"GET", "/v1/inbox?since=x", ""},
		{"DELETE", "/v1/inbox/a", ""},
		{"GET", "/v1/state", ""},
		{"POST", "/v1/profile", `{"mesh":"team","summary":"x"}`},
		{"POST", "/v1/features/inbox/list", `{}`},
	} {
		ts := start(t, &fake{call: refuse})
		status, body := ts.ask(t, c[0], c[1], c[2])
		if err := holds(body, `{"error":"bad_params"}`); status != 400 || err != nil || strings.Contains(body, `"next":""`) {
			t.Errorf("%s %s: %d %s, want a next step", c[0], c[1], status, body)
		}
	}
}

func TestAWrongBodyIsExplainedInTheWordsOfTheAPI(t *testing.T) {
	refuse := func(string, sdk.Call) (jsontext.Value, error) {
		return nil, sdk.Errorf(sdk.CodeInvalid, "bad_params", "get: missing key")
	}
	ts := start(t, &fake{call: refuse})
	for _, c := range []struct{ path, body, message, next string }{
		{"/v1/send", `{"to":"a","prio":"now"}`, `the body: there is no field "prio"`, "send one JSON object with the fields of this route"},
		{"/v1/send", `{"to":5}`, `the body: the field "to" can't be a JSON number`, "send one JSON object with the fields of this route"},
		{"/v1/send", `[]`, `the body: it is not a JSON object`, "send one JSON object with the fields of this route"},
		{"/v1/features/state/get", `{}`, `get: missing key`, "GET /v1/features has the parameters of each method, and so has -h on the command line"},
	} {
		status, body := ts.ask(t, "POST", c.path, c.body)
		if err := holds(body, fmt.Sprintf(`{"message":%q,"next":%q}`, c.message, c.next)); status != 400 || err != nil {
			t.Errorf("%s: %d, %v", c.body, status, err)
		}
	}
}

func TestTheBodyLimitHoldsWithoutContentLength(t *testing.T) {
	ts := start(t, &fake{})
	body := io.MultiReader(strings.NewReader(`{"id":"`), strings.NewReader(strings.Repeat("x", bodyOutbox)))
	resp, err := ts.client.http.Post("http://localhost/v1/outbox/cancel", "", body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", resp.StatusCode)
	}
}

func TestSendFollowsTheTable(t *testing.T) {
	for _, c := range []struct {
		name   string
		reply  SendReply
		status int
		want   string
	}{
		{
			"new",
			SendReply{ID: "e", ClientMessageID: "c", Status: StatusQueued, Durable: true, Resolved: Resolved{Target: "ab", Name: "bob", From: "live"}},
			202,
			`{"client_message_id":"c","id":"e","status":"queued","durable":true,"resolved":{"target":"ab","name":"bob","from":"live"}}`,
		},
		{"in flight", SendReply{ID: "e", ClientMessageID: "c", Status: StatusInflight, Duplicate: true}, 202, `{"status":"inflight","durable":false,"duplicate":true}`},
		{
			"done",
			SendReply{ID: "e", ClientMessageID: "c", Status: StatusDone, Duplicate: true, BrokerMessageID: "b"},
			200,
			`{"client_message_id":"c","broker_message_id":"b","duplicate":true}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, &fake{send: func(SendRequest) (SendReply, error) { return c.reply, nil }})
			status, body := ts.ask(t, "POST", "/v1/send", `{"to":"bob","message":"hi"}`)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if err := holds(body, c.want); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryFieldOfSendReachesTheRoom(t *testing.T) {
	var got SendRequest
	ts := start(t, &fake{send: func(r SendRequest) (SendReply, error) { got = r; return SendReply{}, nil }})
	ts.ask(t, "POST", "/v1/send", `{"to":"bob","message":"hi","priority":"now","meta":{"a":1},"reply_to_id":"r","client_message_id":"c","mesh":"team"}`, "Idempotency-Key", "other")
	want := SendRequest{To: "bob", Message: "hi", Priority: "now", Meta: jsontext.Value(`{"a":1}`), ReplyToID: "r", ClientMessageID: "c", Mesh: "team"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	ts.ask(t, "POST", "/v1/send", `{"to":"bob","message":"","meta":null}`, "Idempotency-Key", "from-header")
	if got.ClientMessageID != "from-header" || got.Meta != nil {
		t.Errorf("got %+v, want the header's key and no meta", got)
	}
}

func TestStatusWords(t *testing.T) {
	for state, want := range map[sdk.EntryState][2]string{
		sdk.StatePending: {"pending", "inflight"}, sdk.StateWaiting: {"pending", "inflight"}, sdk.StateAccepted: {"done", "done"},
		sdk.StateDelivered: {"done", "done"}, sdk.StateDead: {"dead", "dead"}, sdk.StateExpired: {"dead", "dead"}, sdk.StateCancelled: {"aborted", "aborted"},
	} {
		if got := [2]string{statusWord(state, false), statusWord(state, true)}; got != want {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}
