package bridge_test

import (
	"context"
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

// echo is a plugin of all kinds that keeps what it got and answers full values.
type echo struct {
	ops     []sdk.Op
	acquire sdk.AcquireRequest
	release sdk.ReleaseRequest
	fetch   sdk.FetchRequest
	keys    []sdk.MessageKey
	ids     []string
	list    sdk.ListRequest
	prune   sdk.PruneRequest
	stats   sdk.StatsRequest
	scan    sdk.ScanRequest
	brought sdk.ImportRequest
	pushes  []sdk.Push
	query   sdk.PeerQuery
	rows    []sdk.Peer
	up      sdk.Connected
	frames  []sdk.Frame
	call    sdk.Call
}

func (e *echo) Apply(_ context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	e.ops = ops
	return []sdk.OpResult{full[sdk.OpResult](), {Code: sdk.OpStored, Seq: 1}}, nil
}

func (e *echo) Acquire(_ context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	e.acquire = req
	return full[sdk.Lease](), nil
}

func (e *echo) Release(_ context.Context, req sdk.ReleaseRequest) error {
	e.release = req
	return nil
}

func (e *echo) Fetch(_ context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	e.fetch = req
	return full[sdk.FetchResult](), nil
}

func (e *echo) Lookup(_ context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	e.keys = keys
	return []*sdk.Entry{full[*sdk.Entry](), nil}, nil
}

func (e *echo) Get(_ context.Context, ids []string) ([]*sdk.Entry, error) {
	e.ids = ids
	return []*sdk.Entry{nil, full[*sdk.Entry]()}, nil
}

func (e *echo) List(_ context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	e.list = req
	return full[sdk.ListPage](), nil
}

func (e *echo) Stats(_ context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	e.stats = req
	return full[sdk.OutboxStats](), nil
}

func (e *echo) Scan(_ context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	e.scan = req
	for range 2 {
		if err := page(full[sdk.ScanPage]()); err != nil {
			return err
		}
	}
	return sdk.Errorf(sdk.CodeFull, "reason", "the end")
}

func (e *echo) Watch(ctx context.Context, tell func(sdk.WatchEvent) error) error {
	for _, ev := range []sdk.WatchEvent{{Kind: sdk.WatchGap}, full[sdk.WatchEvent]()} {
		if err := tell(ev); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (e *echo) Import(_ context.Context, req sdk.ImportRequest) ([]sdk.OpResult, error) {
	e.brought = req
	return []sdk.OpResult{full[sdk.OpResult]()}, nil
}

func (e *echo) Prune(_ context.Context, req sdk.PruneRequest) (int, error) {
	e.prune = req
	return 7, nil
}

func (e *echo) Handle(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	e.pushes = pushes
	return []sdk.Outcome{full[sdk.Outcome]()}, nil
}

func (e *echo) Filter(_ context.Context, query sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	e.query, e.rows = query, rows
	return []sdk.Verdict{full[sdk.Verdict](), {}}, nil
}

type echoParams struct {
	N int `json:"n" doc:"a number"`
}

func (e *echo) plugin() sdk.Plugin {
	follow := full[sdk.CLI]()
	follow.Args = []string{"n"}
	follow.Follow.Cursor = "n"
	return sdk.Plugin{
		Name: "echo", Version: "1", Doc: "echoes", Durable: true,
		Config:      sdk.Configured(func(context.Context, echoConfig, sdk.Env) error { return nil }, nil),
		Outbox:      e,
		PushHandler: e,
		Wants:       []sdk.Want{full[sdk.Want]()},
		PeerFilter:  e,
		Feature: &sdk.Feature{
			Methods: []sdk.Method{sdk.NewMethod("m", "doc", follow, func(_ context.Context, call sdk.Call, p echoParams) (echoParams, error) {
				e.call = call
				return p, nil
			})},
			Default:   "m",
			Frames:    []string{"f"},
			Watches:   []string{"w"},
			OnConnect: func(_ context.Context, up sdk.Connected) error { e.up = up; return nil },
			OnFrame:   func(_ context.Context, frames []sdk.Frame) error { e.frames = frames; return nil },
		},
	}
}

type echoConfig struct {
	Path   sdk.Path       `mesh:"path" default:"x" doc:"p"`
	Levels map[string]int `mesh:"levels"`
	List   []struct {
		A string   `mesh:"a,required"`
		E sdk.Expr `mesh:"e" variables:"x,y"`
	} `mesh:"list,block,required"`
	Obj struct {
		B bool `mesh:"b"`
	} `mesh:"obj"`
}

func TestNothingIsLostBetweenHostAndOutbox(t *testing.T) {
	e := &echo{}
	box := plugintest.Start(t, e.plugin()).MustConfigure(`{"list":[{"a":"b"}]}`).Outbox()
	ctx := t.Context()

	ops := []sdk.Op{full[sdk.Op](), {Kind: sdk.OpWake, Lane: "l", Target: "t"}}
	results, err := box.Apply(ctx, ops)
	noError(t, err)
	same(t, "ops", e.ops, ops)
	same(t, "results", results, []sdk.OpResult{full[sdk.OpResult](), {Code: sdk.OpStored, Seq: 1}})

	lease, err := box.Acquire(ctx, full[sdk.AcquireRequest]())
	noError(t, err)
	same(t, "acquire", e.acquire, full[sdk.AcquireRequest]())
	same(t, "lease", lease, full[sdk.Lease]())

	noError(t, box.Release(ctx, full[sdk.ReleaseRequest]()))
	same(t, "release", e.release, full[sdk.ReleaseRequest]())

	work, err := box.Fetch(ctx, full[sdk.FetchRequest]())
	noError(t, err)
	same(t, "fetch", e.fetch, full[sdk.FetchRequest]())
	same(t, "work", work, full[sdk.FetchResult]())

	keys := []sdk.MessageKey{full[sdk.MessageKey](), {Mesh: "m"}}
	entries, err := box.Lookup(ctx, keys)
	noError(t, err)
	same(t, "keys", e.keys, keys)
	same(t, "found", entries, []*sdk.Entry{full[*sdk.Entry](), nil})

	entries, err = box.Get(ctx, []string{"a", "b"})
	noError(t, err)
	same(t, "ids", e.ids, []string{"a", "b"})
	same(t, "got", entries, []*sdk.Entry{nil, full[*sdk.Entry]()})

	page, err := box.List(ctx, full[sdk.ListRequest]())
	noError(t, err)
	same(t, "list", e.list, full[sdk.ListRequest]())
	same(t, "page", page, full[sdk.ListPage]())

	stats, err := box.Stats(ctx, full[sdk.StatsRequest]())
	noError(t, err)
	same(t, "stats request", e.stats, full[sdk.StatsRequest]())
	same(t, "stats", stats, full[sdk.OutboxStats]())

	n, err := box.Prune(ctx, full[sdk.PruneRequest]())
	noError(t, err)
	same(t, "prune", e.prune, full[sdk.PruneRequest]())
	same(t, "pruned", n, 7)

	brought, err := box.Import(ctx, full[sdk.ImportRequest]())
	noError(t, err)
	same(t, "import", e.brought, full[sdk.ImportRequest]())
	same(t, "imported", brought, []sdk.OpResult{full[sdk.OpResult]()})
}

func TestNothingIsLostOfTheStreamsOfAnOutbox(t *testing.T) {
	e := &echo{}
	box := plugintest.Start(t, e.plugin()).MustConfigure(`{"list":[{"a":"b"}]}`).Outbox()
	enough := errors.New("enough")

	var pages []sdk.ScanPage
	err := box.Scan(t.Context(), full[sdk.ScanRequest](), func(p sdk.ScanPage) error {
		pages = append(pages, p)
		return nil
	})
	same(t, "scan", e.scan, full[sdk.ScanRequest]())
	same(t, "pages", pages, []sdk.ScanPage{full[sdk.ScanPage](), full[sdk.ScanPage]()})
	if !errors.Is(err, sdk.ErrFull) {
		t.Errorf("the error after the last page: %v", err)
	}
	if err := box.Scan(t.Context(), sdk.ScanRequest{}, func(sdk.ScanPage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a scan that the caller ends: %v", err)
	}

	var events []sdk.WatchEvent
	err = box.Watch(t.Context(), func(ev sdk.WatchEvent) error {
		if events = append(events, ev); len(events) == 2 {
			return enough
		}
		return nil
	})
	same(t, "events", events, []sdk.WatchEvent{{Kind: sdk.WatchGap}, full[sdk.WatchEvent]()})
	if !errors.Is(err, enough) {
		t.Errorf("a watch that the caller ends: %v", err)
	}
}

// A stream would hold up Drain and Configure for ever.
func TestAStreamEndsWhenThePluginIsConfiguredAnew(t *testing.T) {
	p := plugintest.Start(t, (&echo{}).plugin()).MustConfigure(`{"list":[{"a":"b"}]}`)
	began, ended := make(chan struct{}, 2), make(chan error, 1)
	go func() {
		ended <- p.Outbox().Watch(t.Context(), func(sdk.WatchEvent) error {
			began <- struct{}{}
			return nil
		})
	}()
	<-began
	p.MustConfigure(`{"list":[{"a":"c"}]}`)
	if err := <-ended; !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestNothingIsLostBetweenHostAndTheOtherKinds(t *testing.T) {
	e := &echo{}
	p := plugintest.Start(t, e.plugin()).MustConfigure(`{"list":[{"a":"b"}]}`)
	ctx := t.Context()

	outcomes, err := p.PushHandler().Handle(ctx, []sdk.Push{full[sdk.Push]()})
	noError(t, err)
	same(t, "pushes", e.pushes, []sdk.Push{full[sdk.Push]()})
	same(t, "outcomes", outcomes, []sdk.Outcome{full[sdk.Outcome]()})

	rows := []sdk.Peer{full[sdk.Peer](), {Role: sdk.RoleService}}
	verdicts, err := p.PeerFilter().Filter(ctx, full[sdk.PeerQuery](), rows)
	noError(t, err)
	same(t, "query", e.query, full[sdk.PeerQuery]())
	same(t, "rows", e.rows, rows)
	same(t, "verdicts", verdicts, []sdk.Verdict{full[sdk.Verdict](), {}})

	f := p.Feature()
	noError(t, f.OnConnect(ctx, full[sdk.Connected]()))
	same(t, "connected", e.up, full[sdk.Connected]())
	noError(t, f.OnFrame(ctx, []sdk.Frame{full[sdk.Frame]()}))
	same(t, "frames", e.frames, []sdk.Frame{full[sdk.Frame]()})
	call := full[sdk.Call]()
	call.Method, call.Params = "m", jsontext.Value(`{"n":5}`)
	result, err := f.Call(ctx, call)
	noError(t, err)
	same(t, "call", e.call, call)
	same(t, "result", string(result), `{"n":5}`)
}

func TestNothingIsLostOfADescription(t *testing.T) {
	e := &echo{}
	plugin := e.plugin()
	want := plugin.Describe()
	got := plugintest.Start(t, plugin).Describe()
	// A method's function does not cross.
	if len(got.Methods) != 1 || len(want.Methods) != 1 {
		t.Fatalf("methods %v", got.Methods)
	}
	g, w := got.Methods[0], want.Methods[0]
	same(t, "method", []any{g.Name, g.Doc, string(g.Params), string(g.Result), g.CLI}, []any{w.Name, w.Doc, string(w.Params), string(w.Result), w.CLI})
	got.Methods, want.Methods = nil, nil
	same(t, "description", got, want)
}

func TestNothingIsLostBetweenPluginAndHost(t *testing.T) {
	var env sdk.Env
	host := &recordingHost{}
	p := plugintest.Start(t, sdk.Plugin{
		Name: "caller", Version: "1", PeerFilter: &echo{},
		Config: sdk.Configured(func(_ context.Context, _ struct{}, e sdk.Env) error { env = e; return nil }, nil),
	}, plugintest.WithHost(host), plugintest.WithName("block")).MustConfigure("")
	ctx := t.Context()
	same(t, "environment", []string{env.Name, env.DataDir}, []string{"block", p.DataDir})

	req := full[sdk.FrameRequest]()
	reply, err := env.Host.Request(ctx, req)
	noError(t, err)
	same(t, "request", host.got, any(req))
	same(t, "reply", string(reply), `{"ok":true}`)
	noError(t, env.Host.Notify(ctx, req))
	same(t, "notice", host.got, any(req))
	sent, err := env.Host.Send(ctx, full[sdk.SendRequest]())
	noError(t, err)
	same(t, "send", host.got, any(full[sdk.SendRequest]()))
	same(t, "sent", sent, full[sdk.SendReply]())
	view, err := env.Host.Peers(ctx, full[sdk.PeersRequest]())
	noError(t, err)
	same(t, "peers", host.got, any(full[sdk.PeersRequest]()))
	same(t, "view", view, full[sdk.PeerView]())
	noError(t, env.Host.Emit(ctx, "kind", jsontext.Value(`{"n":1}`)))
	same(t, "event", host.got, any([]string{"kind", `{"n":1}`}))
	noError(t, env.Host.StorePut(ctx, "k", []byte{1, 0xff}))
	same(t, "put", host.got, any([]string{"k", "\x01\xff"}))
	value, err := env.Host.StoreGet(ctx, "k")
	noError(t, err)
	same(t, "value", value, []byte{1, 0xff})
	noError(t, env.Host.StoreDelete(ctx, "k"))
	keys, err := env.Host.StoreList(ctx, "k")
	noError(t, err)
	same(t, "keys", keys, []string{"k"})

	// What no host should see is stopped before it.
	host.got = nil
	if _, err := env.Host.Request(ctx, sdk.FrameRequest{Frame: jsontext.Value(`[]`)}); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("an array as a frame: %v", err)
	}
	if err := env.Host.Notify(ctx, sdk.FrameRequest{Frame: jsontext.Value(`{`)}); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("half a frame: %v", err)
	}
	if err := env.Host.Emit(ctx, "k", jsontext.Value(`{`)); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("half an event: %v", err)
	}
	same(t, "what came through", host.got, nil)
}

// recordingHost keeps the last thing that it was asked.
type recordingHost struct{ got any }

func (h *recordingHost) Request(_ context.Context, req sdk.FrameRequest) (jsontext.Value, error) {
	h.got = req
	return jsontext.Value(`{"ok":true}`), nil
}

func (h *recordingHost) Notify(_ context.Context, req sdk.FrameRequest) error {
	h.got = req
	return nil
}

func (h *recordingHost) Send(_ context.Context, req sdk.SendRequest) (sdk.SendReply, error) {
	h.got = req
	return full[sdk.SendReply](), nil
}

func (h *recordingHost) Peers(_ context.Context, req sdk.PeersRequest) (sdk.PeerView, error) {
	h.got = req
	return full[sdk.PeerView](), nil
}

func (h *recordingHost) Emit(_ context.Context, kind string, data jsontext.Value) error {
	h.got = []string{kind, string(data)}
	return nil
}

func (h *recordingHost) StoreGet(context.Context, string) ([]byte, error) {
	return []byte{1, 0xff}, nil
}

func (h *recordingHost) StorePut(_ context.Context, key string, value []byte) error {
	h.got = []string{key, string(value)}
	return nil
}
func (h *recordingHost) StoreDelete(context.Context, string) error { return nil }
func (h *recordingHost) StoreList(context.Context, string) ([]string, error) {
	return []string{"k"}, nil
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
