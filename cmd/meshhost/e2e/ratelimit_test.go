package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A broker with the reference's limit, 10 sends at once and 60 a minute: 120
// messages are done in the time that this takes, none dies of it, and their order
// is kept. Questions about deliveries are no sends: they go on meanwhile.
func TestRateLimit(t *testing.T) {
	if os.Getenv("MESHHOST_RATELIMIT") == "" {
		t.Log("RESULT rate_limit not asked for: make ratelimit runs it for two minutes")
		return
	}
	const n, bound = 120, 120 * time.Second
	w := newWorld(t, binaries(t), 2, "-send-burst", "10", "-send-per-minute", "60", "-log", "DIR/frames.log")
	a, b := w.newDaemon(0, nil), w.newDaemon(1, nil)
	a.up()
	b.up()
	v := newDriver(t, a, b.member.PublicKey)
	begin := time.Now()
	v.must(n)
	await(t, 2*bound, "all are done", func() error {
		if got := a.done(); got < n {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
	took := time.Since(begin)
	await(t, 20*time.Second, "the last ones are stored", func() error {
		if got := len(b.inbox()); got < n {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
	lost, ghost, wrong, err := v.check(b.inbox())
	states := a.states()
	dead := states["dead"] + states["expired"] + states["cancelled"]
	arrived := b.arrivals()
	order := slices.Equal(arrived, v.acceptedIDs())
	limited, asks, sends := 0, 0, 0
	for _, f := range frames(t, filepath.Join(w.dir, "frames.log")) {
		switch {
		case f.Dir == "out" && strings.Contains(f.text, "rate_limit:"):
			limited++
		case f.Dir == "in" && strings.Contains(f.text, "message_status"):
			asks++
		case f.Dir == "in" && strings.Contains(f.text, `"targetSpec"`):
			sends++
		}
	}
	fmt.Printf("RESULT rate_limit messages=%d seconds=%.1f dead=%d in_order=%v lost=%d ghost=%d limit_answers=%d asks=%d sends=%d\n",
		n, took.Seconds(), dead, order, lost, ghost, limited, asks, sends)
	switch {
	case err != nil || lost+ghost+wrong > 0:
		t.Errorf("the inbox differs from what was accepted: %v", err)
	case took > bound || dead > 0 || !order:
		t.Errorf("%v, %v", states, arrived)
	case limited == 0 || asks == 0 || sends != n+limited:
		t.Error("there was no limit, or no question, or a send that was repeated though it was not refused")
	case limited > n/10:
		t.Errorf("the broker had to refuse %d sends: its rate was not learned", limited)
	}
}

// states counts the rows of the daemon's outbox, read from its database.
func (d *daemon) states() map[string]int {
	out := map[string]int{}
	d.query("outbox-sqlite/outbox.db", "SELECT * FROM total", func(s *sqlite.Stmt) {
		for _, state := range []string{"pending", "waiting", "accepted", "delivered", "dead", "expired", "cancelled"} {
			out[state] = int(s.GetInt64(state))
		}
	})
	return out
}

// done counts those that the mesh has.
func (d *daemon) done() int {
	s := d.states()
	return s["accepted"] + s["delivered"]
}

// arrivals are the client_message_ids of the inbox in the order of arrival.
func (d *daemon) arrivals() (ids []string) {
	d.query("push-inbox/inbox.db", "SELECT client_message_id FROM messages ORDER BY n", func(s *sqlite.Stmt) {
		ids = append(ids, s.ColumnText(0))
	})
	return ids
}

// query reads a plugin's database.
func (d *daemon) query(file, sql string, row func(*sqlite.Stmt)) {
	d.w.t.Helper()
	conn, err := sqlite.OpenConn(filepath.Join(d.dir, "data", "plugins", file), sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		d.w.t.Fatalf("open %s: %v", file, err)
	}
	defer conn.Close()
	conn.SetBlockOnBusy()
	err = sqlitex.ExecuteTransient(conn, sql, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		row(s)
		return nil
	}})
	if err != nil {
		d.w.t.Fatalf("read %s: %v", file, err)
	}
}
