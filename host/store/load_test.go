package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loadEnv makes this test binary a process that uses a store: "load DIR ROUND"
// works until it is killed, "dump DIR" says what is there.
const loadEnv = "MESHHOST_STORE_LOAD"

// loadWorkers write at the same time, so that writes share transactions.
const loadWorkers = 8

// loadProcess is the process. Each worker carries out the steps 0, 1, 2 … of its
// round, the same ones each time, and says so after each.
func loadProcess(command string) error {
	words := strings.Fields(command)
	if err := os.MkdirAll(words[1], 0o700); err != nil { // as the host does
		return err
	}
	s, err := Open(context.Background(), words[1], Options{})
	if err != nil {
		return err
	}
	if words[0] == "dump" {
		return errors.Join(dump(s), s.Close())
	}
	round, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	h, _, err := s.Handlers(context.Background(), []string{"a", "b"})
	if err != nil {
		return err
	}
	fmt.Println("open")
	errs := make([]error, loadWorkers)
	var wg sync.WaitGroup
	for w := range loadWorkers {
		wg.Go(func() { errs[w] = work(s, h, round, w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// retryEvery is how soon a worker repeats what failed.
const retryEvery = 5 * time.Millisecond

// persist repeats a write of a worker until it succeeds, and tells of each failure.
func persist(w int, write func() error) {
	for {
		err := write()
		if err == nil {
			return
		}
		fmt.Printf("failed %d 0 %v\n", w, err)
		<-time.NewTimer(retryEvery).C
	}
}

// work goes on until the process ends.
func work(s *Store, h map[string]int64, round, w int) error {
	var seqs []int64
	for step := 0; ; step++ {
		r := pushOf(round, w, step)
		r.Handlers = []int64{h["a"], h["b"]}
		var marks []Mark
		if step >= 1 {
			marks = append(marks, Mark{Kind: MarkDone, Seq: seqs[step-1], Handler: h["a"]})
		}
		if step >= 2 {
			m := fateOf(step - 2)
			m.Seq, m.Handler = seqs[step-2], h["b"]
			marks = append(marks, m)
		}
		var results []JournalResult
		persist(w, func() (err error) {
			results, _, err = s.Journal(context.Background(), []JournalRow{r}, marks)
			return err
		})
		if results[0].State != Stored {
			return fmt.Errorf("step %d of worker %d: %+v", step, w, results[0])
		}
		seqs = append(seqs, results[0].Seq)
		fmt.Printf("step %d %d\n", w, step)
		if step%4 == 3 {
			persist(w, func() error {
				return s.KVPut(context.Background(), "load", fmt.Sprintf("%d/%d", round, w), []byte(strconv.Itoa(step)))
			})
			fmt.Printf("kv %d %d\n", w, step)
		}
	}
}

// pushOf is what a worker stores in a step.
func pushOf(round, w, step int) JournalRow {
	id := sha256.Sum256(fmt.Appendf(nil, "%d/%d/%d", round, w, step))
	r := JournalRow{Mesh: "team", OrderKey: int64(w), ReceivedAt: time.Now(), Frame: bytes.Repeat(id[:], 3+int(binary.LittleEndian.Uint16(id[:]))%90)}
	copy(r.ID[:], id[:])
	r.Keys = []DedupKey{DedupKey(id[16:32])}
	return r
}

// fateOf is what handler b makes of a push, two steps later.
func fateOf(step int) Mark {
	switch step % 3 {
	case 0:
		return Mark{Kind: MarkDone}
	case 1:
		return Mark{Kind: MarkDead, Attempts: step, Reason: "load"}
	default:
		return Mark{Kind: MarkRetry, Attempts: step + 1, Due: time.Now()}
	}
}

// after is what must be there when a worker has done steps: a line for each
// thing, as lines reads them from a file and dump from a store.
func after(round, w, steps int, kv int) (want []string) {
	for step := range steps {
		r := pushOf(round, w, step)
		id, sum := hex.EncodeToString(r.ID[:]), sha256.Sum256(r.Frame)
		frame := fmt.Sprintf("%s %x", id, sum[:8])
		if step == steps-1 {
			want = append(want, "work a 0 "+frame)
		}
		switch m := fateOf(step); {
		case step >= steps-2:
			want = append(want, "work b 0 "+frame)
		case m.Kind == MarkDead:
			want = append(want, fmt.Sprintf("dead b %d %s", m.Attempts, frame))
		case m.Kind == MarkRetry:
			want = append(want, fmt.Sprintf("work b %d %s", m.Attempts, frame))
		}
	}
	if kv >= 0 {
		want = append(want, fmt.Sprintf("kv %d/%d %d", round, w, kv))
	}
	slices.Sort(want)
	return want
}

// dump prints what the store says it has.
func dump(s *Store) error {
	ctx := context.Background()
	h, _, err := s.Handlers(ctx, []string{"a", "b"})
	if err != nil {
		return err
	}
	frame := func(seq int64) (string, error) {
		f, err := s.Frames(ctx, []int64{seq})
		if err != nil || len(f) != 1 {
			return "", fmt.Errorf("frame %d: %d found, %w", seq, len(f), err)
		}
		sum := sha256.Sum256(f[0].Frame)
		return fmt.Sprintf("%x %x", f[0].ID, sum[:8]), nil
	}
	for name, id := range h {
		for last := int64(0); ; {
			items, err := s.Work(ctx, id, last, 500)
			if err != nil {
				return err
			}
			if len(items) == 0 {
				break
			}
			for _, it := range items {
				line, err := frame(it.Seq)
				if err != nil {
					return err
				}
				fmt.Println("work", name, it.Attempts, line)
				last = it.Seq
			}
		}
	}
	letters, err := s.DeadLetters(ctx, 1<<20)
	if err != nil {
		return err
	}
	for _, l := range letters {
		line, err := frame(l.Seq)
		if err != nil {
			return err
		}
		fmt.Println("dead", l.Handler, l.Attempts, line)
	}
	keys, err := s.KVList(ctx, "load", "")
	if err != nil {
		return err
	}
	for _, k := range keys {
		v, err := s.KVGet(ctx, "load", k)
		if err != nil {
			return err
		}
		fmt.Println("kv", k, string(v))
	}
	fmt.Println("end")
	return nil
}

// loadMain is TestMain's part in it.
func loadMain() bool {
	command := os.Getenv(loadEnv)
	if command == "" {
		return false
	}
	if err := loadProcess(command); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return true
}
