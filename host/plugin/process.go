package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

// pipeGrace is how long output that a dead plugin's children still hold open is
// waited for.
const pipeGrace = 500 * time.Millisecond

// process is one OS process of a plugin and all of its children. It is go-plugin's
// runner, so that go-plugin reads nothing of the process but one handshake line,
// and kills nothing by itself.
type process struct {
	path   string
	cmd    *exec.Cmd
	hello  *handshake
	stderr *lineWriter
	stdout *lineWriter

	// start bounds the start: when it ends before disarm the process is killed.
	start  context.Context
	disarm func() bool

	mu      sync.Mutex
	id      int  // 0 before the start
	reaped  bool // the pid, and the group of that number, may be someone else's
	started time.Time
	ended   time.Time
	state   string // how it ended: "exit status 2", "signal: killed"

	gone chan struct{} // closed when the process is reaped and its output read
}

var _ runner.Runner = (*process)(nil)

// newProcess prepares a start. Each process needs a fresh one: neither an
// exec.Cmd nor a go-plugin client can be used again.
func newProcess(start context.Context, s *Spec, goplugin []string, socketDir string, stdout, stderr *lineWriter) *process {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = environ(s, goplugin, socketDir)
	cmd.Dir = socketDir // not the host's: that may be on a disk to be unmounted
	cmd.SysProcAttr = processAttr()
	cmd.WaitDelay = pipeGrace
	p := &process{
		path: s.Path, cmd: cmd, stdout: stdout, stderr: stderr,
		hello:  newHandshake(stdout),
		start:  start,
		disarm: func() bool { return false },
		gone:   make(chan struct{}),
	}
	// Stdin stays nil, which is /dev/null: go-plugin would hand over the host's.
	cmd.Stdout, cmd.Stderr = p.hello, stderr
	return p
}

// Start starts the process from a thread that lives as long as it does: on Linux
// the kernel kills the child when the thread that forked it ends, and the Go
// runtime ends threads at will.
func (p *process) Start(context.Context) error {
	if err := p.start.Err(); err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if err == nil {
			p.mu.Lock()
			p.id, p.started = p.cmd.Process.Pid, time.Now()
			p.mu.Unlock()
		}
		started <- err
		if err != nil {
			p.hello.end()
			close(p.gone)
			return
		}
		p.attend()
	}()
	err := <-started
	if err == nil {
		p.disarm = context.AfterFunc(p.start, p.kill)
	}
	return err
}

// attend waits for the end of the process, ends its children, and tells.
func (p *process) attend() {
	p.reap()
	p.mu.Lock()
	p.state = p.cmd.ProcessState.String() // "<nil>" if it could not be waited for
	p.mu.Unlock()
	p.hello.end()
	p.stdout.flush()
	p.stderr.flush()
	close(p.gone)
}

// markReaped says that the process's number may be another's from now on.
func (p *process) markReaped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	p.ended = time.Now()
}

// kill ends the process and its group at once. It can be called at any time.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id == 0 || p.reaped {
		return
	}
	// The plugin leads its group, and is not reaped: the number is ours.
	_ = syscall.Kill(-p.id, syscall.SIGKILL)
	_ = syscall.Kill(p.id, syscall.SIGKILL) // had it left its group
}

// pid is the process id, 0 before the start.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// report says how the process ended, after how long, and its last words.
func (p *process) report() string {
	p.mu.Lock()
	state, up := p.state, p.ended.Sub(p.started)
	p.mu.Unlock()
	s := fmt.Sprintf("%s after %s", state, up.Round(time.Millisecond))
	last := p.stderr.last(reportLines)
	if last == "" { // not every program complains where it should
		last = p.stdout.last(reportLines)
	}
	if last != "" {
		s += ", last words: " + last
	}
	return s
}

// orderly reports whether the process ended by itself and without an error.
func (p *process) orderly() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == "exit status 0"
}

// Wait is for go-plugin.
func (p *process) Wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kill is for go-plugin.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// Stdout gives go-plugin the handshake line and nothing else: its reader dies of
// a long line, and then the plugin blocks.
func (p *process) Stdout() io.ReadCloser { return p.hello.reader }

// Stderr gives go-plugin nothing: a line of JSON could panic it.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(eof{}) }

// Name is for go-plugin's messages.
func (p *process) Name() string { return p.path }

// ID is for go-plugin: empty means there is nothing to kill.
func (p *process) ID() string {
	if id := p.pid(); id != 0 {
		return strconv.Itoa(id)
	}
	return ""
}

// Diagnose is for go-plugin's messages, which we replace by our own.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost leaves an address as it is.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" {
		return "", "", errors.New("the plugin listens on " + network + "; only unix sockets are private")
	}
	return network, addr, nil
}

// HostToPlugin leaves an address as it is.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
