package sdk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	featurev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/feature/v1"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
)

// processPlugin is what this test binary is as a plugin. It writes "drain" and
// "stop" to a file in its data directory when those come.
func processPlugin() Plugin {
	var dir string
	note := func(word string) error {
		f, err := os.OpenFile(filepath.Join(dir, "notes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(word + "\n")
		return errors.Join(err, f.Close())
	}
	type none struct{}
	return Plugin{
		Name:    "process",
		Version: "1.2.3",
		Config: Configured(func(_ context.Context, _ none, env Env) error {
			dir = env.DataDir
			return nil
		}, nil),
		Drain: func(context.Context) error { return note("drain") },
		Stop:  func() error { return note("stop") },
		Feature: &Feature{Methods: []Method{
			NewMethod("noise", "writes 200 KB to fd 1 in one line", CLI{}, func(context.Context, Call, none) (none, error) {
				_, err := syscall.Write(1, bytes.Repeat([]byte("x"), 200_000))
				return none{}, err
			}),
		}},
	}
}

// process is a plugin process and what a host has of it.
type process struct {
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	dir    string
	stdout *bufio.Reader
	exited chan error
	// waiting is true once somebody waits for the end.
	waiting bool
}

func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), dir: t.TempDir(), exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), processEnv+"=1", wire.CookieKey+"="+wire.CookieValue, wire.LogLevelEnv+"=debug", "PLUGIN_PROTOCOL_VERSIONS=1")
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.waiting {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	// The handshake is CORE|APP|network|address|protocol|certificate.
	p.stdout = bufio.NewReader(stdout)
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	parts := strings.Split(strings.TrimSpace(line), "|")
	if len(parts) < 5 || parts[1] != "1" || parts[4] != "grpc" {
		t.Fatalf("handshake %q", line)
	}
	p.conn, err = grpc.NewClient("unix:"+parts[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

func (p *process) configure(t *testing.T) {
	t.Helper()
	res, err := lifecyclev1.NewLifecycleServiceClient(p.conn).Configure(t.Context(), &lifecyclev1.ConfigureRequest{Name: "process", DataDir: p.dir})
	if err != nil || len(res.GetDiagnostics()) != 0 {
		t.Fatalf("configure: %v, %v", res, err)
	}
}

func (p *process) call(t *testing.T, method string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := featurev1.NewFeatureServiceClient(p.conn).Call(ctx, &featurev1.CallRequest{Method: method})
	return err
}

// wait returns how long the process took to exit and what it noted.
func (p *process) wait(t *testing.T) (time.Duration, []string) {
	t.Helper()
	start := time.Now()
	p.waiting = true
	go func() {
		// Wait closes the pipe, so what is on it is read first.
		_, _ = io.Copy(io.Discard, p.stdout)
		p.exited <- p.cmd.Wait()
	}()
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("exit: %v", err)
		}
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
		t.Fatal("still running after 10 s")
	}
	took := time.Since(start)
	notes, err := os.ReadFile(filepath.Join(p.dir, "notes"))
	if err != nil {
		t.Fatal(err)
	}
	return took, strings.Fields(string(notes))
}

func TestAPluginOutlivesItsHostByTwoSeconds(t *testing.T) {
	p := startProcess(t)
	p.configure(t)
	_ = p.conn.Close() // as when the host was killed: no Drain, no Shutdown
	took, notes := p.wait(t)
	if took < time.Second || took > 6*time.Second {
		t.Errorf("gone after %v", took)
	}
	if !slices.Equal(notes, []string{"drain", "stop"}) {
		t.Errorf("it did %q on its way out", notes)
	}
}

func TestSignalsCountOnlyAfterDrain(t *testing.T) {
	p := startProcess(t)
	p.configure(t)
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.call(t, "noise"); err != nil {
		t.Fatalf("after signals: %v", err)
	}
	if _, err := lifecyclev1.NewLifecycleServiceClient(p.conn).Drain(t.Context(), &lifecyclev1.DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := p.call(t, "noise"); !errors.Is(ErrorFromStatus(err), ErrUnavailable) {
		t.Errorf("a call after Drain: %v", err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if took, notes := p.wait(t); took > 2*time.Second || !slices.Equal(notes, []string{"drain", "stop"}) {
		t.Errorf("gone after %v, having done %q", took, notes)
	}
}

func TestNoiseOnStdoutNeverBlocksAPlugin(t *testing.T) {
	p := startProcess(t)
	p.configure(t)
	// Nobody reads the pipe of the handshake here, as go-plugin's client stops to
	// do at a long line; fd 2 is /dev/null.
	for range 3 {
		if err := p.call(t, "noise"); err != nil {
			t.Fatal(err)
		}
	}
}
