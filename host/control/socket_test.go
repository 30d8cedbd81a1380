package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// shortDir is a private directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, path string, locked bool) (net.Listener, error) {
	t.Helper()
	ln, err := Listen(ListenOptions{Path: path, Locked: locked})
	if err == nil {
		t.Cleanup(func() { ln.Close() })
	}
	return ln, err
}

// stale leaves a socket on which nobody answers.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestSocketIsPrivateFromTheMomentItExists(t *testing.T) {
	old := syscall.Umask(0) // the kindest umask: only our own care makes it 0600
	defer syscall.Umask(old)
	dir := filepath.Join(shortDir(t), "made")
	path := filepath.Join(dir, "m.sock")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var modes []fs.FileMode
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil {
				if m := info.Mode(); len(modes) == 0 || modes[len(modes)-1] != m {
					modes = append(modes, m)
				}
			}
		}
	})
	for range 200 {
		ln, err := Listen(ListenOptions{Path: path, Locked: true})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("socket: %v, %v; want mode 0600", info, err)
		}
		ln.Close()
	}
	close(stop)
	wg.Wait()
	for _, m := range modes {
		if m != fs.ModeSocket|0o600 {
			t.Errorf("a look at the socket found %v", m)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want mode 0700", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("Close left %v", left)
	}
}

func TestListenRefusesWhatIsNotSafe(t *testing.T) {
	for _, c := range []struct {
		name    string
		arrange func(t *testing.T, dir string) (path string, locked bool)
		want    string
	}{
		{"directory that group can write to", func(t *testing.T, dir string) (string, bool) {
			os.Chmod(dir, 0o770)
			return filepath.Join(dir, "s"), true
		}, "chmod go-w"},
		{"directory that others can write to", func(t *testing.T, dir string) (string, bool) {
			os.Chmod(dir, 0o1703)
			return filepath.Join(dir, "s"), true
		}, "chmod go-w"},
		{"a file in its place", func(t *testing.T, dir string) (string, bool) {
			os.WriteFile(filepath.Join(dir, "s"), []byte("mine"), 0o600)
			return filepath.Join(dir, "s"), true
		}, "not a socket"},
		{"a path too long", func(t *testing.T, dir string) (string, bool) {
			return filepath.Join(dir, strings.Repeat("x", MaxSocketPath)), true
		}, "at most 100"},
		{"stale without the lock", func(t *testing.T, dir string) (string, bool) {
			stale(t, filepath.Join(dir, "s"))
			return filepath.Join(dir, "s"), false
		}, "lock on data_dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, locked := c.arrange(t, shortDir(t))
			_, err := listen(t, path, locked)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Listen: %v; want %q in it", err, c.want)
			}
		})
	}
}

func TestAnExistingDirectoryIsUsedAsItIs(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, filepath.Join(dir, "s"), true); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o755 {
		t.Errorf("its mode became %v", info.Mode())
	}
}

func TestAStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	stale(t, path)
	first, err := listen(t, path, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, path, true); !errors.Is(err, ErrInUse) {
		t.Fatalf("second Listen: %v, want ErrInUse", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket is gone: %v", err)
	}
	c.Close()
	if got := first.Addr().String(); got != path {
		t.Errorf("Addr is %s, want %s", got, path)
	}
}

func TestCloseLeavesTheSocketOfASuccessor(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, err := listen(t, path, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, path, true); err != nil {
		t.Fatal(err)
	}
	first.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the successor's socket is gone: %v", err)
	}
	c.Close()
}

func TestALongestPathWorks(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, strings.Repeat("d", MaxSocketPath-len(dir)-3), "s")
	if len(path) != MaxSocketPath {
		t.Fatalf("the test's path has %d bytes", len(path))
	}
	if _, err := listen(t, path, true); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestPeerUIDIsTheKernelsWord(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	ln, err := listen(t, path, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	uid, err := peerUID(got.(*net.UnixConn))
	if err != nil || uid != os.Geteuid() {
		t.Fatalf("peerUID = %d, %v; want %d", uid, err, os.Geteuid())
	}
}

func TestOnlyOurUserAndRootMayConnect(t *testing.T) {
	for _, c := range []struct {
		uid, self int
		ok        bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if got := admitUID(c.uid, c.self) == nil; got != c.ok {
			t.Errorf("uid %d at a daemon of uid %d: admitted %v, want %v", c.uid, c.self, got, c.ok)
		}
	}
}
