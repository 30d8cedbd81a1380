package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A plugin sends only with allow = ["send"]: the example that answers while
// somebody is away, without the grant and with it.
func TestAPluginSendsOnlyWithTheGrant(t *testing.T) {
	t.Parallel()
	bin := binaries(t)
	own := bin
	own.plugins = shortDir(t) // other tests count what is in the shared one
	names, err := filepath.Glob(filepath.Join(bin.plugins, "*"))
	must(t, err)
	for _, name := range names {
		must(t, os.Symlink(name, filepath.Join(own.plugins, filepath.Base(name))))
	}
	compile(t, "", filepath.Join(own.plugins, "meshhost-push-away"), "./examples/push-away")
	w := newWorld(t, own, 2)
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.edit("push_handler \"inbox\" {", "push_handler \"away\" {\n config { text = \"Away until Monday.\" }\n}\npush_handler \"inbox\" {")
	b.up()

	a.up()
	b.at(t).run("send", a.member.PublicKey, "first", "-wait", "delivered").exits(0)
	await(t, 20*time.Second, "the refusal is in the log", func() error {
		if said := a.proc.text(); !strings.Contains(said, "handler=away") || !strings.Contains(said, `allow = [`) {
			return errors.New("it is not")
		}
		return nil
	})
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	refused := len(b.inbox())

	a.edit("push_handler \"away\" {", "push_handler \"away\" {\n allow = [\"send\"]")
	a.up()
	for _, text := range []string{"second", "third"} { // one answer a sender
		b.at(t).run("send", a.member.PublicKey, text, "-wait", "delivered").exits(0)
	}
	await(t, 20*time.Second, "the answer is in the inbox", func() error {
		if len(b.inbox()) == refused {
			return errors.New("it is not")
		}
		return nil
	})
	await(t, 20*time.Second, "all is handled", func() error { return a.at(t).run("inbox").has("first", "second", "third") })
	a.proc.signal(syscall.SIGTERM, 10*time.Second)
	got := b.inbox()
	for id, body := range got {
		if body != "Away until Monday." || !strings.HasPrefix(id, "away-") {
			t.Errorf("%s: %q", id, body)
		}
	}
	fmt.Printf("RESULT grant_send without=%d with=%d\n", refused, len(got)-refused)
	if refused != 0 || len(got) != 1 {
		t.Errorf("%d answers without the grant, %d with it", refused, len(got)-refused)
	}
}
