package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/meshhost/meshhost/cmd/meshhost/e2e/lossyfs"
)

// cuts is how many power cuts a store gets.
func cuts(t testing.TB) int {
	t.Helper()
	s := os.Getenv("MESHHOST_POWERCUT_ROUNDS")
	if s == "" {
		return 4
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("MESHHOST_POWERCUT_ROUNDS is %q, not a number from 1", s)
	}
	return n
}

// fuse skips a test where no file system can be mounted; in CI that is a failure.
func fuse(t testing.TB) {
	t.Helper()
	if err := lossyfs.Missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func TestPowerCutLosesNothingThatTheOutboxAnswered(t *testing.T) {
	fuse(t)
	bin := binaries(t)
	tally := lossyfs.Rounds(t, 1, cuts(t), func() lossyfs.Store { return newBox(t, bin) })
	fmt.Printf("RESULT power_cut store=outbox-sqlite %v\n", tally)
	if err := tally.Failure(); err != nil {
		t.Error(err)
	}
}
