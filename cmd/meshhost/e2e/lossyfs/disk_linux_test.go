package lossyfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// child makes this binary the process that uses the mount: the one that serves
// it must not.
const child = "LOSSYFS_TEST_STEPS"

func TestMain(m *testing.M) {
	if steps := os.Getenv(child); steps != "" {
		// Not by exec.Cmd's Dir: between fork and exec a process of Go stands
		// still, and it is the one that would have to serve the directory.
		err := os.Chdir(os.Args[1])
		if err == nil {
			err = carryOut(steps)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// carryOut runs steps, one a line: "write FILE OFFSET TEXT", "sync FILE" and so on.
func carryOut(steps string) error {
	for line := range strings.Lines(steps) {
		var verb, name, arg string
		var n int64
		_, _ = fmt.Sscan(line, &verb, &name, &n, &arg)
		var err error
		switch verb {
		case "mkdir":
			err = os.Mkdir(name, 0o700)
		case "remove":
			err = os.Remove(name)
		case "rename":
			_, _ = fmt.Sscan(line, &verb, &name, &arg)
			err = os.Rename(name, arg)
		case "truncate":
			err = os.Truncate(name, n)
		default:
			var f *os.File
			if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil && verb == "sync" {
				f, err = os.Open(name) // a directory
			}
			if err != nil {
				return err
			}
			if verb == "sync" {
				err = f.Sync()
			} else {
				_, err = f.WriteAt(bytes.Repeat([]byte(arg), PageSize), n*PageSize)
			}
			if err2 := f.Close(); err == nil {
				err = err2
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// use mounts the disk, lets a process do the steps and unmounts.
func use(t *testing.T, d *Disk, steps string) error {
	t.Helper()
	dir := t.TempDir()
	m, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), child+"="+steps)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return err
}

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, n)) }

// text is a file as one letter a page, "-" for a page of zeros; "" if there is none.
func text(d *Disk, name string) string {
	raw, err := d.ReadFile(name)
	if err != nil {
		return ""
	}
	var b strings.Builder
	b.WriteByte('|')
	for n := int64(0); n*PageSize < int64(len(raw)); n++ {
		if c := raw[n*PageSize]; c == 0 {
			b.WriteByte('-')
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestACutTakesWhatWasNotSynced(t *testing.T) {
	Require(t)
	for _, c := range []struct {
		name, steps string
		loss        Loss
		want        map[string]string
	}{
		{"all synced", "write a 0 x\nsync a\nsync .", Loss{}, map[string]string{"a": "|x"}},
		{"content", "write a 0 x\nsync a\nsync .\nwrite a 0 y\nwrite a 1 y", Loss{Pages: 2}, map[string]string{"a": "|x"}},
		{"a name", "write a 0 x\nsync a", Loss{Names: 1, Pages: 1}, map[string]string{"a": ""}},
		{"a name without content", "write a 0 x\nsync .", Loss{Pages: 1}, map[string]string{"a": "|"}},
		{"a removal", "write a 0 x\nsync a\nsync .\nremove a", Loss{Names: 1}, map[string]string{"a": "|x"}},
		{"a replacement", "write a 0 x\nsync a\nwrite b 0 y\nsync b\nsync .\nrename b a", Loss{Names: 1}, map[string]string{"a": "|x", "b": "|y"}},
		{"a replacement that was synced", "write a 0 x\nsync a\nwrite b 0 y\nsync b\nsync .\nrename b a\nsync .", Loss{}, map[string]string{"a": "|y", "b": ""}},
		{"a cut to length", "write a 0 x\nwrite a 1 y\nsync a\nsync .\ntruncate a 10", Loss{Pages: 2}, map[string]string{"a": "|xy"}},
		{"a cut to length, then growth", "write a 0 x\nwrite a 1 y\nsync a\nsync .\ntruncate a 0\nwrite a 1 z", Loss{Pages: 2}, map[string]string{"a": "|xy"}},
		{"a directory", "mkdir d\nwrite d/a 0 x\nsync d/a\nsync d", Loss{Names: 1, Pages: 1}, map[string]string{"d/a": ""}},
		{"scratch is not counted", "write a-shm 0 x\nsync .", Loss{}, map[string]string{"a-shm": "|"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New("-shm")
			if err := use(t, d, c.steps); err != nil {
				t.Fatal(err)
			}
			if loss := d.Cut(Drop, seeded(1)); loss != c.loss {
				t.Errorf("lost %+v, want %+v", loss, c.loss)
			}
			for name, want := range c.want {
				if got := text(d, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestATornCutTakesHalf(t *testing.T) {
	Require(t)
	shapes := map[string]int{}
	for seed := range uint64(40) {
		d := New()
		if err := use(t, d, "write a 0 x\nwrite a 1 x\nsync a\nsync .\nwrite a 0 y\nwrite a 1 y\nwrite a 2 y\nwrite a 3 y"); err != nil {
			t.Fatal(err)
		}
		loss := d.Cut(Torn, seeded(seed))
		got := text(d, "a")
		shapes[got]++
		if kept := strings.Count(got, "y"); loss.Pages != 4-kept || kept > 2 {
			t.Errorf("seed %d: %+v, file %q", seed, loss, got)
		}
		again := New()
		if err := use(t, again, "write a 0 x\nwrite a 1 x\nsync a\nsync .\nwrite a 0 y\nwrite a 1 y\nwrite a 2 y\nwrite a 3 y"); err != nil {
			t.Fatal(err)
		}
		if again.Cut(Torn, seeded(seed)); text(again, "a") != got {
			t.Errorf("seed %d gives %q and %q", seed, got, text(again, "a"))
		}
	}
	if len(shapes) < 5 {
		t.Errorf("only %v", shapes)
	}
}

func TestASyncThatFailedIsNotMadeGoodByAnother(t *testing.T) {
	Require(t)
	d := New()
	if err := use(t, d, "write a 0 x\nwrite a 1 x\nsync a\nsync ."); err != nil {
		t.Fatal(err)
	}
	fault := SyncError()
	d.Inject(fault)
	if err := use(t, d, "write a 0 y\nwrite a 1 y\nsync a"); err == nil || fault.Fired() != 1 {
		t.Fatalf("the sync: %v, fired %d", err, fault.Fired())
	}
	d.Inject()
	if err := use(t, d, "write a 1 z\nsync a"); err != nil {
		t.Fatal(err)
	}
	if text(d, "a") != "|yz" {
		t.Fatalf("before the cut: %s", text(d, "a"))
	}
	if d.Cut(Drop, seeded(1)); text(d, "a") != "|xz" {
		t.Errorf("after the cut: %s", text(d, "a"))
	}
}

func TestFaultsAnswer(t *testing.T) {
	Require(t)
	for name, c := range map[string]struct {
		fault *Fault
		steps string
		want  error
	}{
		"no space":              {NoSpace(), "write a 9 x", syscall.ENOSPC},
		"no space for a name":   {NoSpace(), "write b 0 x", syscall.ENOSPC},
		"no space, no growth":   {NoSpace(), "write a 0 x", nil},
		"writes":                {WriteError(), "write a 0 x", syscall.EIO},
		"syncs":                 {SyncError(), "sync a", syscall.EIO},
		"read-only":             {ReadOnly(), "truncate a 0", syscall.EROFS},
		"read-only, a sync":     {ReadOnly(), "sync a", nil},
		"of another file alone": {&Fault{Suffix: "-wal", Err: syscall.EIO}, "write a 0 x", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := New()
			if err := use(t, d, "write a 0 x\nsync a\nsync ."); err != nil {
				t.Fatal(err)
			}
			d.Inject(c.fault)
			err := use(t, d, c.steps)
			if (err == nil) != (c.want == nil) || c.want != nil && !strings.Contains(err.Error(), c.want.Error()) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if (c.fault.Fired() > 0) != (c.want != nil) {
				t.Errorf("fired %d times", c.fault.Fired())
			}
		})
	}
}

func TestWithoutPowerARequestHangsUntilTheProcessIsDead(t *testing.T) {
	Require(t)
	d := New()
	if err := use(t, d, "write a 0 x\nsync a\nsync ."); err != nil {
		t.Fatal(err)
	}
	d.Arm(func(ev Event) bool { return ev == Event{OpSync, "a"} })
	dir := t.TempDir()
	m, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), child+"=write a 0 y\nsync a\nwrite "+filepath.Join(t.TempDir(), "after")+" 0 x")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-d.Dead()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.Release()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("it was not killed but ended: %v", err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if loss := d.Cut(Drop, seeded(1)); loss.Pages != 1 || text(d, "a") != "|x" {
		t.Errorf("lost %+v, file %s", loss, text(d, "a"))
	}
}
