package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// benchStart measures from the start of the process until GET /v1/status names
// every plugin ready, on a data directory that exists.
func benchStart(b *testing.B, bin built, tab *table) {
	f := &figure{name: "start_to_ready", unit: "ms", per: 1, aim: 150, atMost: true, reference: "320"}
	open := &figure{name: "start_to_mesh_open", unit: "ms"}
	w := newWorld(b, bin, 1)
	d := w.newDaemon(0, nil)
	d.up()
	d.http.CloseIdleConnections()
	d.proc.signal(15, 15*time.Second)
	for range runs {
		f.ceil("describe_of_5_plugins_in_parallel", describeAll(b, bin))
		begin := time.Now()
		d.launch()
		st := d.pollStatus(b, begin, func(s *status) bool { return s.ready() })
		f.add(st)
		f.spent("host", cpuOf(b, d.proc.pid()))
		f.spent("outbox", cpuOf(b, d.pluginPID("outbox", "sqlite")))
		f.spent("inbox", cpuOf(b, d.pluginPID("push_handler", "inbox")))
		open.add(d.pollStatus(b, begin, func(s *status) bool {
			return s.ready() && len(s.Meshes) == 1 && s.Meshes[0].State == "open"
		}))
		d.http.CloseIdleConnections()
		d.proc.signal(15, 15*time.Second)
	}
	tab.add(b, f)
	tab.add(b, open)
}

func (s *status) ready() bool {
	for _, p := range s.Plugins {
		if p.State != "ready" {
			return false
		}
	}
	return len(s.Plugins) == 5
}

// pollStatus asks each millisecond until cond holds and returns the ms since
// begin.
func (d *daemon) pollStatus(b testing.TB, begin time.Time, cond func(*status) bool) float64 {
	b.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < 20*time.Second {
		if c, err := net.Dial("unix", d.socket); err == nil {
			c.Close()
			var st status
			if code, err := d.call(http.MethodGet, "/v1/status", nil, &st); err == nil && code == http.StatusOK && cond(&st) {
				return float64(time.Since(begin).Nanoseconds()) / 1e6
			}
		}
		<-tick.C
	}
	b.Fatal("not within 20 s")
	return 0
}

// describeAll runs each plugin by hand, all at once.
func describeAll(b testing.TB, bin built) float64 {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 5)
	begin := time.Now()
	for i, name := range []string{"outbox-sqlite", "push-inbox", "filter-role", "feature-state", "feature-peers"} {
		wg.Go(func() {
			out, err := exec.Command(filepath.Join(bin.plugins, "meshhost-"+name), "describe").Output()
			if err != nil || !strings.Contains(string(out), "{") {
				errs[i] = fmt.Errorf("describe of %s: %v: %s", name, err, out)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return float64(took.Nanoseconds()) / 1e6
}

// benchMemory measures an idle daemon: connected, 2 s after it was ready.
func benchMemory(b *testing.B, bin built, tab *table) {
	total := &figure{name: "pss_all", unit: "MB", reference: "97"}
	parts := map[string]*figure{}
	order := []string{"host"}
	for range runs {
		s := startBare(b)
		w := newWorld(b, bin, 1)
		d := w.newDaemon(0, nil)
		d.up()
		idle := time.NewTimer(2 * time.Second)
		<-idle.C
		var st status
		if _, err := d.call(http.MethodGet, "/v1/status", nil, &st); err != nil {
			b.Fatal(err)
		}
		pids := map[string]int{"host": d.proc.pid()}
		for _, p := range st.Plugins {
			name := p.Kind + "_" + p.Name
			pids[name] = p.PID
			if len(parts) == 0 {
				order = append(order, name)
			}
		}
		sum := 0.0
		for _, name := range order {
			if parts[name] == nil {
				parts[name] = &figure{name: "pss_" + name, unit: "MB"}
			}
			v := pss(b, pids[name])
			sum += v
			parts[name].add(v)
			parts[name].ceil("go_http_server", pss(b, s.proc.pid()))
		}
		total.add(sum)
		s.proc.kill()
		w.end(d)
	}
	tab.add(b, total)
	for _, name := range order {
		tab.add(b, parts[name])
	}
}

// benchCLI measures `meshhost status` from its start to its end, the median of
// twenty a run.
func benchCLI(b *testing.B, bin built, tab *table) {
	const calls = 20
	f := &figure{name: "cli_status", unit: "ms", aim: 30, atMost: true, reference: "320"}
	w := newWorld(b, bin, 1)
	d := w.newDaemon(0, nil)
	d.up()
	for range runs {
		var version, ask []float64
		for range calls {
			version = append(version, timeCLI(b, bin, "version"))
			ask = append(ask, timeCLI(b, bin, "status", "-json", "-socket", d.socket))
		}
		f.ceil("meshhost_version", median(version))
		f.add(median(ask))
	}
	w.end(d)
	tab.add(b, f)
}

func timeCLI(b testing.TB, bin built, args ...string) float64 {
	b.Helper()
	begin := time.Now()
	out, err := exec.Command(bin.meshhost, args...).Output()
	took := time.Since(begin)
	if err != nil {
		b.Fatalf("%v: %v: %s", args, err, out)
	}
	if args[0] == "status" {
		var st status
		if err := json.Unmarshal(out, &st); err != nil || !st.ready() {
			b.Fatalf("status: %v: %s", err, out)
		}
	}
	return float64(took.Nanoseconds()) / 1e6
}
