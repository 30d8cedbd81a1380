package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// childEnv tells the test binary to be the process that gets killed.
const childEnv = "OUTBOX_TEST_FILE"

// writeUntilKilled appends and settles rows and says so after each answer.
func writeUntilKilled(path string) {
	s, err := openStore(context.Background(), path, wide, time.Now)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		e := newEntry(benchTarget(i))
		ops := []sdk.Op{{Kind: sdk.OpAppend, Entry: e}}
		if i%2 == 0 {
			ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: e.ID, At: time.Now()})
		}
		if _, err := s.Apply(context.Background(), ops); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("stored", e.ID, len(ops))
	}
}

func TestWhatWasAnsweredSurvivesKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	told := map[string]sdk.EntryState{}
	for range 3 {
		for id, state := range runAndKill(t, path, 60) {
			told[id] = state
		}
	}
	s, err := openStore(context.Background(), path, wide, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for id, state := range told {
		got, err := s.Get(context.Background(), []string{id})
		if err != nil {
			t.Fatal(err)
		}
		if got[0] == nil || got[0].State != state {
			t.Fatalf("%s was told to be %s and is %+v", id, state, got[0])
		}
	}
	wantConsistent(t, s)
}

// runAndKill starts the child, kills it after n answers and returns them all.
func runAndKill(t *testing.T, path string, n int) map[string]sdk.EntryState {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := map[string]sdk.EntryState{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || words[0] != "stored" {
			continue // the last line may be torn
		}
		told[words[1]] = sdk.StatePending
		if words[2] == "2" {
			told[words[1]] = sdk.StateAccepted
		}
		if len(told) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(told) < n {
		t.Fatalf("the child ended by itself: %v, after %d answers", err, len(told))
	}
	return told
}

// wantConsistent checks what the columns and tables repeat of each other.
func wantConsistent(t *testing.T, s *store) {
	t.Helper()
	for name, query := range map[string]string{
		"live repeats state":         `SELECT count(*) FROM entry WHERE live <> (state IN (1, 2))`,
		"rare repeats state":         `SELECT count(*) FROM entry WHERE ifnull(rare, 0) <> CASE WHEN state IN (2, 5, 6, 7) THEN state ELSE 0 END`,
		"unconfirmed repeats state":  `SELECT count(*) FROM entry WHERE ifnull(unconfirmed, 0) <> (state = 3 AND size > 0)`,
		"each queue has its head":    `SELECT count(*) FROM (SELECT lane, target, min(seq) AS seq, due_at FROM entry WHERE live = 1 GROUP BY lane, target EXCEPT SELECT lane, target, seq, due_at FROM head)`,
		"each head has its queue":    `SELECT count(*) FROM (SELECT lane, target, seq, due_at FROM head EXCEPT SELECT lane, target, min(seq), due_at FROM entry WHERE live = 1 GROUP BY lane, target)`,
		"size repeats the body":      `SELECT count(*) FROM entry LEFT JOIN body USING (seq) WHERE size <> ifnull(length(data), 0)`,
		"no body without a row":      `SELECT count(*) FROM body WHERE seq NOT IN (SELECT seq FROM entry)`,
		"each text has its name":     `SELECT count(*) FROM entry e WHERE 5 <> (SELECT count(*) FROM (SELECT e.mesh AS id UNION ALL SELECT e.sender UNION ALL SELECT e.lane UNION ALL SELECT e.target UNION ALL SELECT e.priority) JOIN name USING (id) WHERE until >= e.seq)`,
		"bytes are counted":          `SELECT bytes <> (SELECT ifnull(sum(size), 0) FROM entry) FROM total`,
		"pending is counted":         `SELECT pending <> (SELECT count(*) FROM entry WHERE state = 1) FROM total`,
		"waiting is counted":         `SELECT waiting <> (SELECT count(*) FROM entry WHERE state = 2) FROM total`,
		"accepted is counted":        `SELECT accepted <> (SELECT count(*) FROM entry WHERE state = 3) FROM total`,
		"last_seq is the last":       `SELECT last_seq < (SELECT ifnull(max(seq), 0) FROM entry) FROM total`,
		"last_name is the last":      `SELECT last_name < (SELECT ifnull(max(id), 0) FROM name) FROM total`,
		"a key is stored in one way": `SELECT count(*) FROM entry WHERE client_message_id = id`,
		"the database is sound":      `SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'`,
	} {
		err := s.file.Read(context.Background(), func(conn *sqlite.Conn) error {
			_, err := sqlitefile.One(conn, query, func(stmt *sqlite.Stmt) {
				if n := stmt.ColumnInt64(0); n != 0 {
					t.Errorf("%s: %d exceptions", name, n)
				}
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// explain returns what SQLite says of a statement, one line a row.
func explain(t *testing.T, s *store, how, query string, column int) string {
	t.Helper()
	var lines []string
	err := s.file.Read(context.Background(), func(conn *sqlite.Conn) error {
		return sqlitefile.Each(conn, how+" "+query, func(stmt *sqlite.Stmt) (bool, error) {
			lines = append(lines, stmt.ColumnText(column))
			return true, nil
		})
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return strings.Join(lines, "\n")
}

func TestNoHotStatementScansSortsOrMakesATemporaryTable(t *testing.T) {
	s := open(t, wide)
	for name, query := range map[string]string{
		"insert": sqlInsert, "insert body": sqlInsertBody, "move body": sqlMoveBody, "drop body": sqlDropBody,
		"by key": sqlByKey, "by own": sqlByOwn, "by id": sqlByID, "whole": sqlWhole, "row": sqlRow, "names of": sqlNamesOf,
		"name": sqlName, "name text": sqlNameText, "set name": sqlSetName, "forget names": sqlForgetNames, "first seq": sqlFirstSeq,
		"accepted": sqlAccepted, "delivered": sqlDelivered, "postpone": sqlPostpone, "save": sqlSave, "reroute": sqlReroute,
		"waiting": sqlWaiting, "wake": sqlWake, "first": sqlFirst, "first two": sqlFirstTwo, "last": sqlLast, "queue": sqlQueue,
		"drop head": sqlDropHead, "move head": sqlMoveHead, "heads": sqlHeads, "heads after": sqlHeadsAfter, "oldest": sqlOldest,
		"lane": sqlLane, "done": sqlDone, "marked": sqlMarked, "all": sqlAll, "drop": sqlDrop, "taken": sqlTaken,
		"lane oldest": sqlLaneOldest, "walk end": sqlWalkEnd,
	} {
		if code := explain(t, s, "EXPLAIN", query, 1); strings.Contains(code, "OpenEphemeral") || strings.Contains(code, "Sorter") {
			t.Errorf("%s makes a temporary table", name)
		}
		plan := explain(t, s, "EXPLAIN QUERY PLAN", query, 3)
		if strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s sorts: %s", name, plan)
		}
		if strings.Contains(plan, "SCAN entry") && name != "all" && name != "first seq" { // the first rows of the table
			t.Errorf("%s scans: %s", name, plan)
		}
	}
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("x")}})
	for _, req := range []sdk.ListRequest{
		{Limit: 10, States: []sdk.EntryState{sdk.StateDead}},
		{Limit: 10, States: []sdk.EntryState{sdk.StatePending, sdk.StateWaiting}},
		{Limit: 10},
		{Limit: 10, Mesh: "team", Target: "x"},
	} {
		var query string
		err := s.file.Browse(context.Background(), func(conn *sqlite.Conn) (err error) {
			query, _, err = s.listQuery(conn, req, 9)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if plan := explain(t, s, "EXPLAIN QUERY PLAN", query, 3); strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("list %+v sorts: %s", req, plan)
		}
	}
}

func TestAForgottenLaneComesBackWithAHigherEpoch(t *testing.T) {
	at := time.Now()
	s, err := openStore(context.Background(), filepath.Join(t.TempDir(), "outbox.db"), wide, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	acquire := func(incarnation string) int64 {
		t.Helper()
		lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: "l", Owner: "o", Incarnation: incarnation, TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return lease.Epoch
	}
	acquire("1")
	last := acquire("2")
	at = at.Add(60 * 24 * time.Hour)
	if _, err := s.Prune(context.Background(), sdk.PruneRequest{Before: at, Limit: 1}); err != nil {
		t.Fatal(err)
	}
	lanes := -1
	err = s.file.Read(context.Background(), func(conn *sqlite.Conn) error {
		_, err := sqlitefile.One(conn, "SELECT count(*) FROM lane", func(stmt *sqlite.Stmt) { lanes = stmt.ColumnInt(0) })
		return err
	})
	if err != nil || lanes != 0 {
		t.Fatalf("%d lanes are remembered: %v", lanes, err)
	}
	if epoch := acquire("3"); epoch <= last {
		t.Fatalf("epoch %d after %d", epoch, last)
	}
}

func TestConfigureAgainKeepsWhatIsStored(t *testing.T) {
	var box outbox
	p := box.plugin()
	env := sdk.Env{DataDir: t.TempDir(), Logger: hclog.NewNullLogger()}
	configure := func(config string) sdk.Diagnostics {
		t.Helper()
		d, err := p.Config.Configure(context.Background(), jsontext.Value(config), env)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := configure(`{"path":"` + env.DataDir + `/a.db","max_rows":10,"max_bytes":1048576,"max_entry":262144}`); d.HasErrors() {
		t.Fatal(d)
	}
	e := newEntry("t")
	apply(t, box.store, []sdk.Op{{Kind: sdk.OpAppend, Entry: e}})
	if d := configure(`{"path":"` + env.DataDir + `/a.db","max_rows":1,"max_bytes":1048576,"max_entry":262144}`); d.HasErrors() {
		t.Fatal(d)
	}
	if res := apply(t, box.store, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("t")}}); res[0].Code != sdk.OpFull {
		t.Fatalf("the new limit does not count: %+v", res)
	}
	if err := os.WriteFile(env.DataDir+"/text", []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := configure(`{"path":"` + env.DataDir + `/text","max_rows":1,"max_bytes":1048576,"max_entry":262144}`); !d.HasErrors() {
		t.Fatal("a text file was taken for a database")
	}
	got, err := box.Get(context.Background(), []string{e.ID})
	if err != nil || got[0] == nil {
		t.Fatalf("after a configuration that failed: %v %v", got, err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsHaveDefaultsAndLimits(t *testing.T) {
	var box outbox
	config := box.plugin().Config
	if len(config.Schema().Attributes) != 4 {
		t.Fatalf("schema %+v", config.Schema())
	}
	for _, bad := range []string{
		`{"path":"/x","max_rows":0,"max_bytes":1048576,"max_entry":262144}`,
		`{"path":"/x","max_rows":1,"max_bytes":1,"max_entry":262144}`,
		`{"path":"/x","max_rows":1,"max_bytes":104857600,"max_entry":10485760}`,
	} {
		if d := config.Validate(context.Background(), jsontext.Value(bad)); !d.HasErrors() || len(d[0].Path) != 1 {
			t.Errorf("%s: got %+v", bad, d)
		}
	}
}

func TestASeqThatIsTakenIsAnErrorThatSaysWhy(t *testing.T) {
	s := open(t, wide)
	apply(t, s, []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("t")}})
	err := s.file.Write(context.Background(), func(conn *sqlite.Conn) error {
		s.lastSeq = 0 // as if a hand had put it into the file
		return sqlitefile.Run(conn, "UPDATE total SET last_seq = 0")
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Apply(context.Background(), []sdk.Op{{Kind: sdk.OpAppend, Entry: newEntry("t")}})
	if err == nil || !strings.Contains(err.Error(), "changed by another program") {
		t.Fatalf("got %+v, %v", res, err)
	}
}
