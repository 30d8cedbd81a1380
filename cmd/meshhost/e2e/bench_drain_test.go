package e2e

import (
	"syscall"
	"testing"
	"time"
)

const (
	backlog = 5000
	// window is how many sends a lane may have on the wire with one to each of
	// 64 targets.
	window = targets
)

// benchDrain measures a backlog to 64 targets, from the first push that a
// recipient sees to the last. The broker pushes with the ack, so this is the
// time from the first send to the last ack.
func benchDrain(b *testing.B, bin built, tab *table) {
	memory := &figure{name: "drain", unit: "1/s", per: backlog, aim: 15000, reference: "62, 2781 without its poll"}
	restart := &figure{name: "drain_after_restart", unit: "1/s", per: backlog, aim: 15000}
	for range runs {
		s := startBare(b)
		c, err := dialRaw(s.tcp, "/")
		if err != nil {
			b.Fatal(err)
		}
		w := newWorld(b, bin, targets+2)
		bareDrain(b, w, c, memory, restart)
		c.conn.Close()
		s.proc.kill()
		w.end()
		memory.add(drainOfMemory(b, bin, memory))
		restart.add(drainAfterRestart(b, bin, restart))
	}
	tab.add(b, memory)
	tab.add(b, restart)
}

// bareDrain sends the same frames with the same window without the daemon: to a
// WebSocket server that only acks, and to the broker with all recipients there.
func bareDrain(b *testing.B, w *world, ws *rawConn, figures ...*figure) {
	b.Helper()
	a := w.seats(1, targets)
	defer a.leave()
	a.expect(backlog)
	m, err := w.join(0)
	if err != nil {
		b.Fatal(err)
	}
	defer m.conn.Close()
	var frames [][]byte
	each := make([][][]byte, targets)
	for i := range each {
		if each[i], _, err = m.frames(w.members[1+i].PublicKey, backlog/targets+1); err != nil {
			b.Fatal(err)
		}
	}
	for i := range backlog {
		frames = append(frames, each[i%targets][i/targets])
	}
	begin := time.Now()
	if err := ws.pipeline(frames, window); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	begin = time.Now()
	if err := m.pipeline(frames, window); err != nil {
		b.Fatal(err)
	}
	a.wait(b, time.Minute)
	broker := time.Since(begin)
	for _, f := range figures {
		f.ceil("broker_and_bare_sender", backlog/broker.Seconds())
		f.ceil("websocket_window_64", backlog/took.Seconds())
	}
}

// enqueue has 64 clients queue the backlog.
func (d *daemon) enqueue(b testing.TB) {
	b.Helper()
	requests := d.w.requests()
	for _, part := range []struct{ clients, n int }{{64, backlog - backlog%64}, {1, backlog % 64}} {
		v := volley{
			sock: d.socket, path: "/v1/send", clients: part.clients, n: part.n,
			body: func(c, i int) []byte { return requests[(c+i)%targets] },
		}
		if _, err := v.fire(); err != nil {
			b.Fatal(err)
		}
	}
}

// drainOfMemory freezes the broker while the backlog is queued: the daemon has
// all of it in memory, connected, when the broker goes on.
func drainOfMemory(b *testing.B, bin built, f *figure) float64 {
	w, d := sender(b, bin)
	a := w.seats(1, targets)
	a.expect(backlog)
	freeze(b, w.broker.pid())
	d.enqueue(b)
	pids := d.pids()
	m := newMeter(b, pids)
	thaw(b, w.broker.pid())
	a.wait(b, time.Minute)
	m.read(f)
	return drained(b, w, d, a)
}

// drainAfterRestart starts a daemon that finds the backlog in its outbox.
func drainAfterRestart(b *testing.B, bin built, f *figure) float64 {
	w, d := sender(b, bin)
	w.broker.kill()
	d.enqueue(b)
	d.http.CloseIdleConnections()
	d.proc.signal(syscall.SIGTERM, 15*time.Second)
	w.startBroker()
	a := w.seats(1, targets)
	a.expect(backlog)
	d.launch()
	m := newMeter(b, map[string]int{"host": d.proc.pid(), "broker": w.broker.pid()})
	a.wait(b, time.Minute)
	m.read(f)
	return drained(b, w, d, a)
}

// drained ends the run, checks that each message came once and is settled, and
// returns the rate.
func drained(b *testing.B, w *world, d *daemon, a *audience) float64 {
	b.Helper()
	w.end(d)
	a.leave()
	if n := d.outboxRows("WHERE state IN ('accepted', 'delivered')"); n != backlog {
		b.Fatalf("%d of %d rows are settled as accepted", n, backlog)
	}
	for id, n := range a.ids {
		if n != 1 {
			b.Fatalf("%s was pushed %d times", id, n)
		}
	}
	return backlog / a.last.Sub(a.first).Seconds()
}

func freeze(b testing.TB, pid int) { b.Helper(); signalPID(b, pid, syscall.SIGSTOP) }
func thaw(b testing.TB, pid int)   { b.Helper(); signalPID(b, pid, syscall.SIGCONT) }
