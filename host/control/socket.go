package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxSocketPath is the longest socket path, in bytes. sun_path holds 104 on the
// smallest system that we know.
const MaxSocketPath = 100

// probeTimeout bounds the question whether somebody answers on a socket.
const probeTimeout = time.Second

// ErrInUse says that another daemon answers on the socket.
var ErrInUse = errors.New("another daemon answers on this socket")

// ListenOptions say where to listen.
type ListenOptions struct {
	// Path of the socket, at most MaxSocketPath bytes.
	Path string
	// Locked says that the caller holds the lock on its data_dir. Only then is
	// a socket on which nobody answers replaced.
	Locked bool
}

// Listen makes the socket. Its directory is made with mode 0700; one that
// exists is used unless group or others can write to it. The socket has mode
// 0600 from the moment that its name exists: it is bound in a directory of its
// own, which nobody else can enter, and moved into place.
//
// Errors: ErrInUse when somebody answers there; others say what to do.
// Closing the listener removes the socket, unless another has replaced it.
func Listen(opts ListenOptions) (net.Listener, error) {
	path, err := filepath.Abs(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", opts.Path, err)
	}
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, at most %d work; choose a shorter one by control { socket }",
			path, len(path), MaxSocketPath)
	}
	dir := filepath.Dir(path)
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := probe(path, opts.Locked); err != nil {
		return nil, err
	}
	return bind(dir, path)
}

// privateDir makes dir, or checks the one that is there.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the control socket: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory of the control socket: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("directory of the control socket: %s has mode %04o, so others could replace the socket; run chmod go-w %s or choose another by control { socket }",
			dir, mode, dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("directory of the control socket: %s belongs to uid %d, who could replace the socket; choose another by control { socket }",
			dir, st.Uid)
	}
	return nil
}

// lockDir keeps two daemons from probing and replacing one socket at the same
// time. The lock is on the directory itself, so no file stays behind.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("directory of the control socket: %w", err)
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// probe returns nil when path is free or holds a socket that may be replaced.
func probe(path string, locked bool) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: a file that is not a socket is there; move it away or choose another by control { socket }", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("control socket %s: %w; stop it or choose another by control { socket }", path, ErrInUse)
	case !errors.Is(err, syscall.ECONNREFUSED):
		// A full backlog answers EAGAIN: somebody is there.
		return fmt.Errorf("control socket %s: %w, or so it seems (%w)", path, ErrInUse, err)
	case !locked:
		return fmt.Errorf("control socket %s: it is stale, but without the lock on data_dir it is not ours to remove", path)
	default:
		return nil
	}
}

// bind makes the socket in a fresh directory inside dir and renames it to path,
// which replaces a stale one in the same step.
func bind(dir, path string) (net.Listener, error) {
	nest, err := freshDir(dir)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(nest)
	born := filepath.Join(nest, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: born, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false) // it would unlink the name that it was born with
	if err := os.Chmod(born, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	self, err := os.Lstat(born)
	if err == nil {
		err = os.Rename(born, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return &listener{UnixListener: ln, path: path, self: self}, nil
}

// freshDir makes a directory with a name so short that a socket path of
// MaxSocketPath bytes still fits sun_path with it.
func freshDir(dir string) (string, error) {
	var err error
	for range 16 {
		var r [2]byte
		rand.Read(r[:])
		nest := filepath.Join(dir, ".m"+hex.EncodeToString(r[:]))
		if err = os.Mkdir(nest, 0o700); err == nil {
			return nest, nil
		}
	}
	return "", fmt.Errorf("directory of the control socket: %w", err)
}

// listener removes its own socket at Close.
type listener struct {
	*net.UnixListener
	path string
	self fs.FileInfo
}

// Close stops listening and removes the socket.
func (l *listener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.self) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// Addr is where clients find it.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// uidError says that a process of somebody else connected.
type uidError struct{ uid, self int }

func (e *uidError) Error() string {
	return "connections of uid " + strconv.Itoa(e.uid) + " are refused; the socket is for uid " + strconv.Itoa(e.self)
}

// admitUID refuses processes of other users. Root is let in: it could become us
// anyway.
func admitUID(uid, self int) error {
	if uid != 0 && uid != self {
		return &uidError{uid, self}
	}
	return nil
}

// checkPeer asks the kernel who connected.
func checkPeer(c *net.UnixConn) error {
	uid, err := peerUID(c)
	if err != nil {
		return fmt.Errorf("ask who connected: %w", err)
	}
	return admitUID(uid, os.Geteuid())
}
