package host

import (
	"fmt"
	"os"
	"path/filepath"
)

// makeDir makes dir with mode 0700, with whatever is missing above it; one that
// exists is used unless group or others can write to it.
func makeDir(what, dir string) error {
	info, err := os.Stat(dir)
	if os.IsNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return fmt.Errorf("make %s: %w", what, err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return fmt.Errorf("make %s: %w", what, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s %s is not a directory: remove it or choose another path", what, dir)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s %s can be written by others (mode %04o): chmod 700 %s", what, dir, info.Mode().Perm(), dir)
	}
	return nil
}
