package sdk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

const (
	// firstConn is how long a host may take to connect after the handshake.
	firstConn = 30 * time.Second
	// lastConn is how long a plugin outlives its host.
	lastConn = 2 * time.Second
	// lastDrain is how long it may finish what is in flight when its host is gone.
	lastDrain = 5 * time.Second
	// lastAnswer is how long the answers of calls in flight may take to leave after
	// a signal.
	lastAnswer = 100 * time.Millisecond
)

// Serve is the whole main of a plugin. It does not return: the process ends when
// the host says so, or 2 s after the host is gone.
//
// Started by hand with the argument describe it prints what the plugin is as
// JSON. Serve panics if p has a mistake that only its author can mend.
func Serve(p Plugin) {
	s, err := NewServer(p, ServerConfig{Logger: processLogger(os.Getenv(wire.LogLevelEnv), os.Stderr)})
	if err != nil {
		panic("sdk.Serve: " + err.Error())
	}
	os.Exit(s.run(os.Args, os.Getenv(wire.CookieKey), os.Stdout, os.Stderr))
}

// processLogger writes JSON lines that the host reads.
func processLogger(level string, w io.Writer) hclog.Logger {
	l := hclog.LevelFromString(level)
	if l == hclog.NoLevel {
		l = hclog.Info
	}
	return hclog.New(&hclog.LoggerOptions{Level: l, Output: w, JSONFormat: true})
}

// run is Serve with the process's surroundings given; it returns the exit code.
func (s *Server) run(args []string, cookie string, stdout, stderr io.Writer) int {
	if len(args) > 1 && args[1] == "describe" {
		return s.describe(stdout, stderr)
	}
	if cookie != wire.CookieValue {
		program := "plugin"
		if len(args) > 0 {
			program = filepath.Base(args[0])
		}
		fmt.Fprintln(stderr, s.whatIsThis(program))
		return 1
	}
	return s.serve()
}

func (s *Server) describe(stdout, stderr io.Writer) int {
	out, err := json.Marshal(s.plugin.Describe(), jsontext.WithIndent("  "))
	if err == nil {
		_, err = fmt.Fprintf(stdout, "%s\n", out)
	}
	if err != nil {
		fmt.Fprintln(stderr, "describe:", err)
		return 1
	}
	return 0
}

// whatIsThis is the sentence for somebody who started a plugin by hand.
func (s *Server) whatIsThis(program string) string {
	return fmt.Sprintf("%s is a plugin (%s %s) that meshhost starts by itself: write `%s %q {}` in mesh.hcl, or run `%s describe` to see what it does and which options its config block takes.",
		program, s.plugin.Name, s.plugin.Version, s.plugin.Describe().Kinds[0], s.plugin.Name, program)
}

// serve runs until the host ends it or is gone.
func (s *Server) serve() int {
	// go-plugin replaces os.Stdout and os.Stderr, and fd 1 is a pipe that the host
	// reads for the handshake only: one long line there would block us for ever.
	// Its os.Stderr is a stream that an os.Exit cuts off, last words and all.
	stderr := os.Stderr
	s.first = func() {
		os.Stderr = stderr
		if err := stdoutToStderr(); err != nil {
			s.logger.Warn("stdout still leads to the host", "error", err)
		}
	}

	gone := make(chan struct{}, 1)
	conns := newConnWatch(firstConn, lastConn, func() { gone <- struct{}{} })
	defer conns.stop()

	var running atomic.Pointer[grpc.Server]
	newServer := func(opts []grpc.ServerOption) *grpc.Server {
		opts = append(opts, s.Options()...)
		server := grpc.NewServer(append(opts, grpc.StatsHandler(conns))...)
		running.Store(server)
		return server
	}
	done := s.standGuard(gone, func() {
		if server := running.Load(); server != nil {
			// A signal can overtake the answer to Drain, which is to leave first.
			late := time.AfterFunc(lastAnswer, server.Stop)
			server.GracefulStop()
			late.Stop()
		}
	})
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  ProtocolVersion,
			MagicCookieKey:   wire.CookieKey,
			MagicCookieValue: wire.CookieValue,
		},
		Plugins:    plugin.PluginSet{wire.PluginSet: serverGlue{s: s}},
		GRPCServer: newServer,
		Logger:     s.logger,
	})
	done()
	if running.Load() == nil {
		return 1 // go-plugin has logged why
	}
	return s.finish()
}

// standGuard ends the server when the host is gone, or when a signal comes after
// Drain. Before that signals are ignored: a service manager that signals a whole
// group must not take plugins from under the host that is about to drain them.
// The function that it returns ends the guard and waits for it.
func (s *Server) standGuard(gone <-chan struct{}, stop func()) func() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// A host that is gone reads no stderr; a log line must not kill us before
	// what is in flight is finished.
	brokenPipes := make(chan os.Signal, 1)
	signal.Notify(brokenPipes, syscall.SIGPIPE)

	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			case sig := <-signals:
				if s.gate.drained() {
					stop()
					return
				}
				s.logger.Debug("signal ignored until the host drains this plugin", "signal", sig.String())
			case <-gone:
				s.logger.Warn("the host is gone; finishing")
				ctx, cancel := context.WithTimeout(context.Background(), lastDrain)
				if err := s.drain(ctx); err != nil {
					s.logger.Warn("drain without a host", "error", err)
				}
				cancel()
				stop()
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
		signal.Stop(signals)
	}
}

// finish waits for calls whose connection has gone and closes the plugin.
func (s *Server) finish() int {
	ctx, cancel := context.WithTimeout(context.Background(), lastConn)
	defer cancel()
	if err := s.gate.shut(ctx); err != nil {
		s.logger.Warn("a call did not end in time", "error", err)
		return 1
	}
	if err := s.Close(); err != nil {
		s.logger.Error("stop", "error", err)
		return 1
	}
	return 0
}

// serverGlue is the plugin's half of go-plugin's interface.
type serverGlue struct {
	plugin.NetRPCUnsupportedPlugin
	s *Server
}

func (g serverGlue) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	g.s.Register(server)
	return nil
}

func (serverGlue) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("this is the plugin's end")
}
