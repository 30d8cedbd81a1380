package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// runtimePrefix begins the name of each incarnation's directory.
const runtimePrefix = "p"

// runtimeDir makes the private directory of one incarnation. Its path is short,
// since sockets go there.
func runtimeDir(parent string) (string, error) {
	if parent != "" {
		if err := ensureDir(parent); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp(parent, runtimePrefix) // mode 0700
	if err != nil {
		return "", err
	}
	if n := len(dir) + len("/plugin4294967295"); n > maxSocketPath {
		_ = os.Remove(dir)
		return "", fmt.Errorf("%s is too long: a socket in it would have a path of %d bytes, and %d are possible; set TMPDIR to a shorter one", dir, n, maxSocketPath)
	}
	return dir, nil
}

// ClearRuntimeDir removes what incarnations of a host that was killed left in
// dir. Only for a dir that no running host uses.
func ClearRuntimeDir(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, runtimePrefix+"[0-9]*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range left {
		errs = append(errs, os.RemoveAll(d))
	}
	return errors.Join(errs...)
}

// ensureDir makes a directory with mode 0700, or uses the one that is there
// unless others could write to it: also where a sticky bit keeps them from
// removing files, since they could put some there.
func ensureDir(dir string) error {
	if dir == "" {
		return errors.New("no directory given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is writable by group or others; run chmod go-w on it", dir)
	}
	return nil
}
