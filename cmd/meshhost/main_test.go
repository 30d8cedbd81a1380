package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// checked runs the tests and then looks for goroutines that are left.
type checked struct{ m *testing.M }

func (c checked) Run() (code int) {
	goleak.VerifyTestMain(c.m, goleak.Cleanup(func(exit int) { code = exit }))
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){"meshhost": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv, fakeDaemon()).run(ctx, os.Args[1:]))
	}})
}

// fakeDaemon stands for package host: it prints what it was asked.
func fakeDaemon() daemon {
	bad := config.Diagnostics{{Severity: sdk.SeverityError, Summary: "bad thing", Next: "Mend it.", File: "bad.hcl", Line: 1, Column: 1, Source: "x", Caret: config.Caret{Length: 1}}}
	return daemon{
		version: "9.9.9",
		run: func(_ context.Context, path string, dev bool, stdout, _ io.Writer) error {
			fmt.Fprintf(stdout, "run config=%s dev=%v\n", path, dev)
			switch path {
			case "bad.hcl":
				return &configError{bad}
			case "fails.hcl":
				return errors.New("the socket is taken")
			}
			return nil
		},
		validate: func(_ context.Context, path string, noPlugins bool) (config.Diagnostics, error) {
			fmt.Fprintf(os.Stderr, "validate path=%s no-plugins=%v\n", path, noPlugins)
			if path == "bad.hcl" {
				return bad, nil
			}
			return nil, nil
		},
		describe: func(_ context.Context, path string) (sdk.Description, error) {
			if strings.HasSuffix(path, "broken") {
				return sdk.Description{}, errors.New("it says nothing")
			}
			return sdk.Description{Name: "x", Version: "3.0.0", Kinds: []sdk.Kind{sdk.KindFeature}, Doc: "does " + path}, nil
		},
	}
}

// hostKey finds the fake host of a script.
type hostKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: serveFake,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"calls": func(ts *testscript.TestScript, neg bool, args []string) {
				h := ts.Value(hostKey{}).(*fakeHost)
				h.mu.Lock()
				text := strings.Join(h.calls, "\n")
				h.mu.Unlock()
				if got := strings.Contains(text, args[0]); got == neg {
					ts.Fatalf("calls were:\n%s", text)
				}
			},
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				if !ts.Value(hostKey{}).(*fakeHost).called(args[1], n) {
					ts.Fatalf("never called %s", args[1])
				}
			},
			"mail": func(ts *testscript.TestScript, _ bool, args []string) {
				h := ts.Value(hostKey{}).(*fakeHost)
				h.mu.Lock()
				h.messages++
				h.mu.Unlock()
				h.bus.Publish("inbox.new", "team", nil)
			},
			"publish": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value(hostKey{}).(*fakeHost).bus.Publish(args[0], args[1], map[string]string{"key": "k"})
			},
			"starting": func(ts *testscript.TestScript, neg bool, _ []string) {
				h := ts.Value(hostKey{}).(*fakeHost)
				h.mu.Lock()
				h.starting = !neg
				h.mu.Unlock()
			},
			"exits": exits,
		},
	})
}

// exits runs a command and compares its exit code: exits 5 meshhost send …
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var ee interface{ ExitCode() int }
	if errors.As(err, &ee) {
		code = ee.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// serveFake gives a script a daemon of its own.
func serveFake(env *testscript.Env) error {
	h := newFakeHost()
	env.Values[hostKey{}] = h
	dir, err := os.MkdirTemp("", "mh")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "m.sock")
	s, err := control.New(control.Options{Outbound: h, Outbox: h, Peers: h, Features: h, Plugins: h, Overview: h, Reloader: h, Events: h.bus, Metrics: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	ln, err := control.Listen(control.ListenOptions{Path: socket, Locked: true})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	env.Defer(func() {
		h.mu.Lock()
		h.ended = true
		h.changed.Broadcast()
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		<-served
		h.bus.Close()
		os.RemoveAll(dir)
	})
	env.Setenv("MESHHOST_SOCKET", socket)
	env.Setenv("SOCKET", socket)
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "none"))
	return nil
}
