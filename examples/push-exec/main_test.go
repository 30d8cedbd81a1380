package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the plugin behind the real wire, in memory.
func start(t *testing.T, timeout time.Duration, command ...string) *plugintest.Plugin {
	t.Helper()
	list, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	return plugintest.Start(t, plugin(&handler{})).MustConfigure(fmt.Sprintf(`{"command":%s,"timeout":%q}`, list, timeout))
}

// shell is a command that runs a script, and the file that the script has as $0.
func shell(t *testing.T, script string) (command []string, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "out")
	return []string{"sh", "-c", script, file}, file
}

func batch(bodies ...string) []sdk.Push {
	var pushes []sdk.Push
	for i, body := range bodies {
		pushes = append(pushes, sdk.Push{ID: fmt.Sprint("push-", i), Mesh: "team", Kind: sdk.PushDirect, Sender: "key", SenderName: "alice", Body: []byte(body)})
	}
	return pushes
}

func decisions(outcomes []sdk.Outcome) []sdk.Decision {
	var all []sdk.Decision
	for _, o := range outcomes {
		all = append(all, o.Decision)
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheCommandGetsEachMessageInOrder(t *testing.T) {
	command, file := shell(t, `{ cat; echo " $MESH_NAME $MESH_KIND $MESH_ID $MESH_SENDER $MESH_SENDER_NAME"; } >> "$0"`)
	p := start(t, 10*time.Second, command...)
	got, err := p.PushHandler().Handle(t.Context(), batch("one", "two"))
	if err != nil || !slices.Equal(decisions(got), []sdk.Decision{sdk.Ack, sdk.Ack}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if want := "one team direct push-0 key alice\ntwo team direct push-1 key alice\n"; read(t, file) != want {
		t.Errorf("the command saw %q, want %q", read(t, file), want)
	}
}

func TestAFailureIsTriedAgainAndDelaysNobodyElse(t *testing.T) {
	p := start(t, 10*time.Second, "sh", "-c", `read -r line; echo "$line"; test "$line" != bad`)
	got, err := p.PushHandler().Handle(t.Context(), batch("bad\n", "good\n"))
	if err != nil || !slices.Equal(decisions(got), []sdk.Decision{sdk.Retry, sdk.Ack}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got[0].Reason != "sh: exit status 1" {
		t.Errorf("the reason is %q", got[0].Reason)
	}
	// It comes again, and is not remembered as a failure.
	got, err = p.PushHandler().Handle(t.Context(), batch("good now\n"))
	if err != nil || got[0].Decision != sdk.Ack {
		t.Errorf("the second time: %+v, %v", got, err)
	}
}

func TestACommandThatHangsIsEnded(t *testing.T) {
	p := start(t, 50*time.Millisecond, "sleep", "600")
	got, err := p.PushHandler().Handle(t.Context(), batch("x"))
	if err != nil || got[0].Decision != sdk.Retry || got[0].Reason != "sleep took longer than 50ms" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestABatchTooLongForOneCallRunsEachMessageOnce(t *testing.T) {
	command, file := shell(t, `cat >> "$0"`)
	p := start(t, maxTimeout, command...)
	pushes := batch("a", "b", "c")
	// A call that has no more time than one command may take runs one.
	for calls := 1; ; calls++ {
		ctx, cancel := context.WithTimeout(t.Context(), maxTimeout)
		got, err := p.PushHandler().Handle(ctx, pushes)
		cancel()
		switch {
		case err == nil && calls == len(pushes) && slices.Equal(decisions(got), []sdk.Decision{sdk.Ack, sdk.Ack, sdk.Ack}):
			if read(t, file) != "abc" {
				t.Errorf("the commands saw %q", read(t, file))
			}
			return
		case err == nil || calls == len(pushes) || !errors.Is(err, sdk.ErrUnavailable):
			t.Fatalf("call %d: %+v, %v", calls, got, err)
		}
	}
}

// The host gives other senders' messages in between, and a command that fails is not run again before the host asks for it:
// else a few that fail could keep all others from their turn.
func TestMessagesThatWaitForTheirTurnComeToIt(t *testing.T) {
	command, file := shell(t, `read -r line; echo "$line" >> "$0"; test "$line" != bad`)
	p := start(t, maxTimeout, command...)
	first, second := batch("bad\n", "one\n", "two\n"), batch("three\n", "four\n")
	for i := range second {
		second[i].ID = fmt.Sprint("other-", i)
	}
	handle := func(pushes []sdk.Push) ([]sdk.Decision, error) {
		ctx, cancel := context.WithTimeout(t.Context(), maxTimeout) // enough for one command
		defer cancel()
		got, err := p.PushHandler().Handle(ctx, pushes)
		return decisions(got), err
	}
	for calls := range 5 {
		pushes, last, want := first, calls == 4, []sdk.Decision{sdk.Retry, sdk.Ack, sdk.Ack}
		if calls%2 == 1 {
			pushes, last, want = second, calls == 3, []sdk.Decision{sdk.Ack, sdk.Ack}
		}
		got, err := handle(pushes)
		if last && (err != nil || !slices.Equal(got, want)) || !last && !errors.Is(err, sdk.ErrUnavailable) {
			t.Fatalf("call %d: %v, %v", calls, got, err)
		}
	}
	if got := read(t, file); got != "bad\nthree\none\nfour\ntwo\n" {
		t.Errorf("the commands saw %q", got)
	}
	if got, err := handle(first[:1]); err != nil || got[0] != sdk.Retry || !strings.HasSuffix(read(t, file), "two\nbad\n") {
		t.Errorf("asked for again: %v, %v, the commands saw %q", got, err, read(t, file))
	}
}

func TestWhatNobodyCanReadIsDropped(t *testing.T) {
	p := start(t, time.Second, "false")
	pushes := batch("")
	pushes[0].Undecryptable = true
	got, err := p.PushHandler().Handle(t.Context(), pushes)
	if err != nil || got[0].Decision != sdk.Drop {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMistakesAreFoundBeforeTheStart(t *testing.T) {
	p := plugintest.Start(t, plugin(&handler{}))
	for config, path := range map[string]string{
		`{"command":[]}`:                              "command",
		`{"command":["./run.sh"]}`:                    "command.0",
		`{"command":["/nowhere/at/all"]}`:             "command.0",
		`{"command":["true"],"timeout":"21s"}`:        "timeout",
		`{"command":["true"],"timeout":"0s"}`:         "timeout",
		`{"command":["true"],"comand":["also true"]}`: "comand",
	} {
		diags := p.Validate(config)
		if len(diags) != 1 || strings.Join(diags[0].Path, ".") != path || diags[0].Detail == "" {
			t.Errorf("%s: %+v, want one at %s with a next step", config, diags, path)
		}
	}
	if diags := p.Validate(`{"timeout":"1s"}`); len(diags) != 1 || !strings.Contains(diags[0].Detail, `"command" is required`) {
		t.Errorf("without a command: %+v", diags)
	}
	if diags := p.Validate(`{"command":["true"]}`); len(diags) != 0 {
		t.Errorf("a right configuration: %+v", diags)
	}
}
