package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/sdk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost counts events; fail makes Emit fail.
type fakeHost struct {
	sdk.Host
	events chan string
	fail   atomic.Bool
}

func (h *fakeHost) Emit(ctx context.Context, kind string, data jsontext.Value) error {
	if h.fail.Load() {
		return errors.New("the host is gone")
	}
	select {
	case h.events <- kind + " " + string(data):
	case <-ctx.Done():
	}
	return nil
}

// bench is a configured plugin.
type bench struct {
	*inbox
	t      testing.TB
	plugin sdk.Plugin
	host   *fakeHost
	dir    string
}

func start(t testing.TB) *bench {
	t.Helper()
	b := &bench{inbox: &inbox{}, t: t, host: &fakeHost{events: make(chan string, 100)}, dir: t.TempDir()}
	b.plugin = b.inbox.plugin()
	b.configure(1000, "720h")
	t.Cleanup(func() {
		if err := b.plugin.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) configure(max int, retention string) {
	b.t.Helper()
	config := fmt.Sprintf(`{"path":%q,"retention":%q,"max_messages":%d}`, filepath.Join(b.dir, "inbox.db"), retention, max)
	d, err := b.plugin.Config.Configure(context.Background(), jsontext.Value(config), sdk.Env{Host: b.host, Logger: hclog.NewNullLogger(), DataDir: b.dir})
	if err != nil || d.HasErrors() {
		b.t.Fatalf("%+v, %v", d, err)
	}
}

const (
	alice = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	bob   = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var t0 = time.UnixMilli(4_000_000_000_000)

// push is the n-th message from Alice to Bob.
func push(n int) sdk.Push {
	client := fmt.Sprintf("client-%04d", n)
	broker := fmt.Sprintf("broker-%04d", n)
	return sdk.Push{
		ID: fmt.Sprintf("push-%04d", n), Mesh: "team", Kind: sdk.PushDirect, Recipient: bob, RecipientKind: "member",
		MessageID: broker, ClientMessageID: client, Sender: alice, SenderName: "Alice", Priority: "next",
		Body: fmt.Appendf(nil, "text %d", n), CreatedAt: t0, ReceivedAt: t0.Add(time.Duration(n) * time.Second), Attempt: 1,
		DedupKeys: []string{"c|team|" + bob + "|" + alice + "|" + client, "b|team|" + bob + "|" + broker},
	}
}

func (b *bench) handle(pushes ...sdk.Push) []sdk.Outcome {
	b.t.Helper()
	out, err := b.Handle(context.Background(), pushes)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(out) != len(pushes) {
		b.t.Fatalf("%d outcomes for %d pushes", len(out), len(pushes))
	}
	return out
}

// acked handles pushes and wants each acked.
func (b *bench) acked(pushes ...sdk.Push) {
	b.t.Helper()
	for i, out := range b.handle(pushes...) {
		if out.Decision != sdk.Ack {
			b.t.Fatalf("push %d: %+v", i, out)
		}
	}
}

// call runs a method with a JSON object and decodes its result.
func call[R any](b *bench, method, params string) (R, error) {
	return callAs[R](b, sdk.Call{Method: method, Params: jsontext.Value(params)})
}

func callAs[R any](b *bench, c sdk.Call) (res R, err error) {
	b.t.Helper()
	raw, err := b.plugin.Feature.Call(context.Background(), c)
	if err != nil {
		return res, err
	}
	if err := json.Unmarshal(raw, &res, json.RejectUnknownMembers(true)); err != nil {
		b.t.Fatalf("%s: result %s: %v", c.Method, raw, err)
	}
	return res, nil
}

// list returns the bodies of a list.
func (b *bench) list(params string) []string {
	b.t.Helper()
	res, err := call[listResult](b, "list", params)
	if err != nil {
		b.t.Fatalf("list %s: %v", params, err)
	}
	bodies := []string{}
	for _, m := range res.Messages {
		bodies = append(bodies, m.Body)
	}
	return bodies
}

func (b *bench) want(params string, bodies ...string) {
	b.t.Helper()
	if got := b.list(params); fmt.Sprint(got) != fmt.Sprint(bodies) {
		b.t.Fatalf("list %s: got %q, want %q", params, got, bodies)
	}
}
