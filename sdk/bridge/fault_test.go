package bridge_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
	filterv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/filter/v1"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

func nothing(*grpc.Server) {}

// nonsense is a plugin whose replies are what the test says.
type nonsense struct {
	lifecyclev1.UnimplementedLifecycleServiceServer
	outboxv1.UnimplementedOutboxServiceServer
	pushv1.UnimplementedPushServiceServer
	filterv1.UnimplementedFilterServiceServer
	featurev1.UnimplementedFeatureServiceServer

	describe  *lifecyclev1.DescribeResponse
	validate  *lifecyclev1.ValidateResponse
	configure *lifecyclev1.ConfigureResponse
	apply     *outboxv1.ApplyResponse
	fetch     *outboxv1.FetchResponse
	lookup    *outboxv1.LookupResponse
	get       *outboxv1.GetResponse
	list      *outboxv1.ListResponse
	stats     *outboxv1.StatsResponse
	handle    *pushv1.HandleResponse
	filter    *filterv1.FilterResponse
	call      *featurev1.CallResponse
}

func (n *nonsense) Describe(context.Context, *lifecyclev1.DescribeRequest) (*lifecyclev1.DescribeResponse, error) {
	return n.describe, nil
}

func (n *nonsense) Validate(context.Context, *lifecyclev1.ValidateRequest) (*lifecyclev1.ValidateResponse, error) {
	return n.validate, nil
}

func (n *nonsense) Configure(context.Context, *lifecyclev1.ConfigureRequest) (*lifecyclev1.ConfigureResponse, error) {
	return n.configure, nil
}

func (n *nonsense) Apply(context.Context, *outboxv1.ApplyRequest) (*outboxv1.ApplyResponse, error) {
	return n.apply, nil
}

func (n *nonsense) Fetch(context.Context, *outboxv1.FetchRequest) (*outboxv1.FetchResponse, error) {
	return n.fetch, nil
}

func (n *nonsense) Lookup(context.Context, *outboxv1.LookupRequest) (*outboxv1.LookupResponse, error) {
	return n.lookup, nil
}

func (n *nonsense) Get(context.Context, *outboxv1.GetRequest) (*outboxv1.GetResponse, error) {
	return n.get, nil
}

func (n *nonsense) List(context.Context, *outboxv1.ListRequest) (*outboxv1.ListResponse, error) {
	return n.list, nil
}

func (n *nonsense) Stats(context.Context, *outboxv1.StatsRequest) (*outboxv1.StatsResponse, error) {
	return n.stats, nil
}

func (n *nonsense) Handle(context.Context, *pushv1.HandleRequest) (*pushv1.HandleResponse, error) {
	return n.handle, nil
}

func (n *nonsense) Filter(context.Context, *filterv1.FilterRequest) (*filterv1.FilterResponse, error) {
	return n.filter, nil
}

func (n *nonsense) Call(context.Context, *featurev1.CallRequest) (*featurev1.CallResponse, error) {
	return n.call, nil
}

func TestNonsenseFromAPluginIsAFaultThatSaysWhat(t *testing.T) {
	n := &nonsense{}
	c := serveRaw(t, func(g *grpc.Server) {
		lifecyclev1.RegisterLifecycleServiceServer(g, n)
		outboxv1.RegisterOutboxServiceServer(g, n)
		pushv1.RegisterPushServiceServer(g, n)
		filterv1.RegisterFilterServiceServer(g, n)
		featurev1.RegisterFeatureServiceServer(g, n)
	})
	ctx := t.Context()
	apply := func() error { _, err := c.Outbox().Apply(ctx, []sdk.Op{{Kind: sdk.OpDie, ID: "x"}}); return err }
	fetch := func() error { _, err := c.Outbox().Fetch(ctx, sdk.FetchRequest{}); return err }
	lookup := func() error { _, err := c.Outbox().Lookup(ctx, make([]sdk.MessageKey, 2)); return err }
	get := func() error { _, err := c.Outbox().Get(ctx, []string{"a"}); return err }
	list := func() error { _, err := c.Outbox().List(ctx, sdk.ListRequest{Limit: 1}); return err }
	stats := func() error { _, err := c.Outbox().Stats(ctx, sdk.StatsRequest{}); return err }
	push := func() error { _, err := c.PushHandler().Handle(ctx, make([]sdk.Push, 1)); return err }
	filter := func() error { _, err := c.PeerFilter().Filter(ctx, sdk.PeerQuery{}, make([]sdk.Peer, 1)); return err }
	call := func() error { _, err := c.Feature().Call(ctx, sdk.Call{Method: "get"}); return err }
	describe := func() error { _, err := c.Describe(ctx); return err }
	validate := func() error { _, err := c.Validate(ctx, nil); return err }
	configure := func() error { _, err := c.Configure(ctx, bridge.ConfigureRequest{}); return err }

	entry := func(state outboxv1.EntryState) *outboxv1.Entry { return &outboxv1.Entry{Id: "e", State: state} }
	for name, k := range map[string]struct {
		answer func()
		call   func() error
		want   string
	}{
		"no result":          {func() { n.apply = &outboxv1.ApplyResponse{} }, apply, "0 results for 1 items"},
		"two results":        {func() { n.apply = &outboxv1.ApplyResponse{Results: make([]*outboxv1.OpResult, 2)} }, apply, "2 results"},
		"no code":            {func() { n.apply = &outboxv1.ApplyResponse{Results: []*outboxv1.OpResult{{}}} }, apply, "result 0: unknown"},
		"odd code":           {func() { n.apply = &outboxv1.ApplyResponse{Results: []*outboxv1.OpResult{{Code: 99}}} }, apply, "99"},
		"odd state":          {func() { n.apply = &outboxv1.ApplyResponse{Results: []*outboxv1.OpResult{{Code: 3, State: -1}}} }, apply, "-1"},
		"conflict with what": {func() { n.apply = &outboxv1.ApplyResponse{Results: []*outboxv1.OpResult{{Code: 5}}} }, apply, "without the state"},
		"headless queue":     {func() { n.fetch = &outboxv1.FetchResponse{Queues: []*outboxv1.Queue{{Target: "t"}}} }, fetch, "no head"},
		"stateless row": {func() {
			n.fetch = &outboxv1.FetchResponse{Queues: []*outboxv1.Queue{{Rows: []*outboxv1.Entry{entry(0)}}}}
		}, fetch, "queue 0: entry 0"},
		"lookup one of two":   {func() { n.lookup = &outboxv1.LookupResponse{Entries: make([]*outboxv1.MaybeEntry, 1)} }, lookup, "1 results for 2"},
		"get an odd state":    {func() { n.get = &outboxv1.GetResponse{Entries: []*outboxv1.MaybeEntry{{Entry: entry(50)}}} }, get, "entry 0"},
		"list without an id":  {func() { n.list = &outboxv1.ListResponse{Entries: []*outboxv1.Entry{{State: 1}}} }, list, "no id"},
		"stats of no state":   {func() { n.stats = &outboxv1.StatsResponse{States: []*outboxv1.StateCount{{Count: 1}}} }, stats, "count 0"},
		"no outcome":          {func() { n.handle = &pushv1.HandleResponse{} }, push, "0 results"},
		"no decision":         {func() { n.handle = &pushv1.HandleResponse{Outcomes: []*pushv1.Outcome{{}}} }, push, "outcome 0"},
		"negative delay":      {func() { n.handle = &pushv1.HandleResponse{Outcomes: []*pushv1.Outcome{{Decision: 2, AfterNs: -1}}} }, push, "negative"},
		"no verdict":          {func() { n.filter = &filterv1.FilterResponse{} }, filter, "0 results"},
		"hidden for nothing":  {func() { n.filter = &filterv1.FilterResponse{Verdicts: []*filterv1.Verdict{{Hide: true}}} }, filter, "without a reason"},
		"empty result":        {func() { n.call = &featurev1.CallResponse{} }, call, "get is not a JSON object"},
		"result of half JSON": {func() { n.call = &featurev1.CallResponse{ResultJson: []byte(`{"a":`)} }, call, "not a JSON object"},
		"result of an array":  {func() { n.call = &featurev1.CallResponse{ResultJson: []byte(`[]`)} }, call, "not a JSON object"},
		"nameless":            {func() { n.describe = &lifecyclev1.DescribeResponse{} }, describe, "no name"},
		"of no kind":          {func() { n.describe = &lifecyclev1.DescribeResponse{Name: "n"} }, describe, "no kind"},
		"of an odd kind":      {func() { n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{9}} }, describe, "9"},
		"the same kind twice": {func() { n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{1, 1}} }, describe, "twice"},
		"a bad schema": {func() {
			n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{1}, Schema: &lifecyclev1.Schema{Attributes: []*lifecyclev1.Attribute{{Name: "a"}}}}
		}, describe, `"a": unknown`},
		"a bottomless schema": {func() {
			n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{1}, Schema: deep(100)}
		}, describe, "deeper"},
		"half a method schema": {func() {
			n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{4}, Methods: []*lifecyclev1.Method{{Name: "m", ParamsJson: []byte("{")}}}
		}, describe, "JSON Schema"},
		"an odd default": {func() {
			n.describe = &lifecyclev1.DescribeResponse{Name: "n", Kinds: []lifecyclev1.Kind{4}, DefaultMethod: "x"}
		}, describe, "default method"},
		"a severity of none": {func() {
			n.validate = &lifecyclev1.ValidateResponse{Diagnostics: []*lifecyclev1.Diagnostic{{Summary: "s"}}}
		}, validate, "diagnostic 0"},
		"a wordless diagnostic": {func() {
			n.configure = &lifecyclev1.ConfigureResponse{Diagnostics: []*lifecyclev1.Diagnostic{{Severity: 1}}}
		}, configure, "no summary"},
	} {
		k.answer()
		err := k.call()
		var f *bridge.Fault
		if !errors.As(err, &f) || !errors.Is(err, sdk.ErrInternal) || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %v, want a fault with %q", name, err, k.want)
		}
	}
}

// deep is a schema of n nested blocks.
func deep(n int) *lifecyclev1.Schema {
	s := &lifecyclev1.Schema{}
	for range n {
		s = &lifecyclev1.Schema{Blocks: []*lifecyclev1.Block{{Name: "b", Schema: s}}}
	}
	return s
}

func TestWhatAPluginSaysIsBounded(t *testing.T) {
	n := &nonsense{}
	c := serveRaw(t, func(g *grpc.Server) {
		lifecyclev1.RegisterLifecycleServiceServer(g, n)
		pushv1.RegisterPushServiceServer(g, n)
		filterv1.RegisterFilterServiceServer(g, n)
		outboxv1.RegisterOutboxServiceServer(g, n)
	})
	long := strings.Repeat("x", 1<<16)
	warning := &lifecyclev1.Diagnostic{Severity: lifecyclev1.Severity_SEVERITY_WARNING, Summary: "w"}
	said := make([]*lifecyclev1.Diagnostic, 50_000)
	for i := range said {
		said[i] = warning
	}
	said[0] = &lifecyclev1.Diagnostic{Severity: lifecyclev1.Severity_SEVERITY_WARNING, Summary: long, Detail: long, Path: strings.Split(strings.Repeat("a,", 500)+long, ",")}
	n.validate = &lifecyclev1.ValidateResponse{Diagnostics: said}
	diags, err := c.Validate(t.Context(), nil)
	if err != nil || len(diags) > 1001 || diags.HasErrors() || len(diags[0].Summary)+len(diags[0].Detail) > 5000 || len(diags[0].Path) > 64 {
		t.Errorf("%d diagnostics, the first with %d bytes: %v", len(diags), len(diags[0].Summary), err)
	}
	said[49_999] = &lifecyclev1.Diagnostic{Severity: lifecyclev1.Severity_SEVERITY_ERROR, Summary: "the one error"}
	if diags, err = c.Validate(t.Context(), nil); err != nil || !diags.HasErrors() {
		t.Errorf("an error behind many warnings got lost: %v", err)
	}
	n.handle = &pushv1.HandleResponse{Outcomes: []*pushv1.Outcome{{Decision: pushv1.Decision_DECISION_DROP, Reason: long}}}
	if got, err := c.PushHandler().Handle(t.Context(), make([]sdk.Push, 1)); err != nil || len(got[0].Reason) > 3000 {
		t.Errorf("a reason to drop: %v", err)
	}
	n.filter = &filterv1.FilterResponse{Verdicts: []*filterv1.Verdict{{Hide: true, Reason: long}}}
	if got, err := c.PeerFilter().Filter(t.Context(), sdk.PeerQuery{}, make([]sdk.Peer, 1)); err != nil || len(got[0].Reason) > 3000 {
		t.Errorf("a reason to hide: %v", err)
	}
	n.apply = &outboxv1.ApplyResponse{Results: []*outboxv1.OpResult{{Code: outboxv1.OpCode_OP_CODE_FULL, Detail: long}}}
	if got, err := c.Outbox().Apply(t.Context(), []sdk.Op{{Kind: sdk.OpDie, ID: "x"}}); err != nil || len(got[0].Detail) > 3000 {
		t.Errorf("a detail: %v", err)
	}
}
