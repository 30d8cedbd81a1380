package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/host/control"
	"github.com/prometheus/client_golang/prometheus"
)

// running is a command in this process whose output can be read as it comes.
type running struct {
	out  *bufio.Reader
	pipe *os.File
	stop context.CancelFunc
	code chan int
}

func (r *running) line(t *testing.T) string {
	t.Helper()
	s, err := r.out.ReadString('\n')
	if err != nil {
		t.Fatalf("output ended: %v after %q", err, s)
	}
	return strings.TrimSuffix(s, "\n")
}

// interrupt ends the command and returns its exit code.
func (r *running) interrupt() int {
	r.stop()
	io.Copy(io.Discard, r.out)
	r.pipe.Close()
	return <-r.code
}

func launch(t *testing.T, h *fakeHost, args ...string) *running {
	t.Helper()
	s, err := control.New(control.Options{Outbound: h, Outbox: h, Peers: h, Features: h, Plugins: h, Overview: h, Reloader: h, Events: h.bus, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mh")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := control.Listen(control.ListenOptions{Path: dir + "/s", Locked: true})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		<-served
		h.bus.Close()
		os.RemoveAll(dir)
	})
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{out: bufio.NewReader(pr), pipe: pr, stop: cancel, code: make(chan int, 1)}
	go func() {
		defer pw.Close()
		env := func(name string) string { return map[string]string{"MESHHOST_SOCKET": dir + "/s"}[name] }
		r.code <- newApp(strings.NewReader(""), pw, io.Discard, env, fakeDaemon()).run(ctx, args)
	}()
	return r
}

func TestAMethodThatStreamsPrintsItsEvents(t *testing.T) {
	h := newFakeHost()
	r := launch(t, h, "state", "watch")
	if got := r.line(t); got != `{"schema":"state_watch/v1"}` {
		t.Errorf("the method's own result: %s", got)
	}
	h.bus.Publish("message", "team", nil)
	h.bus.Publish("state.change", "team", map[string]string{"key": "k"})
	if got := r.line(t); !strings.HasPrefix(got, `{"schema":"event/v1","kind":"state.change","ts":"`) || !strings.HasSuffix(got, `"mesh":"team","key":"k"}`) {
		t.Errorf("the event: %s", got)
	}
	if code := r.interrupt(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
}

func TestEventsAreLinesOfJSON(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string // the ends of the lines
	}{
		{[]string{"events"}, []string{`"mesh":"lab"}`, `"mesh":"team","data_kind":"x"}`, `"mesh":"team"}`}},
		{[]string{"events", "-mesh", "team"}, []string{`"data_kind":"x"}`, `"kind":"message","ts"`}},
		{[]string{"events", "-kind", "message,other", "-mesh", "team", "-json=kind,mesh,none"}, []string{`{"schema":"event/v1","kind":"message","mesh":"team","none":null}`}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			h := newFakeHost()
			r := launch(t, h, c.args...)
			// The subscription begins some time after the launch, so the first
			// events repeat until one is seen.
			seen := make(chan string)
			go func() {
				defer close(seen)
				for {
					s, err := r.out.ReadString('\n')
					if err != nil {
						return
					}
					seen <- s
				}
			}()
			var lines []string
			publish := func() {
				h.bus.Publish("message", "lab", nil)
				h.bus.Publish("inbox.new", "team", map[string]string{"kind": "x"})
				h.bus.Publish("message", "team", nil)
			}
			again := time.NewTicker(2 * time.Millisecond)
			defer again.Stop()
			for len(lines) == 0 {
				publish()
				select {
				case s := <-seen:
					lines = append(lines, s)
				case <-again.C:
				}
			}
			publish() // all of these come: the subscription is there
			for len(lines) < 200 && len(missing(lines, c.want)) > 0 {
				lines = append(lines, <-seen)
			}
			if m := missing(lines, c.want); len(m) > 0 {
				t.Errorf("no line with %v in %v", m, lines[:3])
			}
			if c.args[len(c.args)-1] != "events" {
				for _, l := range lines {
					if strings.Contains(l, `"lab"`) {
						t.Errorf("an event of another mesh: %s", l)
					}
				}
			}
			r.stop()
			for range seen {
			}
			if code := r.interrupt(); code != exitInterrupted {
				t.Errorf("exit code %d, want %d", code, exitInterrupted)
			}
		})
	}
}

func missing(lines, want []string) []string {
	var m []string
	for _, w := range want {
		found := false
		for _, l := range lines {
			found = found || strings.Contains(l, w)
		}
		if !found {
			m = append(m, w)
		}
	}
	return m
}

func TestNearestWord(t *testing.T) {
	words := []string{"status", "peer", "send", "outbox", "inbox", "state"}
	for typed, want := range map[string]string{"pear": "peer", "stauts": "status", "outbx": "outbox", "xyzzy": "", "snd": "send", "": ""} {
		if got := nearest(typed, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", typed, got, want)
		}
	}
}
