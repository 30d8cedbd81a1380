package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// maxTimeout leaves room in the 30 s that the host gives one call of Handle.
	maxTimeout = 20 * time.Second
	// margin is what an answer needs to get back before the call's deadline.
	margin = time.Second
	// pipeWait bounds the wait for children of a command that hold its stdin.
	pipeWait = time.Second
)

// config is the config block.
type config struct {
	Command []string      `mesh:"command,required" doc:"The program and its arguments. The program is an absolute path or a name on PATH."`
	Timeout time.Duration `mesh:"timeout" default:"10s" doc:"How long one run may take, at most 20s."`
}

// validate finds what the types can't: meshhost validate shows it with file,
// line and caret.
func validate(_ context.Context, c config) sdk.Diagnostics {
	var diags sdk.Diagnostics
	switch {
	case len(c.Command) == 0:
		diags = append(diags, sdk.Invalid([]string{"command"}, "command is empty", `Name a program, such as command = ["/usr/bin/logger"].`))
	case strings.Contains(c.Command[0], "/") && !filepath.IsAbs(c.Command[0]):
		diags = append(diags, sdk.Invalid([]string{"command", "0"}, "the program's path is relative", "Write an absolute path or a name on PATH."))
	default:
		if _, err := exec.LookPath(c.Command[0]); err != nil {
			diags = append(diags, sdk.Invalid([]string{"command", "0"}, fmt.Sprintf("%s can't be run", c.Command[0]), "Check that it exists and is executable."))
		}
	}
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		diags = append(diags, sdk.Invalid([]string{"timeout"}, "timeout is out of range", fmt.Sprintf("Write more than 0 and at most %q.", maxTimeout)))
	}
	return diags
}

// handler runs the command. The SDK lets no call run beside Configure, so
// config and dir need no lock.
type handler struct {
	config config
	dir    string

	mu sync.Mutex // one command at a time
	// ran holds what came of pushes, for the case that the host gives them to us
	// again because it was not told or did not hear. At half of maxRan it becomes
	// older, and what was older is forgotten.
	ran, older map[string]sdk.Outcome
}

// maxRan bounds what the handler remembers, in pushes.
const maxRan = 20_000

func (h *handler) configure(_ context.Context, c config, env sdk.Env) error {
	h.config, h.dir = c, env.DataDir
	return nil
}

// errBusy makes the host wait and give the same batch again. Retry for each
// push would do so too, but cost an attempt, and there are 20.
var errBusy = sdk.Errorf(sdk.CodeUnavailable, "busy", "the commands of this batch need longer than one call has")

// Handle is sdk.PushHandler.
func (h *handler) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcomes := make([]sdk.Outcome, len(pushes))
	started := 0
	for i := range pushes {
		p := &pushes[i]
		out, ok := h.known(p.ID)
		if !ok {
			if end, limited := ctx.Deadline(); limited && started > 0 && time.Until(end) < h.config.Timeout+margin {
				return nil, errBusy
			}
			started++
			out = h.run(ctx, p)
			if err := ctx.Err(); err != nil {
				return nil, err // cut off by the host: whether it worked is unknown
			}
			h.remember(p.ID, out)
		}
		outcomes[i] = out
	}
	for i := range outcomes {
		if outcomes[i].Decision == sdk.Retry { // told now; when it comes again, it is to be run
			delete(h.ran, pushes[i].ID)
			delete(h.older, pushes[i].ID)
		}
	}
	return outcomes, nil
}

func (h *handler) known(id string) (out sdk.Outcome, ok bool) {
	if out, ok = h.ran[id]; !ok {
		out, ok = h.older[id]
	}
	return out, ok
}

func (h *handler) remember(id string, out sdk.Outcome) {
	if len(h.ran) >= maxRan/2 {
		h.ran, h.older = nil, h.ran
	}
	if h.ran == nil {
		h.ran = map[string]sdk.Outcome{}
	}
	h.ran[id] = out
}

// run runs the command for one push.
func (h *handler) run(ctx context.Context, p *sdk.Push) sdk.Outcome {
	if p.Undecryptable {
		return sdk.Outcome{Decision: sdk.Drop, Reason: "no key of ours opens it"}
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.config.Command[0], h.config.Command[1:]...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "MESH_NAME="+p.Mesh, "MESH_KIND="+string(p.Kind), "MESH_ID="+p.ID,
		"MESH_SENDER="+p.Sender, "MESH_SENDER_NAME="+strings.ReplaceAll(p.SenderName, "\x00", ""))
	cmd.Stdin = bytes.NewReader(p.Body)
	cmd.WaitDelay = pipeWait
	err := cmd.Run()
	switch {
	case err == nil:
		return sdk.Outcome{Decision: sdk.Ack}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return sdk.Outcome{Decision: sdk.Retry, Reason: fmt.Sprintf("%s took longer than %s", h.config.Command[0], h.config.Timeout)}
	default:
		return sdk.Outcome{Decision: sdk.Retry, Reason: fmt.Sprintf("%s: %v", h.config.Command[0], err)}
	}
}
