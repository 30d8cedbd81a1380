package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// recorder is a Services that remembers who asked for what.
type recorder struct {
	calls []string
	err   error
	panic bool
}

func (r *recorder) note(c Caller, format string, args ...any) error {
	if r.panic {
		panic("host bug")
	}
	r.calls = append(r.calls, c.Space()+" "+fmt.Sprintf(format, args...))
	return r.err
}

func (r *recorder) Request(_ context.Context, c Caller, q sdk.FrameRequest) (jsontext.Value, error) {
	return jsontext.Value(`{"ok":true}`), r.note(c, "request %s", q.Frame)
}

func (r *recorder) Notify(_ context.Context, c Caller, q sdk.FrameRequest) error {
	return r.note(c, "notify %s", q.Frame)
}

func (r *recorder) Send(_ context.Context, c Caller, q sdk.SendRequest) (sdk.SendReply, error) {
	return sdk.SendReply{ID: "1"}, r.note(c, "send %s", q.To)
}

func (r *recorder) Peers(_ context.Context, c Caller, q sdk.PeersRequest) (sdk.PeerView, error) {
	return sdk.PeerView{Warnings: []string{"w"}}, r.note(c, "peers %s", q.Mesh)
}

func (r *recorder) Emit(_ context.Context, c Caller, kind string, data jsontext.Value) error {
	return r.note(c, "emit %s %s", kind, data)
}

func (r *recorder) StoreGet(_ context.Context, c Caller, key string) ([]byte, error) {
	return []byte("v"), r.note(c, "get %s", key)
}

func (r *recorder) StorePut(_ context.Context, c Caller, key string, value []byte) error {
	return r.note(c, "put %s %d", key, len(value))
}

func (r *recorder) StoreDelete(_ context.Context, c Caller, key string) error {
	return r.note(c, "delete %s", key)
}

func (r *recorder) StoreList(_ context.Context, c Caller, prefix string) ([]string, error) {
	return []string{"k"}, r.note(c, "list %s", prefix)
}

func TestGrants(t *testing.T) {
	frame := func(typ string) func(sdk.Host) error {
		return func(h sdk.Host) error {
			_, err := h.Request(t.Context(), sdk.FrameRequest{Frame: jsontext.Value(`{"type":"` + typ + `"}`)})
			if nerr := h.Notify(t.Context(), sdk.FrameRequest{Frame: jsontext.Value(`{"type":"` + typ + `"}`)}); (err == nil) != (nerr == nil) {
				t.Errorf("%s: Request says %v, Notify %v", typ, err, nerr)
			}
			return err
		}
	}
	raw := func(f string) func(sdk.Host) error {
		return func(h sdk.Host) error {
			_, err := h.Request(t.Context(), sdk.FrameRequest{Frame: jsontext.Value(f)})
			return err
		}
	}
	send := func(msg, id string) func(sdk.Host) error {
		return func(h sdk.Host) error {
			_, err := h.Send(t.Context(), sdk.SendRequest{To: "a", Message: msg, ClientMessageID: id})
			return err
		}
	}
	guarded := []string{"kick", "ban", "unban", "disconnect", "vault_get", "mcp_call", "mesh_execute", "graph_execute", "apikey_create", "peer_file_read", "peer_dir_list"}
	hosts := []string{"hello", "session_hello", "send", "client_ack"}
	declared := append(append([]string{"get_state", "vaults"}, guarded...), hosts...)

	type row struct {
		name  string
		allow []string
		call  func(sdk.Host) error
		want  sdk.Code // empty: goes through
	}
	rows := []row{
		{"declared", nil, frame("get_state"), ""},
		{"not declared", nil, frame("set_state"), sdk.CodePermission},
		{"allowed but not declared", []string{"set_state"}, frame("set_state"), sdk.CodePermission},
		{"near a guarded name", nil, frame("vaults"), ""},
		{"no type", nil, raw(`{"a":1}`), sdk.CodeInvalid},
		{"empty type", nil, raw(`{"type":""}`), sdk.CodeInvalid},
		{"type of another type", nil, raw(`{"type":5}`), sdk.CodeInvalid},
		{"two types", nil, raw(`{"type":"get_state","type":"kick"}`), sdk.CodeInvalid},
		{"other case", nil, raw(`{"Type":"get_state"}`), sdk.CodeInvalid},
		{"array", nil, raw(`["type"]`), sdk.CodeInvalid},
		{"not JSON", nil, raw(`{"type":"get_state"`), sdk.CodeInvalid},
		{"nothing", nil, raw(``), sdk.CodeInvalid},
		{"too large", nil, raw(`{"type":"get_state","v":"` + strings.Repeat("x", maxFrame) + `"}`), sdk.CodeInvalid},
		{"send without grant", nil, send("hi", ""), sdk.CodePermission},
		{"send with another grant", []string{"kick"}, send("hi", ""), sdk.CodePermission},
		{"send with a star", []string{"*"}, send("hi", ""), sdk.CodePermission},
		{"send with grant", []string{"send"}, send("hi", ""), ""},
		{"send too large", []string{"send"}, send(strings.Repeat("x", maxMessage+1), ""), sdk.CodeInvalid},
		{"send with a long id", []string{"send"}, send("x", strings.Repeat("x", 129)), sdk.CodeInvalid},
		{"peers", nil, func(h sdk.Host) error { _, err := h.Peers(t.Context(), sdk.PeersRequest{}); return err }, ""},
		{"emit", nil, func(h sdk.Host) error { return h.Emit(t.Context(), "seen", nil) }, ""},
		{"emit with an odd kind", nil, func(h sdk.Host) error { return h.Emit(t.Context(), "a b\n", nil) }, sdk.CodeInvalid},
		{"emit without a kind", nil, func(h sdk.Host) error { return h.Emit(t.Context(), "", nil) }, sdk.CodeInvalid},
		{"emit too large", nil, func(h sdk.Host) error {
			return h.Emit(t.Context(), "x", jsontext.Value(`"`+strings.Repeat("x", maxEvent)+`"`))
		}, sdk.CodeInvalid},
		{"put", nil, func(h sdk.Host) error { return h.StorePut(t.Context(), "k", make([]byte, maxStoreItem)) }, ""},
		{"put too large", nil, func(h sdk.Host) error { return h.StorePut(t.Context(), "k", make([]byte, maxStoreItem+1)) }, sdk.CodeInvalid},
		{"long key", nil, func(h sdk.Host) error { return h.StoreDelete(t.Context(), strings.Repeat("k", 513)) }, sdk.CodeInvalid},
		{"no key", nil, func(h sdk.Host) error { _, err := h.StoreGet(t.Context(), ""); return err }, sdk.CodeInvalid},
		{"list all", nil, func(h sdk.Host) error { _, err := h.StoreList(t.Context(), ""); return err }, ""},
	}
	for _, g := range guarded {
		rows = append(rows,
			row{g + " without grant", nil, frame(g), sdk.CodePermission},
			row{g + " with a star", []string{"*"}, frame(g), sdk.CodePermission},
			row{g + " with grant", []string{g}, frame(g), ""})
	}
	rows = append(rows, row{"vault_get by its family", []string{"vault_*"}, frame("vault_get"), ""})
	for _, f := range hosts {
		rows = append(rows, row{f + " even if allowed", []string{f, "send"}, frame(f), sdk.CodePermission})
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			rec := &recorder{}
			s := Spec{Kind: sdk.KindFeature, Name: "state", Allow: r.allow, Services: rec}.withDefaults()
			err := r.call(newGranted(&s, sdk.Description{Frames: declared}))
			var e *sdk.Error
			switch {
			case r.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case r.want == "" && (len(rec.calls) == 0 || !strings.HasPrefix(rec.calls[0], "feature-state ")):
				t.Fatalf("calls %v", rec.calls)
			case r.want != "" && (!errors.As(err, &e) || e.Code != r.want || len(rec.calls) > 0):
				t.Fatalf("got %v, calls %v; want %s", err, rec.calls, r.want)
			}
		})
	}
}

func TestHostServicesHideTheHostsErrors(t *testing.T) {
	s := Spec{Kind: sdk.KindFeature, Name: "x", Services: &recorder{err: errors.New("/home/me/secret.key: no such file")}}.withDefaults()
	err := newGranted(&s, sdk.Description{}).StorePut(t.Context(), "k", nil)
	if !errors.Is(err, sdk.ErrInternal) || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
	s.Services = &recorder{err: sdk.Errorf(sdk.CodeFull, "keys", "10,000 keys are there already")}
	if err := newGranted(&s, sdk.Description{}).StorePut(t.Context(), "k", nil); !errors.Is(err, sdk.ErrFull) {
		t.Fatalf("got %v", err)
	}
	s.Services = nil
	if err := newGranted(&s, sdk.Description{}).StorePut(t.Context(), "k", nil); !errors.Is(err, sdk.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

func TestHostServicesAreLimitedInRate(t *testing.T) {
	s := Spec{Kind: sdk.KindFeature, Name: "x", Services: &recorder{}}.withDefaults()
	g := newGranted(&s, sdk.Description{})
	var refused error
	for range serviceBurst * 2 {
		if refused = g.StoreDelete(t.Context(), "k"); refused != nil {
			break
		}
	}
	var e *sdk.Error
	if !errors.As(refused, &e) || e.Code != sdk.CodeFull || e.RetryAfter <= 0 {
		t.Fatalf("got %v", refused)
	}
}

func TestTheTokenIsTheKeyAndEndsWithTheProcess(t *testing.T) {
	dir := t.TempDir()
	rec := &recorder{}
	s := Spec{Kind: sdk.KindFeature, Name: "x", Services: rec}.withDefaults()
	h, err := startHostServer(dir, newGranted(&s, sdk.Description{}), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer h.stop()
	info, err := os.Stat(h.address)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v %v", info, err)
	}
	if len(h.token) != 64 {
		t.Fatalf("token of %d hex digits", len(h.token))
	}
	try := func(token string) error {
		host, c, err := bridge.DialHost(h.address, token)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return host.StorePut(t.Context(), "k", []byte("v"))
	}
	for _, bad := range []string{"", "x", h.token[:63], h.token + "0", strings.ToUpper(h.token) + " "} {
		if err := try(bad); !errors.Is(err, sdk.ErrPermission) {
			t.Fatalf("token %q: %v", bad, err)
		}
	}
	if err := try(h.token); err != nil {
		t.Fatal(err)
	}
	rec.panic = true
	if err := try(h.token); !errors.Is(err, sdk.ErrInternal) || strings.Contains(err.Error(), "bug") {
		t.Fatalf("a panic of the host became %v", err)
	}
	rec.panic = false
	h.revoked.Store(true)
	if err := try(h.token); !errors.Is(err, sdk.ErrPermission) {
		t.Fatalf("after revocation: %v", err)
	}
	h.stop()
	if _, err := os.Stat(h.address); !os.IsNotExist(err) {
		t.Fatalf("the socket is left: %v", err)
	}
}

func TestHostServicesTakeNoStreams(t *testing.T) {
	s := Spec{Kind: sdk.KindFeature, Name: "x"}.withDefaults()
	h, err := startHostServer(t.TempDir(), newGranted(&s, sdk.Description{}), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer h.stop()
	conn, err := grpc.NewClient("unix:"+filepath.Clean(h.address), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	st, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x/y")
	if err == nil {
		err = st.RecvMsg(nil)
	}
	if err == nil {
		t.Fatal("a stream was served")
	}
}
