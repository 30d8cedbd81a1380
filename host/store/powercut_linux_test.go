package store

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshhost/meshhost/cmd/meshhost/e2e/lossyfs"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// underLoad is a store in a process of its own, with the driver's log of what
// that process said it had done.
type underLoad struct {
	cmd   *exec.Cmd
	wg    sync.WaitGroup
	acked atomic.Int64
	fails atomic.Int64

	mu     sync.Mutex
	rounds []*[loadWorkers]progress // by round; nil: another disk's
	last   string                   // what the process said last, if it was not a step
}

// progress is how far a worker got: by its own word, then by what a cut left.
type progress struct{ steps, kv int }

func process(command string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+command)
	return cmd
}

func (u *underLoad) Start(dir string, round int, _ *rand.Rand) error {
	u.cmd = process(fmt.Sprintf("load %s %d", filepath.Join(dir, "data"), round))
	out, err := u.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := u.cmd.Start(); err != nil {
		return err
	}
	for len(u.rounds) <= round {
		u.rounds = append(u.rounds, nil)
	}
	log := &[loadWorkers]progress{}
	for w := range log {
		log[w].kv = -1
	}
	u.rounds[round] = log
	opened := make(chan struct{})
	u.wg.Go(func() {
		defer u.cmd.Wait()
		said := bufio.NewScanner(out)
		for said.Scan() {
			if said.Text() == "open" {
				close(opened)
				continue
			}
			u.note(log, said.Text())
		}
		select {
		case <-opened:
		default:
			close(opened)
		}
	})
	<-opened
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last != "" {
		return fmt.Errorf("the store did not open: %s", u.last)
	}
	return nil
}

func (u *underLoad) note(log *[loadWorkers]progress, line string) {
	var what string
	var w, step int
	u.mu.Lock()
	defer u.mu.Unlock()
	if n, _ := fmt.Sscan(line, &what, &w, &step); n != 3 {
		u.last = line
		return
	}
	switch what {
	case "failed":
		u.fails.Add(1)
		return
	case "kv":
		log[w].kv = step
	default:
		log[w].steps = step + 1
	}
	u.acked.Add(1)
}

func (u *underLoad) Acked() int { return int(u.acked.Load()) }

func (u *underLoad) Failed() int { return int(u.fails.Load()) }

func (u *underLoad) Kill(release func()) error {
	err := u.cmd.Process.Kill()
	release()
	u.wg.Wait()
	if u.cmd.ProcessState.Exited() {
		return fmt.Errorf("the process was to be killed, but had ended by itself: %s", u.last)
	}
	return err
}

// compare holds what is there against the log: each worker's steps are there up
// to the last that it told of, or the one after it, and the same for its key.
func (u *underLoad) compare(have []string, keys map[DedupKey]bool) (v lossyfs.Verdict) {
	slices.Sort(have)
	var want []string
	known := 0
	for round, log := range u.rounds {
		if log == nil {
			continue
		}
		for w := range log {
			p := &log[w]
			if keys != nil {
				there := 0
				for keys[pushOf(round, w, there).Keys[0]] {
					there++
				}
				known += there
				if there < p.steps {
					v.Lost += p.steps - there
				} else if there > p.steps+1 {
					v.Ghost += there - p.steps - 1
				}
				p.steps = there
			}
			if kv := slices.IndexFunc(have, func(line string) bool { return strings.HasPrefix(line, fmt.Sprintf("kv %d/%d ", round, w)) }); kv >= 0 {
				stored, _ := strconv.Atoi(have[kv][strings.LastIndexByte(have[kv], ' ')+1:])
				if stored == p.kv+4 || p.kv == -1 && stored == 3 {
					p.kv = stored // it was done, and nobody told
				}
			}
			want = append(want, after(round, w, p.steps, p.kv)...)
		}
	}
	if keys != nil && len(keys) > known {
		v.Ghost += len(keys) - known
	}
	slices.Sort(want)
	for _, line := range want {
		if _, ok := slices.BinarySearch(have, line); !ok {
			v.Lost++
			v.Err = fmt.Errorf("missing: %s", line)
		}
	}
	for _, line := range have {
		if _, ok := slices.BinarySearch(want, line); !ok {
			v.Ghost++
			v.Err = errors.Join(v.Err, fmt.Errorf("nobody asked for: %s", line))
		}
	}
	return v
}

// CheckFiles reads the file as it is, with nothing but SQLite.
func (u *underLoad) CheckFiles(d *lossyfs.Disk) lossyfs.Verdict {
	dir, err := os.MkdirTemp("", "store")
	if err == nil {
		defer os.RemoveAll(dir)
		var have []string
		var keys map[DedupKey]bool
		if have, keys, err = readFiles(d, dir); err == nil {
			return u.compare(have, keys)
		}
	}
	return lossyfs.Verdict{Lost: u.told(), Err: err}
}

// told is what the process said of the rounds on this disk.
func (u *underLoad) told() (steps int) {
	for _, log := range u.rounds {
		for w := 0; log != nil && w < len(log); w++ {
			steps += log[w].steps
		}
	}
	return steps
}

func readFiles(d *lossyfs.Disk, dir string) (have []string, keys map[DedupKey]bool, err error) {
	for _, suffix := range []string{"", "-wal"} {
		raw, err := d.ReadFile("data/" + FileName + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, FileName+suffix), raw, 0o600)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	conn, err := sqlite.OpenConn(filepath.Join(dir, FileName), sqlite.OpenReadWrite)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	rows := func(query string, f func(*sqlite.Stmt)) {
		if err == nil {
			err = sqlitex.Execute(conn, query, &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error { f(stmt); return nil }})
		}
	}
	var said string
	rows("PRAGMA integrity_check", func(stmt *sqlite.Stmt) { said = stmt.ColumnText(0) })
	line := func(stmt *sqlite.Stmt) { have = append(have, stmt.ColumnText(0)) }
	if err := conn.CreateFunction("sum8", &sqlite.FunctionImpl{NArgs: 1, Deterministic: true, Scalar: sum8}); err != nil {
		return nil, nil, err
	}
	rows(`SELECT 'work ' || name || ' ' || attempts || ' ' || lower(hex(j.id)) || ' ' || sum8(frame)
		FROM work w LEFT JOIN handler h ON h.id = handler LEFT JOIN journal j USING (seq)`, line)
	rows(`SELECT 'dead ' || name || ' ' || attempts || ' ' || lower(hex(j.id)) || ' ' || sum8(frame)
		FROM dead LEFT JOIN handler h ON h.id = handler LEFT JOIN journal j USING (seq)`, line)
	rows(`SELECT 'kv ' || key || ' ' || CAST(value AS TEXT) FROM kv WHERE plugin = 'load'`, line)
	keys = map[DedupKey]bool{}
	rows("SELECT key FROM dedup", func(stmt *sqlite.Stmt) {
		var k DedupKey
		stmt.ColumnBytes(0, k[:])
		keys[k] = true
	})
	wrong := 0
	rows("SELECT (SELECT count(*) FROM journal) <> rows OR (SELECT coalesce(sum(length(frame)), 0) FROM journal) <> bytes FROM journal_size",
		func(stmt *sqlite.Stmt) { wrong = stmt.ColumnInt(0) })
	if err == nil && (said != "ok" || wrong != 0) {
		err = fmt.Errorf("integrity check: %s; journal_size wrong: %d", said, wrong)
	}
	return have, keys, err
}

// CheckOpen asks the store.
func (u *underLoad) CheckOpen(dir string) lossyfs.Verdict {
	out, err := process("dump " + filepath.Join(dir, "data")).Output()
	have := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || have[len(have)-1] != "end" {
		return lossyfs.Verdict{Lost: u.told(), Err: fmt.Errorf("reopen: %w: %s", err, have[len(have)-1])}
	}
	return u.compare(have[:len(have)-1], nil)
}

func TestPowerCutLosesNothingThatTheStoreAnswered(t *testing.T) {
	lossyfs.Require(t)
	n := 4
	if s := os.Getenv("MESHHOST_POWERCUT_ROUNDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("MESHHOST_POWERCUT_ROUNDS is %q, not a number from 1", s)
		}
	}
	tally := lossyfs.Rounds(t, 2, n, func() lossyfs.Store { return &underLoad{} })
	fmt.Printf("RESULT power_cut store=host %v\n", tally)
	if err := tally.Failure(); err != nil {
		t.Error(err)
	}
}

// sum8 is how lines tell frames apart.
func sum8(_ sqlite.Context, args []sqlite.Value) (sqlite.Value, error) {
	sum := sha256.Sum256(args[0].Blob())
	return sqlite.TextValue(fmt.Sprintf("%x", sum[:8])), nil
}

func TestPowerCutDuringTheFirstStartLeavesAStoreThatOpens(t *testing.T) {
	lossyfs.Require(t)
	step := 1
	if os.Getenv("MESHHOST_POWERCUT_ROUNDS") == "" {
		step = 5
	}
	starts := lossyfs.CutStarts(t, 1, step, func() lossyfs.Store { return &underLoad{} })
	fmt.Printf("RESULT power_cut_at_start store=host %v\n", starts)
	if err := starts.Failure(); err != nil {
		t.Error(err)
	}
}

func TestDiskFaultsAreErrorsAndPassWithoutARestart(t *testing.T) {
	lossyfs.Require(t)
	lossyfs.Faults(t, "host", func() lossyfs.Store { return &underLoad{} })
}
