package identity

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrKeyFile says that a key file can't be trusted as it lies there: wrong kind, owner or mode. The text says what to do.
var ErrKeyFile = errors.New("key file refused")

// maxKeyFile bounds a key file: 128 hex digits and some white space.
const maxKeyFile = 4096

// LoadKeyFile reads a secret key from a file that belongs to this process's user alone: a regular file, not a symbolic link,
// owned by the effective user, with no permission for group or others. Otherwise [ErrKeyFile], with the command that helps.
func LoadKeyFile(path string) (*Key, error) {
	// O_NONBLOCK: opening a named pipe must not wait for a writer; it is refused below.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link; name the file itself", ErrKeyFile, path)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open key file", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat key file", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return nil, fmt.Errorf("%w: %s belongs to uid %d, this process runs as uid %d: chown %d %s", ErrKeyFile, path, st.Uid, uid, uid, path)
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o, others could read the secret key: chmod 600 %s", ErrKeyFile, path, mode, path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if len(raw) > maxKeyFile {
		return nil, fmt.Errorf("key file %s: secret key: %w: over %d bytes, want 128 or 64 hex digits", path, ErrMalformed, maxKeyFile)
	}
	k, err := ParseSecret(string(raw))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// WriteKeyFile writes k as 128 hex digits and a line end to a new file of mode 0600, synced with its directory. An existing
// file is never overwritten ([os.ErrExist]); a file that couldn't be written whole is removed.
func WriteKeyFile(path string, k *Key) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to tell
			_ = os.Remove(path)
		}
	}()
	if err := f.Chmod(0o600); err != nil { // the umask may have taken bits that the owner needs
		return fmt.Errorf("write key file: %w", err)
	}
	if _, err := io.WriteString(f, k.hexSecret()+"\n"); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("write key file: sync directory: %w", err)
	}
	return nil
}
