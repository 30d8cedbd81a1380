package host

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheSecondOwnerLearnsWhoTheFirstIs(t *testing.T) {
	dir := t.TempDir()
	// What an earlier owner with a longer name left must not shine through.
	if err := os.WriteFile(filepath.Join(dir, lockName), []byte(strings.Repeat("x", 400)), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := takeLock(dir, "/run/first.sock")
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(dir, "/run/second.sock")
	var used *InUseError
	if !errors.As(err, &used) {
		t.Fatalf("the second owner got %v", err)
	}
	want := fmt.Sprintf("data_dir %s belongs to a running meshhost (pid %d, socket /run/first.sock)", dir, os.Getpid())
	if err.Error() != want || used.DataDir != dir {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if said := explain(err).Error(); !strings.HasPrefix(said, want+": ") {
		t.Errorf("no next step: %s", said)
	}
	if info, err := os.Stat(filepath.Join(dir, lockName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	third, err := takeLock(dir, "s")
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if err := third.release(); err != nil {
		t.Fatal(err)
	}
}

func TestAnOwnerThatHasNotWrittenItsPidIsAnOwner(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var used *InUseError
	if _, err := takeLock(dir, "s"); !errors.As(err, &used) || used.Owner == "" {
		t.Errorf("got %v", err)
	}
}

func TestTheLockIsNoLinkToAnotherFile(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir, "s"); err == nil {
		t.Error("the link was followed")
	}
	if raw, err := os.ReadFile(victim); err != nil || string(raw) != "precious" {
		t.Errorf("the other file is %q, %v", raw, err)
	}
}

// holdLockIn names the variable that makes TestHoldLock a process that holds
// the lock of a directory.
const holdLockIn = "MESHHOST_TEST_HOLD_LOCK"

// TestHoldLock is the other process of the next test; alone it does nothing.
func TestHoldLock(t *testing.T) {
	dir := os.Getenv(holdLockIn)
	if dir == "" {
		return
	}
	if _, err := takeLock(dir, "held.sock"); err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until it is killed
}

func TestAKilledOwnerHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldLock$")
	cmd.Env = append(os.Environ(), holdLockIn+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "held\n" || err != nil {
		t.Errorf("the other process said %q, %v", line, err)
	}
	var used *InUseError
	if _, err := takeLock(dir, "s"); !errors.As(err, &used) || used.Owner != fmt.Sprintf("pid %d, socket held.sock", cmd.Process.Pid) {
		t.Errorf("while it lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	l, err := takeLock(dir, "s")
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
}
