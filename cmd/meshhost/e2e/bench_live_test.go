package e2e

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// benchFirstByte measures from a client's 202 to the moment at which the broker
// has read the message, by one clock: what is negative was on the wire before
// the sender knew. One client, one message at a time.
func benchFirstByte(b *testing.B, bin built, tab *table) {
	const n = 2000
	p50 := &figure{name: "first_byte_p50", unit: "ms", aim: 1, atMost: true}
	p99 := &figure{name: "first_byte_p99", unit: "ms"}
	for range runs {
		w, d := sender(b, bin, targets, "-log", "DIR/frames.log")
		a := w.seats(1, targets)
		a.expect(n)
		requests := w.requests(targets)
		answered := make(map[string]time.Duration, n)
		v := volley{
			sock: d.socket, path: "/v1/send", clients: 1, n: n,
			body: func(_, i int) []byte { return requests[i%targets] },
			took: func(_ int, body []byte) error {
				answered[clientID(body)] = monotonic(b)
				return nil
			},
		}
		if _, err := v.fire(); err != nil {
			b.Fatal(err)
		}
		a.wait(b, time.Minute)
		w.end(d)
		a.leave()
		sent, err := firstSends(filepath.Join(w.dir, "frames.log"))
		if err != nil {
			b.Fatal(err)
		}
		ms := make([]float64, 0, n)
		for id, at := range answered {
			s, ok := sent[id]
			if !ok {
				b.Fatalf("%s is not in the broker's log", id)
			}
			ms = append(ms, float64((s-at).Nanoseconds())/1e6)
		}
		p50.add(median(ms))
		p99.add(quantile(ms, 0.99))
	}
	tab.add(b, p50)
	tab.add(b, p99)
}

// firstSends finds when each message was first read by the broker.
func firstSends(log string) (map[string]time.Duration, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sent := map[string]time.Duration{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(`"type":"send"`)) {
			continue
		}
		var l struct {
			MonoNS int64  `json:"mono_ns"`
			Dir    string `json:"dir"`
			Frame  struct {
				ID string `json:"client_message_id"`
			} `json:"frame"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, err
		}
		if _, again := sent[l.Frame.ID]; l.Dir == "in" && !again {
			sent[l.Frame.ID] = time.Duration(l.MonoNS)
		}
	}
	return sent, lines.Err()
}

// benchEndToEnd measures a steady state: 64 clients send to a member whose daemon
// runs on the same cores, until its inbox has everything. All is for one
// recipient, so one message is on the wire at a time.
func benchEndToEnd(b *testing.B, bin built, tab *table) {
	const clients, n = 64, 12800
	f := &figure{name: "end_to_end", unit: "1/s", per: n}
	for range runs {
		w := newWorld(b, bin, 2)
		from, to := w.newDaemon(0, roomy), w.newDaemon(1, nil)
		from.up()
		to.up()
		request := sendRequest(to.member.PublicKey)
		var mu sync.Mutex
		ids := make(map[string]bool, n)
		v := volley{
			sock: from.socket, path: "/v1/send", clients: clients, n: n,
			body: func(int, int) []byte { return request },
			took: func(_ int, body []byte) error {
				mu.Lock()
				defer mu.Unlock()
				ids[clientID(body)] = true
				return nil
			},
		}
		rows := to.countInbox()
		pids := from.pids()
		pids["inbox"] = rows.pid
		m := newMeter(b, pids)
		began := time.Now()
		if _, err := v.fire(); err != nil {
			b.Fatal(err)
		}
		await(b, time.Minute, "all messages are stored", func() error { return rows.atLeast(n) })
		f.add(n / time.Since(began).Seconds())
		m.read(f)
		rows.close()
		w.end(from, to)
		have := to.inbox()
		if len(have) != n || len(ids) != n {
			b.Fatalf("%d ids in the inbox, %d accepted, of %d", len(have), len(ids), n)
		}
		for id := range ids {
			if have[id] != text {
				b.Fatalf("%s is not in the inbox with its text", id)
			}
		}
	}
	tab.add(b, f)
}

// benchMillion measures what a million messages that wait for one absent member
// cost all others: the CPU of the daemon and its outbox for a message that is
// accepted, sent and settled, beside the same with a thousand; and the memory and
// the start of a daemon that has them.
func benchMillion(b *testing.B, bin built, tab *table) {
	const clients, n = 64, 12800
	figures := map[int]*figure{
		1_000:     {name: "cpu_a_message_1k_pending", unit: "us", per: n},
		1_000_000: {name: "cpu_a_message_1m_pending", unit: "us", per: n},
	}
	ratio := &figure{name: "cpu_1m_over_1k", unit: "x", aim: 1.3, atMost: true}
	memory := &figure{name: "pss_1m_pending", unit: "MB"}
	ready := &figure{name: "start_1m_pending", unit: "ms"}
	type side struct {
		pending int
		w       *world
		d       *daemon
		a       *audience
	}
	var sides []*side
	for _, pending := range []int{1_000, 1_000_000} {
		s := &side{pending: pending}
		s.w, s.d = sender(b, bin, targets)
		s.d.bulk(b, [][]byte{sendRequest(s.w.members[1+targets].PublicKey)}, pending)
		s.a = s.w.seats(1, targets)
		sides = append(sides, s)
	}
	for range runs {
		var cost []float64
		for _, s := range sides {
			requests := s.w.requests(targets)
			s.a.expect(n)
			v := volley{
				sock: s.d.socket, path: "/v1/send", clients: clients, n: n,
				body: func(c, i int) []byte { return requests[(c+i)%targets] },
			}
			f := figures[s.pending]
			m := newMeter(b, s.d.pids())
			if _, err := v.fire(); err != nil {
				b.Fatal(err)
			}
			s.a.wait(b, time.Minute)
			m.read(f)
			last := func(process string) float64 {
				all := f.cpu[process]
				return float64(all[len(all)-1].Nanoseconds()) / 1e3 / n
			}
			f.add(last("host") + last("outbox"))
			cost = append(cost, last("host")+last("outbox"))
		}
		ratio.add(cost[1] / cost[0])
	}
	big := sides[1]
	for range runs {
		pids := big.d.pids()
		memory.add(pss(b, pids["host"]) + pss(b, pids["outbox"]))
		big.d.http.CloseIdleConnections()
		big.d.proc.signal(15, 30*time.Second)
		began := time.Now()
		big.d.launch()
		ready.add(big.d.pollStatus(b, began, func(s *status) bool { return s.ready() }))
		big.d.ready()
	}
	for _, s := range sides {
		s.w.end(s.d)
		s.a.leave()
		if got, want := s.d.outboxRows(""), s.pending+runs*n; got != want {
			b.Fatalf("%d rows in the outbox, want %d", got, want)
		}
	}
	tab.add(b, figures[1_000])
	tab.add(b, figures[1_000_000])
	tab.add(b, ratio)
	tab.add(b, memory)
	tab.add(b, ready)
}
