package sdk

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

func newTestServer(t *testing.T, p Plugin) *Server {
	t.Helper()
	s, err := NewServer(p, ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDescribePrintsJSONWithoutAHost(t *testing.T) {
	var stdout, stderr bytes.Buffer
	p := processPlugin()
	if code := newTestServer(t, p).run([]string{"x", "describe"}, "", &stdout, &stderr); code != 0 || stderr.Len() != 0 {
		t.Fatalf("exit %d, stderr %s", code, &stderr)
	}
	var d Description
	if err := json.Unmarshal(stdout.Bytes(), &d, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	if d.Name != "process" || d.Version != "1.2.3" || !d.Has(KindFeature) || d.Protocol != 1 || d.Methods[0].Name != "noise" {
		t.Errorf("described %+v", d)
	}
}

func TestStartedByHandItSaysWhatItIs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := newTestServer(t, processPlugin()).run([]string{"/opt/p/meshhost-feature-process"}, "", &stdout, &stderr); code != 1 {
		t.Errorf("exit %d", code)
	}
	want := "meshhost-feature-process is a plugin (process 1.2.3) that meshhost starts by itself: write `rpc_feature \"process\" {}` in mesh.hcl, or run `meshhost-feature-process describe` to see what it does and which options its config block takes.\n"
	if stderr.String() != want || stdout.Len() != 0 {
		t.Errorf("said %q on stderr, %q on stdout", &stderr, &stdout)
	}
}

func TestServeRefusesAPluginWithAMistake(t *testing.T) {
	type none struct{}
	type key struct {
		Key string `json:"key"`
	}
	method := func(name string, cli CLI) Method {
		return NewMethod(name, "", cli, func(context.Context, Call, key) (none, error) { return none{}, nil })
	}
	for name, c := range map[string]struct {
		change func(*Plugin)
		want   string
	}{
		"name":            {func(p *Plugin) { p.Name = "Out Box" }, "Name"},
		"version":         {func(p *Plugin) { p.Version = "" }, "Version"},
		"no kind":         {func(p *Plugin) { p.Feature = nil }, "at least one"},
		"durable":         {func(p *Plugin) { p.Durable = true }, "Durable"},
		"wants":           {func(p *Plugin) { p.Wants = []Want{{}} }, "Wants"},
		"no method":       {func(p *Plugin) { p.Feature.Methods = nil }, "at least one method"},
		"raw method":      {func(p *Plugin) { p.Feature.Methods = []Method{{Name: "x"}} }, "NewMethod"},
		"method name":     {func(p *Plugin) { p.Feature.Methods = []Method{method("a-b", CLI{})} }, `"a-b"`},
		"method twice":    {func(p *Plugin) { p.Feature.Methods = []Method{method("a", CLI{}), method("a", CLI{})} }, "twice"},
		"argument":        {func(p *Plugin) { p.Feature.Methods = []Method{method("a", CLI{Args: []string{"k"}})} }, "no parameter"},
		"cursor":          {func(p *Plugin) { p.Feature.Methods = []Method{method("a", CLI{Follow: &Follow{Cursor: "c"}})} }, "cursor"},
		"default":         {func(p *Plugin) { p.Feature.Default = "x" }, "Default"},
		"watch unheard":   {func(p *Plugin) { p.Feature.Watches = []string{"x"} }, "OnFrame"},
		"nothing to hear": {func(p *Plugin) { p.Feature.OnFrame = func(context.Context, []Frame) error { return nil } }, "Watches"},
	} {
		p := processPlugin()
		c.change(&p)
		if _, err := NewServer(p, ServerConfig{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// The tables of words are in another package, which can't import this one.
func TestTheTablesHaveTheWordsOfTheConstants(t *testing.T) {
	for _, k := range []Kind{KindOutbox, KindPushHandler, KindPeerFilter, KindFeature} {
		checkWord(t, wire.Kinds, string(k))
	}
	for _, n := range []TypeName{TypeString, TypeNumber, TypeBool, TypeList, TypeMap, TypeObject, TypeDuration, TypeBytes, TypePath, TypeSecret, TypeExpr} {
		checkWord(t, wire.TypeNames, string(n))
	}
	for _, s := range []Severity{SeverityError, SeverityWarning} {
		checkWord(t, wire.Severities, string(s))
	}
	for _, s := range []EntryState{StatePending, StateWaiting, StateAccepted, StateDelivered, StateDead, StateExpired, StateCancelled} {
		checkWord(t, wire.EntryStates, string(s))
	}
	for _, k := range []OpKind{OpAppend, OpAccepted, OpDelivered, OpDefer, OpWait, OpWake, OpDie, OpExpire, OpCancel, OpRequeue} {
		checkWord(t, wire.OpKinds, string(k))
	}
	for _, c := range []OpCode{OpStored, OpExists, OpApplied, OpAlready, OpConflict, OpFenced, OpNotFound, OpFull, OpTooLarge} {
		checkWord(t, wire.OpCodes, string(c))
	}
	for _, k := range []PushKind{PushDirect, PushBroadcast, PushSystem, PushWebhook} {
		checkWord(t, wire.PushKinds, string(k))
	}
	for _, d := range []Decision{Ack, Retry, Drop} {
		checkWord(t, wire.Decisions, string(d))
	}
}

func checkWord[N ~int32](t *testing.T, table wire.Enum[N], word string) {
	t.Helper()
	n := table.Number(word)
	if got, err := table.Word(n); n == 0 || got != word || err != nil {
		t.Errorf("%q has the number %d, which is %q, %v", word, n, got, err)
	}
}
