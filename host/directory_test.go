package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDirectoriesOfOurMakingAreOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := makeDir("data_dir", dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	if err := makeDir("data_dir", dir); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestDirectoriesThatOthersCanWriteToAreRefused(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o500: true, 0o770: false, 0o707: false, 0o720: false, 0o777: false} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		err := makeDir("data_dir", dir)
		if (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if err != nil && (!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "chmod")) {
			t.Errorf("mode %04o: the error says too little: %v", mode, err)
		}
		if info, serr := os.Stat(dir); serr != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %04o became %04o", mode, info.Mode().Perm())
		}
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeDir("data_dir", file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
	if err := makeDir("data_dir", filepath.Join(file, "below")); err == nil {
		t.Error("below a file: no error")
	}
}

// Sockets of plugins lie below the runtime directory, whose path must leave
// room for them.
func TestTheRuntimeDirectoryIsEmptyAndShort(t *testing.T) {
	short, err := os.MkdirTemp("", "mh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	if err := os.MkdirAll(filepath.Join(short, "ipc", "p1"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := runtimeDir(short)
	if err != nil || dir != filepath.Join(short, "ipc") {
		t.Fatalf("%s, %v", dir, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left of an earlier run: %v, %v", left, err)
	}
	long := filepath.Join(short, strings.Repeat("d", 80))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err = runtimeDir(long)
	if err != nil || len(dir) > 64 {
		t.Fatalf("%s, %v", dir, err)
	}
	defer os.RemoveAll(dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
