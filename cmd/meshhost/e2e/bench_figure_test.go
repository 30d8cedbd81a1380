package e2e

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// figure is one line of the table: five values, what the bare mechanism gave in
// the same runs, and what each process spent.
type figure struct {
	name string
	unit string
	vals []float64
	// per is what the CPU figures are divided by: the items of a run.
	per      int
	cpu      map[string][]time.Duration // by process, one a run
	ceilings []ceiling
	aim      float64 // 0: none
	atMost   bool    // the aim is an upper bound
	// reference is the TypeScript daemon's value; 0: none was taken.
	reference string
}

// ceiling is the same payload through a mechanism without the daemon.
type ceiling struct {
	name string
	vals []float64
}

func (f *figure) add(v float64) { f.vals = append(f.vals, v) }

// ceil adds one run's value of a ceiling.
func (f *figure) ceil(name string, v float64) {
	for i := range f.ceilings {
		if f.ceilings[i].name == name {
			f.ceilings[i].vals = append(f.ceilings[i].vals, v)
			return
		}
	}
	f.ceilings = append(f.ceilings, ceiling{name, []float64{v}})
}

func (f *figure) spent(process string, d time.Duration) {
	if f.cpu == nil {
		f.cpu = map[string][]time.Duration{}
	}
	f.cpu[process] = append(f.cpu[process], d)
}

func (f *figure) met() bool {
	if f.atMost {
		return median(f.vals) <= f.aim
	}
	return median(f.vals) >= f.aim
}

// cpuPer is a process's median CPU time per item in microseconds.
func (f *figure) cpuPer(process string) (float64, bool) {
	all, ok := f.cpu[process]
	if !ok || f.per == 0 {
		return 0, false
	}
	us := make([]float64, len(all))
	for i, d := range all {
		us[i] = float64(d.Nanoseconds()) / 1e3 / float64(f.per)
	}
	return median(us), true
}

// processes in the order of the columns.
var processes = []string{"host", "outbox", "inbox", "broker", "driver"}

// table collects figures and prints each as it comes.
type table struct{ figures []*figure }

func (t *table) add(b testing.TB, f *figure) {
	b.Helper()
	if len(f.vals) != runs {
		b.Fatalf("%s: %d of %d runs gave a value", f.name, len(f.vals), runs)
	}
	t.figures = append(t.figures, f)
	var s strings.Builder
	fmt.Fprintf(&s, "RESULT bench name=%s min=%s median=%s max=%s unit=%s", f.name,
		short(slices.Min(f.vals)), short(median(f.vals)), short(slices.Max(f.vals)), f.unit)
	for _, p := range processes {
		if us, ok := f.cpuPer(p); ok {
			fmt.Fprintf(&s, " cpu_%s=%sus", p, short(us))
		}
	}
	for i, c := range f.ceilings {
		n := ""
		if i > 0 {
			n = strconv.Itoa(i + 1)
		}
		fmt.Fprintf(&s, " ceiling%s=%s ceiling%s_value=%s", n, c.name, n, short(median(c.vals)))
	}
	if f.aim != 0 {
		fmt.Fprintf(&s, " aim=%s met=%v", short(f.aim), f.met())
	}
	if f.reference != "" {
		fmt.Fprintf(&s, " reference=%s", strings.ReplaceAll(f.reference, " ", "_"))
	}
	fmt.Println(s.String())
}

// markdown is the table for docs/performance.md.
func (t *table) markdown() string {
	var s strings.Builder
	s.WriteString("| figure | min | median | max | unit | aim | met | ceilings of the same runs (median) | CPU µs an item:")
	for i, p := range processes {
		s.WriteString([]string{" ", " / "}[min(i, 1)] + p)
	}
	s.WriteString(" | TypeScript daemon |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range t.figures {
		aim, met := "–", "–"
		if f.aim != 0 {
			aim, met = map[bool]string{true: "≤ ", false: "≥ "}[f.atMost]+short(f.aim), map[bool]string{true: "yes", false: "**no**"}[f.met()]
		}
		ceilings := make([]string, len(f.ceilings))
		for i, c := range f.ceilings {
			ceilings[i] = strings.ReplaceAll(c.name, "_", " ") + " " + short(median(c.vals))
		}
		cpu := make([]string, len(processes))
		for i, p := range processes {
			cpu[i] = "–"
			if us, ok := f.cpuPer(p); ok {
				cpu[i] = short(us)
			}
		}
		if len(f.cpu) == 0 {
			cpu = []string{"–"}
		}
		ref := f.reference
		if ref == "" {
			ref = "–"
		}
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", f.name, short(slices.Min(f.vals)), short(median(f.vals)),
			short(slices.Max(f.vals)), f.unit, aim, met, strings.Join(ceilings, "; "), strings.Join(cpu, " / "), ref)
	}
	return s.String()
}

// short is a number with three digits or so.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}

func median(vals []float64) float64 { return quantile(vals, 0.5) }

// quantile of vals, which need not be sorted.
func quantile(vals []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(vals))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// cpuOf is the CPU time that a process has used so far, all threads, ended ones
// included. The kernel's clock of the process has nanoseconds where
// /proc/PID/stat has hundredths of a second.
func cpuOf(b testing.TB, pid int) time.Duration {
	b.Helper()
	const sched = 2 // CPUCLOCK_SCHED: user and system
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		b.Fatalf("CPU clock of process %d: %v", pid, err)
	}
	return time.Duration(ts.Nano())
}

// meter reads the CPU clocks of named processes.
type meter struct {
	b    testing.TB
	pids map[string]int
	from map[string]time.Duration
}

// newMeter starts to count. The driver is this process.
func newMeter(b testing.TB, pids map[string]int) *meter {
	m := &meter{b: b, pids: pids, from: map[string]time.Duration{}}
	m.pids["driver"] = os.Getpid()
	for name, pid := range m.pids {
		m.from[name] = cpuOf(b, pid)
	}
	return m
}

// read adds what was spent since newMeter to a figure.
func (m *meter) read(figures ...*figure) {
	for name, pid := range m.pids {
		d := cpuOf(m.b, pid) - m.from[name]
		for _, f := range figures {
			f.spent(name, d)
		}
	}
}

// monotonic is CLOCK_MONOTONIC, the clock of the broker's log.
func monotonic(b testing.TB) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}

// pss is the proportional set size of a process in MB (10^6 bytes).
func pss(b testing.TB, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "Pss:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb * 1024 / 1e6
		}
	}
	b.Fatalf("no Pss of process %d", pid)
	return 0
}
