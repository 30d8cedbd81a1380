package e2e

import (
	"fmt"
	"testing"
)

// runs is how often each figure is taken; min, median and max are of these.
const runs = 5

// textBytes is the length of a message in every figure.
const textBytes = 200

// BenchmarkDaemon measures real binaries over real sockets: `make bench`. Each
// part takes five runs, each beside its ceiling: the same payload through the
// bare mechanism. A part fails if a run is invalid (a message lost, an error);
// a missed aim is printed, not failed. docs/performance.md says what each
// figure is and what limits it.
func BenchmarkDaemon(b *testing.B) {
	bin := binaries(b)
	tab := &table{}
	load := loadAverage()
	for _, part := range parts() {
		b.Run(part.name, func(b *testing.B) {
			part.run(b, bin, tab)
			b.ReportMetric(0, "ns/op") // the figures are in the RESULT lines
		})
	}
	if len(tab.figures) == 0 {
		return // a part that was not chosen
	}
	fmt.Printf("\n%s\nload average before %s, after %s\n", tab.markdown(), load, loadAverage())
}

// part is one or more figures.
type part struct {
	name string
	run  func(b *testing.B, bin built, tab *table)
}

func parts() []part {
	var all []part
	for _, load := range acceptLoads {
		all = append(all, part{load.name, func(b *testing.B, bin built, tab *table) { benchAccept(b, bin, tab, load) }})
	}
	all = append(all, part{"accept_bulk", benchBulk}, part{"first_byte", benchFirstByte})
	for _, load := range drainLoads {
		all = append(all, part{load.name, func(b *testing.B, bin built, tab *table) { benchDrain(b, bin, tab, load) }})
	}
	return append(all,
		part{"end_to_end", benchEndToEnd}, part{"inbound", benchInbound}, part{"store", benchStore},
		part{"million", benchMillion}, part{"start", benchStart}, part{"memory", benchMemory}, part{"cli", benchCLI},
	)
}
