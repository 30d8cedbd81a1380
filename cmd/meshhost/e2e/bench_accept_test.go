package e2e

import (
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// targets is how many members are sent to.
const targets = 64

// acceptLoad is how accepting is measured: the sender's 202 means durable.
type acceptLoad struct {
	name    string
	clients int
	n       int
	live    bool // connected: everything that is accepted leaves meanwhile
	p50     float64
	p99     float64
	rate    float64 // aims; 0: none
	refRate string
}

var acceptLoads = []acceptLoad{
	{name: "accept_1", clients: 1, n: 2000, p50: 0.6, refRate: "705"},
	{name: "accept_1_live", clients: 1, n: 2000, live: true, p50: 0.6, refRate: "705"},
	{name: "accept_16", clients: 16, n: 19200},
	{name: "accept_64", clients: 64, n: 19200, p99: 10, rate: 20000, refRate: "1254"},
	{name: "accept_64_live", clients: 64, n: 19200, live: true, p99: 10, rate: 20000, refRate: "1254"},
	{name: "accept_256", clients: 256, n: 19200},
}

// sender is a fresh world with a daemon of member 0, recipients and one member
// more.
func sender(b testing.TB, bin built, recipients int, args ...string) (*world, *daemon) {
	w := newWorld(b, bin, recipients+2, args...)
	d := w.newDaemon(0, roomy)
	d.up()
	return w, d
}

// roomy has room for a million messages in the outbox.
func roomy(kind, _ string) string {
	if kind != "outbox" {
		return ""
	}
	return "config {\nmax_rows = 3000000\nmax_bytes = \"4GiB\"\n}"
}

// end stops a run's processes; the next run is not to share cores with them.
func (w *world) end(daemons ...*daemon) {
	for _, d := range daemons {
		d.http.CloseIdleConnections()
		d.proc.signal(syscall.SIGTERM, 15*time.Second)
	}
	w.broker.kill()
}

// pids are the processes of a daemon with its broker.
func (d *daemon) pids() map[string]int {
	return map[string]int{
		"host": d.proc.pid(), "outbox": d.pluginPID("outbox", "sqlite"),
		"inbox": d.pluginPID("push_handler", "inbox"), "broker": d.w.broker.pid(),
	}
}

// requests has one body for each of the first members that are sent to.
func (w *world) requests(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = sendRequest(w.members[1+i].PublicKey)
	}
	return all
}

func benchAccept(b *testing.B, bin built, tab *table, load acceptLoad) {
	p50 := &figure{name: load.name + "_p50", unit: "ms", per: load.n, aim: load.p50, atMost: true}
	p99 := &figure{name: load.name + "_p99", unit: "ms", aim: load.p99, atMost: true}
	rate := &figure{name: load.name + "_rate", unit: "1/s", per: load.n, aim: load.rate, reference: load.refRate}
	for range runs {
		acceptCeilings(b, load, p50, p99, rate)
		acceptRun(b, bin, load, p50, p99, rate)
	}
	tab.add(b, p50)
	tab.add(b, p99)
	tab.add(b, rate)
}

func acceptRun(b *testing.B, bin built, load acceptLoad, p50, p99, rate *figure) {
	w, d := sender(b, bin, targets)
	requests := w.requests(targets)
	var mu sync.Mutex
	ids := make(map[string]bool, load.n)
	v := volley{
		sock: d.socket, path: "/v1/send", clients: load.clients,
		body: func(c, i int) []byte { return requests[(c+i)%targets] },
		took: func(_ int, body []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if id := clientID(body); id == "" || ids[id] {
				return fmt.Errorf("no id, or one twice: %s", body)
			}
			ids[clientID(body)] = true
			return nil
		},
	}
	var a *audience
	if load.live {
		a = w.seats(1, targets)
	} else {
		w.broker.kill()
	}
	warmup := 10 * load.clients
	v.n = warmup
	if a != nil {
		a.expect(warmup)
	}
	if _, err := v.fire(); err != nil {
		b.Fatal(err)
	}
	if a != nil {
		a.wait(b, time.Minute)
		a.expect(load.n)
	}
	pids := d.pids()
	if !load.live {
		delete(pids, "broker")
	}
	v.n = load.n
	m := newMeter(b, pids)
	s, err := v.fire()
	if err != nil {
		b.Fatal(err)
	}
	if a != nil {
		a.wait(b, 2*time.Minute)
	}
	m.read(p50, rate)
	p50.add(median(s.ms))
	p99.add(quantile(s.ms, 0.99))
	rate.add(s.rate())
	w.end(d)
	if a != nil {
		a.leave()
		for id, n := range a.ids {
			if !ids[id] || n != 1 {
				b.Fatalf("%s was pushed %d times; accepted: %v", id, n, ids[id])
			}
		}
	}
	if n := d.outboxRows(""); n != load.n+warmup || len(ids) != load.n+warmup {
		b.Fatalf("%d rows in the outbox, %d ids accepted of %d", n, len(ids), load.n+warmup)
	}
}

// outboxRows counts what the outbox plugin of a stopped daemon has on disk.
func (d *daemon) outboxRows(where string) (n int) {
	d.w.t.Helper()
	return d.rowsOf("sqlite", where)
}

// rowsOf counts what the SQLite outbox of a name has on disk.
func (d *daemon) rowsOf(name, where string) (n int) {
	d.w.t.Helper()
	conn, err := sqlite.OpenConn(filepath.Join(d.dir, "data", "plugins", "outbox-"+name, "outbox.db"), sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		d.w.t.Fatal(err)
	}
	defer conn.Close()
	err = sqlitex.ExecuteTransient(conn, "SELECT count(*) FROM entry "+where, &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil },
	})
	if err != nil {
		d.w.t.Fatal(err)
	}
	return n
}

// acceptCeilings takes, with the same clients and bytes: HTTP with a group fsync
// in another process, HTTP alone, the group fsync alone.
func acceptCeilings(b *testing.B, load acceptLoad, p50, p99, rate *figure) {
	b.Helper()
	s := startBare(b)
	defer s.proc.kill()
	body := sendRequest(fmt.Sprintf("%064d", 0))
	for _, c := range [][2]string{{"http_and_group_fsync", "/sync"}, {"http", "/echo"}} {
		v := volley{sock: s.sock, path: c[1], clients: load.clients, n: load.n, body: func(int, int) []byte { return body }}
		got, err := v.fire()
		if err != nil {
			b.Fatal(err)
		}
		noteAccept(c[0], got, p50, p99, rate)
	}
	got, err := syncAlone(filepath.Join(shortDir(b), "log"), load, body)
	if err != nil {
		b.Fatal(err)
	}
	noteAccept("group_fsync", got, p50, p99, rate)
}

func noteAccept(name string, s shots, p50, p99, rate *figure) {
	p50.ceil(name, median(s.ms))
	p99.ceil(name, quantile(s.ms, 0.99))
	rate.ceil(name, s.rate())
}

// syncAlone is the group fsync without a socket.
func syncAlone(path string, load acceptLoad, body []byte) (shots, error) {
	g, err := newGroupSync(path)
	if err != nil {
		return shots{}, err
	}
	defer g.close()
	ms := make([][]float64, load.clients)
	errs := make([]error, load.clients)
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range load.clients {
		wg.Go(func() {
			for range load.n / load.clients {
				at := time.Now()
				if errs[c] = g.write(body); errs[c] != nil {
					return
				}
				ms[c] = append(ms[c], float64(time.Since(at).Nanoseconds())/1e6)
			}
		})
	}
	wg.Wait()
	s := shots{wall: time.Since(begin)}
	for c := range ms {
		if errs[c] != nil {
			return s, errs[c]
		}
		s.ms = append(s.ms, ms[c]...)
	}
	return s, nil
}
