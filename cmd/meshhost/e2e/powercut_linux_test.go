package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
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

// outboxCuts cuts the power of an outbox; the host's own store has the same test
// in its package.
func outboxCuts(t testing.TB, bin built, rounds int) lossyfs.Tally {
	t.Helper()
	return lossyfs.Rounds(t, 1, rounds, func() lossyfs.Store { return newBox(t, bin) })
}

func TestPowerCutLosesNothingThatTheOutboxAnswered(t *testing.T) {
	lossyfs.Require(t)
	tally := outboxCuts(t, binaries(t), cuts(t))
	fmt.Printf("RESULT power_cut store=outbox-sqlite %v\n", tally)
	if err := tally.Failure(); err != nil {
		t.Error(err)
	}
}

func TestPowerCutDuringTheFirstStartLeavesAnOutboxThatOpens(t *testing.T) {
	lossyfs.Require(t)
	bin := binaries(t)
	step := 1
	if os.Getenv("MESHHOST_POWERCUT_ROUNDS") == "" {
		step = 10
	}
	starts := lossyfs.CutStarts(t, 1, step, func() lossyfs.Store { return newBox(t, bin) })
	fmt.Printf("RESULT power_cut_at_start store=outbox-sqlite %v\n", starts)
	if err := starts.Failure(); err != nil {
		t.Error(err)
	}
}

func TestDiskFaultsAreErrorsOfTheOutboxAndPassWithoutARestart(t *testing.T) {
	lossyfs.Require(t)
	bin := binaries(t)
	lossyfs.Faults(t, "outbox-sqlite", func() lossyfs.Store { return newBox(t, bin) })
}

// sabotageRounds are those of a sabotaged store; most of them must lose something.
const sabotageRounds, sabotageLossy = 50, 45

// Stores that do not sync must be noticed by the same rounds that real ones pass.
func TestSabotageOfSyncsIsCaught(t *testing.T) {
	if os.Getenv("MESHHOST_SABOTAGE") == "" {
		t.Log("RESULT sabotage not asked for: make sabotage runs it")
		return
	}
	lossyfs.Require(t)
	t.Run("outbox", func(t *testing.T) {
		tally := outboxCuts(t, binaries(t, "nosync"), sabotageRounds)
		caught := tally.Lossy >= sabotageLossy && tally.Failure() != nil
		fmt.Printf("RESULT sabotage tag=nosync form=outbox-sqlite caught=%v test=TestPowerCutLosesNothingThatTheOutboxAnswered %v\n", caught, tally)
		if !caught {
			t.Errorf("the sabotage survived: %v", tally)
		}
	})
	t.Run("store", func(t *testing.T) {
		const test = "TestPowerCutLosesNothingThatTheStoreAnswered"
		readSources(t)
		cmd := exec.Command("go", "test", "-count", "1", "-v", "-tags", "nosync", "-run", "^"+test+"$", "./host/store")
		cmd.Dir = repo(t)
		cmd.Env = append(os.Environ(), "MESHHOST_POWERCUT_ROUNDS="+strconv.Itoa(sabotageRounds))
		out, err := cmd.CombinedOutput()
		said := regexp.MustCompile(`(?m)^RESULT power_cut store=host (.* lossy_rounds=(\d+) .*)$`).FindSubmatch(out)
		if said == nil {
			t.Fatalf("no result: %v\n%s", err, out)
		}
		lossy, _ := strconv.Atoi(string(said[2]))
		caught := err != nil && lossy >= sabotageLossy
		fmt.Printf("RESULT sabotage tag=nosync form=host_store caught=%v test=%s %s\n", caught, test, said[1])
		if !caught {
			t.Errorf("the sabotage survived: %v\n%s", err, out)
		}
	})
}
