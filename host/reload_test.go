package host

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
)

// write puts the configuration on disk with some of it replaced.
func write(t *testing.T, path, src string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(src, pairs[i]) {
			t.Fatalf("no %q in the configuration", pairs[i])
		}
	}
	if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(src)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refusal is what an error of Reload says to programs.
func refusal(err error) string {
	var p *control.Problem
	var e *sdk.Error
	switch {
	case errors.As(err, &p):
		return p.Code
	case errors.As(err, &e):
		return e.Reason
	case err != nil:
		return err.Error()
	default:
		return ""
	}
}

func TestWhatOnlyAStartCanChangeIsNamed(t *testing.T) {
	s := newSite(t, "a", "b")
	_, src := s.source(t, 0)
	_, theirs := s.source(t, 1)
	parse := func(src string) *config.Config {
		cfg, diags := config.Parse(s.dir+"/0/mesh.hcl", []byte(src))
		if err := diags.Err(); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	key, err := os.ReadFile(s.dir + "/1/key")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir+"/0/key2", key, 0o600); err != nil {
		t.Fatal(err)
	}
	s.build(t, "filter-role", "../plugins/filter-role")
	filters := "peer_filter \"role\" {}\npeer_filter \"role\" { name = \"two\" }\n"
	mesh := theirs[strings.Index(theirs, "mesh \"team\""):strings.Index(theirs, "outbox \"memory\"")]
	for _, c := range []struct {
		name  string
		pairs []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"what a reload can do", []string{`outbox "memory" {}`, `outbox "memory" { allow = ["send"] }`, `rpc_feature "peers" {}`, "rpc_feature \"peers\" {\n timeouts { call = \"1s\" }\n}\nlog { level = \"warn\" }"}, nil},
		{"directories", []string{`"data"`, `"elsewhere"`, `"s"`, `"t"`}, []string{"data_dir is ", "the control socket is "}},
		{"the log", []string{`outbox "memory" {}`, `outbox "memory" {}` + "\nlog { format = \"json\" }"}, []string{"the log's format is json"}},
		{"a member", []string{`ws://127.0.0.1:7900/ws`, `ws://127.0.0.1:7901/ws`, `"key"`, `"key2"`, `display_name    = "a"`, ``}, []string{`mesh "team" has another broker_url, key, display_name`}},
		{"a mesh's name", []string{`mesh "team"`, `mesh "crew"`}, []string{`mesh "team" is gone`, `mesh "crew" is new`}},
		{"a new mesh", []string{`outbox "memory" {}`, `outbox "memory" {}` + "\n" + strings.Replace(mesh, `mesh "team"`, `mesh "crew"`, 1)}, []string{`mesh "crew" is new`}},
		{"handlers and features", []string{`push_handler "inbox" {}`, `push_handler "inbox" { name = "in" }`, `rpc_feature "peers" {}`, ``}, []string{`push_handler "inbox" is gone`, `push_handler "in" is new`, `rpc_feature "peers" is gone`}},
		{"order", []string{filters, "peer_filter \"role\" { name = \"two\" }\npeer_filter \"role\" {}\n"}, []string{"the peer_filter blocks stand in another order"}},
		{"on_error", []string{`{ name = "two" }`, "{\n name = \"two\"\n on_error = \"hide\"\n}"}, []string{`peer_filter "two" has another on_error`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &reload{old: &setup{cfg: parse(src + filters)}, next: &setup{cfg: parse(strings.NewReplacer(c.pairs...).Replace(src + filters))}}
			got := r.needRestart()
			if len(got) != len(c.want) {
				t.Fatalf("%q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("%q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

// Two reloads at once come one after the other, and both tell what they did.
func TestReloadsComeOneAfterTheOther(t *testing.T) {
	s := newSite(t, "a")
	s.up(t)
	path, src := s.source(t, 0)
	write(t, path, src)
	a := s.launchFrom(t, s.config(t, 0), path)
	a.open(t)
	events := a.bus.Subscribe(100)
	write(t, path, src, `outbox "memory" {}`, "outbox \"memory\" {\n config { max_rows = 7 }\n}\nlog { level = \"debug\" }")
	var wg sync.WaitGroup
	reps, errs := make([]control.ReloadReply, 2), make([]error, 2)
	for i := range reps {
		wg.Go(func() { reps[i], errs[i] = a.Reload(t.Context()) })
	}
	wg.Wait()
	n := []int{len(reps[0].Changes), len(reps[1].Changes)}
	slices.Sort(n)
	if err := errors.Join(errs...); err != nil || !slices.Equal(n, []int{0, 2}) {
		t.Errorf("%+v %+v: %v", reps[0], reps[1], err)
	}
	write(t, path, src, `outbox "memory" {}`, "")
	_, err := a.Reload(t.Context())
	if refusal(err) != "config_invalid" {
		t.Errorf("a broken file: %v", err)
	}
	var told []string
	for len(told) < 3 {
		e := <-events.C
		if e.Kind != "reload" {
			continue
		}
		var data struct {
			Changed []string `json:"changed"`
			Kept    string   `json:"kept"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		told = append(told, strings.Join(data.Changed, ", ")+data.Kept)
	}
	if told[0] != `outbox "memory": new options in force, log: level debug instead of info` || told[1] != "" || !strings.Contains(told[2], "no outbox block") {
		t.Errorf("told: %q", told)
	}
}

func TestAReloadAtTheWrongTimeIsRefused(t *testing.T) {
	s := newSite(t, "a")
	s.up(t)
	path, src := s.source(t, 0)
	write(t, path, src)
	h, err := New(t.Context(), s.config(t, 0), settings{logger: hclog.NewNullLogger(), dial: s.dial, configPath: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Reload(t.Context()); refusal(err) != "starting" {
		t.Errorf("before it runs: %v", err)
	}
	h.abandon()
	a := s.launch(t, s.config(t, 0))
	if _, err := a.Reload(t.Context()); refusal(err) != "no_config_file" {
		t.Errorf("without a file: %v", err)
	}
	a.stop(t)
	b := s.launchFrom(t, s.config(t, 0), path)
	if err := b.reloading.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that leaves while another reload runs: %v", err)
	}
	late := make(chan error, 1)
	go func() {
		_, err := b.Reload(context.Background())
		late <- err
	}()
	b.end()
	<-(*b.life.Load()).Done()
	b.reloading.unlock()
	if err := <-late; refusal(err) != "stopping" {
		t.Errorf("while it stops: %v", err)
	}
}

// A member that the broker had refused for good is tried again.
func TestAReloadTriesARejectedMeshAgain(t *testing.T) {
	s := newSite(t, "a")
	s.seed.Members[0].Revoked = true
	s.up(t)
	path, src := s.source(t, 0)
	write(t, path, src)
	a := s.launchFrom(t, s.config(t, 0), path)
	eventually(t, "the mesh is rejected", func() error {
		if st := a.meshes["team"].status(); st.State != control.MeshRejected {
			return errors.New(st.State)
		}
		return nil
	})
	s.down(t)
	s.seed.Members[0].Revoked = false
	s.up(t)
	rep, err := a.Reload(t.Context())
	if err != nil || len(rep.Changes) != 1 || rep.Changes[0].Block != `mesh "team"` || !strings.HasPrefix(rep.Changes[0].Change, "connecting again") {
		t.Errorf("%+v %v", rep, err)
	}
	a.open(t)
}

// What a backend without a disk holds would end with its process.
func TestAnOutboxInMemoryKeepsItsProcessWhileMessagesWait(t *testing.T) {
	s := newSite(t, "a", "b")
	s.up(t)
	path, src := s.source(t, 0)
	write(t, path, src)
	a := s.launchFrom(t, s.config(t, 0), path)
	a.open(t)
	block := "plugin \"memory\" {\n env = { ANY = \"1\" }\n}\noutbox \"memory\" {\n plugin = \"memory\"\n}"
	to := s.seed.Members[1].PublicKey
	if _, err := (rooms{a.Host}).Send(t.Context(), control.SendRequest{To: to, Message: "hello"}); err != nil {
		t.Fatal(err)
	}
	write(t, path, src, `outbox "memory" {}`, block)
	pid := a.now().use("outbox.memory").plugin.Status().Pid
	if _, err := a.Reload(t.Context()); refusal(err) != "messages_left" && !strings.Contains(err.Error(), "end with its process") {
		t.Errorf("with a message that waits: %v", err)
	}
	if p := a.now().use("outbox.memory").plugin; p.Status().Pid != pid {
		t.Error("it has another process")
	}
	st, err := a.outbound.Stats(t.Context())
	if err != nil || st["memory"].States[sdk.StatePending]+st["memory"].States[sdk.StateWaiting] != 1 {
		t.Errorf("%+v %v", st, err)
	}
	b := s.launch(t, s.config(t, 1))
	b.open(t)
	eventually(t, "it is sent", func() error {
		if st, err := a.outbound.Stats(t.Context()); err != nil || st["memory"].States[sdk.StatePending]+st["memory"].States[sdk.StateWaiting] > 0 {
			return errors.Join(err, errors.New("it waits"))
		}
		return nil
	})
	rep, err := a.Reload(t.Context())
	if err != nil || len(rep.Changes) != 1 || rep.Changes[0].Change != "runs in a new process" {
		t.Errorf("without: %+v %v", rep, err)
	}
}
