package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in data_dir whose lock makes one daemon its owner. The
// lock, not the file, counts: the kernel lets go of it with the process.
const lockName = "meshhost.lock"

// InUseError says that another daemon owns the data directory.
type InUseError struct {
	DataDir string
	// Owner is what that daemon wrote of itself: its pid and socket.
	Owner string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("data_dir %s belongs to a running meshhost (%s)", e.DataDir, e.Owner)
}

// lock is the ownership of a data directory.
type lock struct{ f *os.File }

// takeLock makes this process the owner of dir, which exists.
func takeLock(dir, socket string) (*lock, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data_dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		owner, _ := io.ReadAll(io.LimitReader(f, 512)) // what can't be read is named so below
		text := strings.Join(strings.Fields(string(owner)), " ")
		if text == "" {
			text = "it has not written its pid yet"
		}
		return nil, &InUseError{DataDir: dir, Owner: text}
	}
	text := "pid " + strconv.Itoa(os.Getpid()) + ", socket " + socket + "\n"
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &lock{f}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// release gives the directory up.
func (l *lock) release() error { return l.f.Close() }
