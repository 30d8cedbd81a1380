package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// drainLoad is a backlog and how many members it is for.
type drainLoad struct {
	name       string
	rows       int
	recipients int
	restart    bool // the rows are found in the outbox by a daemon that has just started
	aim        float64
	reference  string
}

var drainLoads = []drainLoad{
	{name: "drain_1", rows: 20000, recipients: 1, aim: 8000},
	{name: "drain_16", rows: 20000, recipients: 16},
	{name: "drain_64", rows: 20000, recipients: 64, reference: "62, 2781 without its poll"},
	{name: "drain_256", rows: 20000, recipients: 256, aim: 25000},
	{name: "drain_256_after_restart", rows: 20000, recipients: 256, restart: true},
}

// benchDrain measures a backlog to connected recipients, from the first push
// that one of them sees to the last. The broker pushes with the ack, so this is
// the time from the first send to the last ack.
func benchDrain(b *testing.B, bin built, tab *table, load drainLoad) {
	f := &figure{name: load.name, unit: "1/s", per: load.rows, aim: load.aim, reference: load.reference}
	for range runs {
		s := startBare(b)
		c, err := dialRaw(s.tcp, "/")
		if err != nil {
			b.Fatal(err)
		}
		w := newWorld(b, bin, load.recipients+2)
		bareDrain(b, w, c, load, f)
		c.conn.Close()
		s.proc.kill()
		w.end()
		if load.restart {
			f.add(drainAfterRestart(b, bin, load, f))
		} else {
			f.add(drainOfMemory(b, bin, load, f))
		}
	}
	tab.add(b, f)
}

// bareDrain sends the same frames with the same window, one to each recipient,
// without the daemon: to a WebSocket server that only acks, and to the broker
// with all recipients there. With one recipient that is a ping-pong.
func bareDrain(b *testing.B, w *world, ws *rawConn, load drainLoad, f *figure) {
	b.Helper()
	a := w.seats(1, load.recipients)
	defer a.leave()
	a.expect(load.rows)
	m, err := w.join(0)
	if err != nil {
		b.Fatal(err)
	}
	defer m.conn.Close()
	each := make([][][]byte, load.recipients)
	for i := range each {
		if each[i], _, err = m.frames(w.members[1+i].PublicKey, load.rows/load.recipients+1); err != nil {
			b.Fatal(err)
		}
	}
	frames := make([][]byte, 0, load.rows)
	for i := range load.rows {
		frames = append(frames, each[i%load.recipients][i/load.recipients])
	}
	begin := time.Now()
	if err := ws.pipeline(frames, load.recipients); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	begin = time.Now()
	if err := m.pipeline(frames, load.recipients); err != nil {
		b.Fatal(err)
	}
	a.wait(b, time.Minute)
	broker := time.Since(begin)
	rows := float64(load.rows)
	f.ceil("broker_and_bare_sender", rows/broker.Seconds())
	f.ceil(fmt.Sprintf("websocket_window_%d", load.recipients), rows/took.Seconds())
}

// enqueue has 64 clients queue so many messages.
func (d *daemon) enqueue(b testing.TB, load drainLoad) {
	b.Helper()
	requests := d.w.requests(load.recipients)
	for _, part := range []struct{ clients, n int }{{64, load.rows - load.rows%64}, {1, load.rows % 64}} {
		v := volley{
			sock: d.socket, path: "/v1/send", clients: part.clients, n: part.n,
			body: func(c, i int) []byte { return requests[(c+i)%load.recipients] },
		}
		if _, err := v.fire(); err != nil {
			b.Fatal(err)
		}
	}
}

// drainOfMemory freezes the broker while the backlog is queued: the daemon is
// connected, with as much of it in memory as there is room for, when the broker
// goes on.
func drainOfMemory(b *testing.B, bin built, load drainLoad, f *figure) float64 {
	w, d := sender(b, bin, load.recipients)
	a := w.seats(1, load.recipients)
	a.expect(load.rows)
	freeze(b, w.broker.pid())
	d.enqueue(b, load)
	pids := d.pids()
	m := newMeter(b, pids)
	thaw(b, w.broker.pid())
	a.wait(b, time.Minute)
	m.read(f)
	return drained(b, w, d, a, load.rows)
}

// drainAfterRestart starts a daemon that finds the backlog in its outbox.
func drainAfterRestart(b *testing.B, bin built, load drainLoad, f *figure) float64 {
	w, d := sender(b, bin, load.recipients)
	w.broker.kill()
	d.enqueue(b, load)
	d.http.CloseIdleConnections()
	d.proc.signal(syscall.SIGTERM, 15*time.Second)
	w.startBroker()
	a := w.seats(1, load.recipients)
	a.expect(load.rows)
	d.launch()
	m := newMeter(b, map[string]int{"host": d.proc.pid(), "broker": w.broker.pid()})
	a.wait(b, time.Minute)
	m.read(f)
	return drained(b, w, d, a, load.rows)
}

// drained ends the run, checks that each message came once and is settled, and
// returns the rate.
func drained(b *testing.B, w *world, d *daemon, a *audience, rows int) float64 {
	b.Helper()
	w.end(d)
	a.leave()
	if n := d.outboxRows("WHERE state IN (3, 4)"); n != rows {
		b.Fatalf("%d of %d rows are settled as accepted", n, rows)
	}
	for id, n := range a.ids {
		if n != 1 {
			b.Fatalf("%s was pushed %d times", id, n)
		}
	}
	return float64(rows) / a.last.Sub(a.first).Seconds()
}

func freeze(b testing.TB, pid int) { b.Helper(); signalPID(b, pid, syscall.SIGSTOP) }
func thaw(b testing.TB, pid int)   { b.Helper(); signalPID(b, pid, syscall.SIGCONT) }
