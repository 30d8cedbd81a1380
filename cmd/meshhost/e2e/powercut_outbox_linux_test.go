package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/meshhost/meshhost/cmd/meshhost/e2e/lossyfs"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// outboxWorkers call the outbox at the same time, so that calls share commits.
const outboxWorkers = 8

// known is what the driver knows of a row that it asked for.
type known struct {
	acked sdk.EntryState   // by the last answer; empty: none yet
	maybe []sdk.EntryState // that calls without an answer asked for
	key   string           // client_message_id
}

// boxUnderTest is the built outbox plugin behind the real boundary, with a
// driver that keeps its own log of what it asked for and what was answered.
type boxUnderTest struct {
	t      testing.TB
	binary string
	run    string // data and runtime directories of the process, not on the disk

	mu    sync.Mutex
	rows  map[string]*known // by id
	acked atomic.Int64      // operations
	fails atomic.Int64      // calls that ended with an error
	fault error             // an answer that makes no sense

	plugin  *plugin.Plugin
	stopped atomic.Bool
	wg      sync.WaitGroup
}

func newBox(t testing.TB, bin built) *boxUnderTest {
	return &boxUnderTest{t: t, binary: filepath.Join(bin.plugins, "meshhost-outbox-sqlite"), run: shortDir(t), rows: map[string]*known{}}
}

// open starts the plugin with its file on the disk. The rest of what it needs is
// elsewhere: this process serves the disk and must not use it.
func (b *boxUnderTest) open(dir string) error {
	config := fmt.Sprintf(`{"path":%q,"max_rows":1000000,"max_bytes":1073741824,"max_entry":262144}`, filepath.Join(dir, "box", "outbox.db"))
	b.plugin = plugin.Start(context.Background(), plugin.Spec{
		Kind: sdk.KindOutbox, Name: "sqlite", Path: b.binary,
		DataDir: filepath.Join(b.run, "d"), RuntimeDir: b.run,
		Config:  func(context.Context, sdk.Description) (jsontext.Value, error) { return jsontext.Value(config), nil },
		Restart: plugin.Restart{Initial: time.Hour, Max: time.Hour, Crashes: 0, Window: time.Hour},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.plugin.Ready(ctx); err != nil {
		b.shut()
		return err
	}
	return nil
}

func (b *boxUnderTest) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b.plugin.Stop(ctx)
}

func (b *boxUnderTest) Start(dir string, _ int, rng *rand.Rand) error {
	if err := b.open(dir); err != nil {
		return err
	}
	b.stopped.Store(false)
	for range outboxWorkers {
		own := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		b.wg.Go(func() { b.load(b.plugin.Outbox(), own) })
	}
	return nil
}

func (b *boxUnderTest) Acked() int { return int(b.acked.Load()) }

func (b *boxUnderTest) Failed() int { return int(b.fails.Load()) }

func (b *boxUnderTest) Kill(release func()) error {
	b.stopped.Store(true)
	err := syscall.Kill(b.plugin.Status().Pid, syscall.SIGKILL)
	release()
	b.wg.Wait()
	b.shut()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(err, b.fault)
}

// next are the states that a row of this worker can go to, and by which op.
var next = map[sdk.EntryState][]struct {
	kind sdk.OpKind
	to   sdk.EntryState
}{
	sdk.StatePending:   {{sdk.OpAccepted, sdk.StateAccepted}, {sdk.OpAccepted, sdk.StateAccepted}, {sdk.OpCancel, sdk.StateCancelled}},
	sdk.StateAccepted:  {{sdk.OpDelivered, sdk.StateDelivered}},
	sdk.StateCancelled: {{sdk.OpRequeue, sdk.StatePending}},
}

// load appends and settles, and repeats what had no answer, as the host does. A
// worker settles its own rows only, so that it knows what it left them in.
func (b *boxUnderTest) load(box sdk.Outbox, rng *rand.Rand) {
	own := map[string]sdk.EntryState{}
	var order []string
	for !b.stopped.Load() {
		ops, to := make([]sdk.Op, 0, 16), make([]sdk.EntryState, 0, 16)
		if len(order) < 16 || rng.IntN(2) == 0 {
			for range 1 + rng.IntN(8) {
				ops, to = append(ops, sdk.Op{Kind: sdk.OpAppend, Entry: boxEntry(rng)}), append(to, sdk.StatePending)
			}
		} else {
			for range 1 + rng.IntN(8) {
				id := order[rng.IntN(len(order))]
				steps := next[own[id]]
				if len(steps) == 0 || slices.ContainsFunc(ops, func(op sdk.Op) bool { return op.ID == id }) {
					continue
				}
				step := steps[rng.IntN(len(steps))]
				ops = append(ops, sdk.Op{Kind: step.kind, ID: id, At: time.Now(), BrokerMessageID: "b-" + id, NotAfter: time.Now().Add(time.Hour)})
				to = append(to, step.to)
			}
		}
		if len(ops) == 0 {
			continue
		}
		b.note(ops, to)
		results, tries := b.apply(box, ops)
		if results == nil || !b.settle(ops, to, results, tries) {
			return
		}
		for i := range ops {
			id := ops[i].ID
			if ops[i].Entry != nil {
				id = ops[i].Entry.ID
				order = append(order, id)
			}
			own[id] = to[i]
		}
	}
}

// retryEvery is how soon the drivers repeat what failed.
const retryEvery = 5 * time.Millisecond

// apply repeats a call until it is answered or the driver is stopped: then nil.
func (b *boxUnderTest) apply(box sdk.Outbox, ops []sdk.Op) (results []sdk.OpResult, tries int) {
	for {
		results, err := box.Apply(context.Background(), ops)
		tries++
		if err == nil {
			return results, tries
		}
		b.fails.Add(1)
		<-time.NewTimer(retryEvery).C
		if b.stopped.Load() {
			return nil, tries
		}
	}
}

func boxEntry(rng *rand.Rand) *sdk.Entry {
	id, now := uuid.Must(uuid.NewV7()).String(), time.Now()
	body := make([]byte, 100+rng.IntN(1900))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	return &sdk.Entry{
		ID: id, ClientMessageID: "c-" + id, Fingerprint: make([]byte, 32), Mesh: "team", Sender: "member", Lane: "team/member",
		Target: fmt.Sprintf("%064x", rng.IntN(32)), Priority: "next", Nonce: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		Body: body, EnqueuedAt: now, NotAfter: now.Add(7 * 24 * time.Hour),
	}
}

// note logs what is about to be asked for.
func (b *boxUnderTest) note(ops []sdk.Op, to []sdk.EntryState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range ops {
		if e := ops[i].Entry; e != nil {
			b.rows[e.ID] = &known{key: e.ClientMessageID, maybe: []sdk.EntryState{to[i]}}
			continue
		}
		row := b.rows[ops[i].ID]
		row.maybe = append(row.maybe, to[i])
	}
}

// settle logs what was answered, after so many tries.
func (b *boxUnderTest) settle(ops []sdk.Op, to []sdk.EntryState, results []sdk.OpResult, tries int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range ops {
		id, want, again := ops[i].ID, sdk.OpApplied, sdk.OpAlready
		if e := ops[i].Entry; e != nil {
			id, want, again = e.ID, sdk.OpStored, sdk.OpExists
		}
		if results[i].Code != want && (tries == 1 || results[i].Code != again) {
			b.fault = fmt.Errorf("%s of %s: %+v", ops[i].Kind, id, results[i])
			return false
		}
		row := b.rows[id]
		row.acked, row.maybe = to[i], nil
		b.acked.Add(1)
	}
	return true
}

// compare holds what is stored, by id, against the log, and takes it for the
// truth of what had no answer.
func (b *boxUnderTest) compare(stored map[string]sdk.EntryState) (v lossyfs.Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, row := range b.rows {
		state, there := stored[id]
		switch {
		case !there && row.acked == "":
			delete(b.rows, id) // asked for, not answered, not done
		case !there:
			v.Lost++
		case state != row.acked && !slices.Contains(row.maybe, state):
			// The answer said more than is there.
			v.Lost++
			v.Err = fmt.Errorf("%s was answered as %q and is %q", id, row.acked, state)
		default:
			row.acked, row.maybe = state, nil
		}
	}
	for id := range stored {
		if b.rows[id] == nil {
			v.Ghost++
		}
	}
	return v
}

// CheckFiles reads the files as they are, without the plugin.
func (b *boxUnderTest) CheckFiles(d *lossyfs.Disk) lossyfs.Verdict {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stored, err := readBox(d, dir)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		return lossyfs.Verdict{Lost: len(b.rows), Err: err}
	}
	return b.compare(stored)
}

// storedStates are the states by their numbers in the file, from 1.
var storedStates = []sdk.EntryState{
	sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled,
}

// readBox copies the outbox off the disk and reads it with nothing but SQLite.
func readBox(d *lossyfs.Disk, dir string) (map[string]sdk.EntryState, error) {
	path := filepath.Join(dir, "outbox.db")
	for _, suffix := range []string{"", "-wal"} {
		raw, err := d.ReadFile("box/outbox.db" + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(path+suffix, raw, 0o600); err != nil {
			return nil, err
		}
	}
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stored := map[string]sdk.EntryState{}
	if err := sound(conn); err != nil {
		return nil, err
	}
	err = sqlitex.Execute(conn, "SELECT id, state FROM entry", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		var id uuid.UUID
		state := stmt.ColumnInt(1)
		if stmt.ColumnBytes(0, id[:]) != len(id) || state < 1 || state > len(storedStates) {
			return fmt.Errorf("a row with id %q and state %d", stmt.ColumnText(0), state)
		}
		stored[id.String()] = storedStates[state-1]
		return nil
	}})
	return stored, err
}

// sound is nil if SQLite finds nothing wrong with a database.
func sound(conn *sqlite.Conn) error {
	return sqlitex.Execute(conn, "PRAGMA integrity_check", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		if said := stmt.ColumnText(0); said != "ok" {
			return fmt.Errorf("integrity check: %s", said)
		}
		return nil
	}})
}

// CheckOpen asks the plugin.
func (b *boxUnderTest) CheckOpen(dir string) lossyfs.Verdict {
	if err := b.open(dir); err != nil {
		return lossyfs.Verdict{Lost: len(b.rows), Err: fmt.Errorf("reopen: %w", err)}
	}
	defer b.shut()
	stored, err := listBox(b.plugin.Outbox())
	if err != nil {
		return lossyfs.Verdict{Lost: len(b.rows), Err: fmt.Errorf("list: %w", err)}
	}
	return b.compare(stored)
}

func listBox(box sdk.Outbox) (map[string]sdk.EntryState, error) {
	stored := map[string]sdk.EntryState{}
	for req := (sdk.ListRequest{Limit: 500}); ; {
		page, err := box.List(context.Background(), req)
		if err != nil {
			return nil, err
		}
		for i := range page.Entries {
			stored[page.Entries[i].ID] = page.Entries[i].State
		}
		if page.Next == "" {
			return stored, nil
		}
		req.Before = page.Next
	}
}
