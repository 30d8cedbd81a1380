package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what programs see, and what a person sees.
func terminal(t *testing.T) (inside, outside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = outside.Close() })
	must(t, unix.IoctlSetPointerInt(int(outside.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(outside.Fd()), unix.TIOCGPTN)
	must(t, err)
	inside, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = inside.Close() })
	return inside, outside
}

// format = "auto" is text on a terminal and JSON elsewhere.
func TestTheLogIsTextOnATerminalAndJSONElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, binaries(t), 1)
	a := w.newDaemon(0, nil)
	a.edit(`log { format = "text" }`, `log { format = "auto" }`)
	a.up()
	a.proc.signal(unix.SIGTERM, 10*time.Second)
	if said := a.proc.text(); !strings.HasPrefix(said, "{") {
		t.Errorf("to a file:\n%s", said)
	}

	inside, outside := terminal(t)
	cmd := exec.Command(w.bin.meshhost, "-config", a.config)
	cmd.Stdout, cmd.Stderr = inside, inside
	must(t, cmd.Start())
	shown := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(outside) // ends with EIO when the last one inside is closed
		shown <- string(all)
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	a.ready()
	must(t, cmd.Process.Signal(unix.SIGTERM))
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it does not stop")
	}
	must(t, inside.Close())
	select {
	case said := <-shown:
		if strings.Contains(said, `"@level"`) || !strings.Contains(said, "[INFO]") {
			t.Errorf("on a terminal:\n%s", said)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("something holds the terminal")
	}
}
