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
	for _, part := range []struct {
		name string
		run  func(b *testing.B, bin built, tab *table)
	}{
		{"accept_1", func(b *testing.B, bin built, tab *table) { benchAccept(b, bin, tab, acceptOne) }},
		{"accept_1_live", func(b *testing.B, bin built, tab *table) { benchAccept(b, bin, tab, acceptOneLive) }},
		{"accept_64", func(b *testing.B, bin built, tab *table) { benchAccept(b, bin, tab, acceptMany) }},
		{"accept_64_live", func(b *testing.B, bin built, tab *table) { benchAccept(b, bin, tab, acceptManyLive) }},
		{"drain", benchDrain},
		{"inbound", benchInbound},
		{"start", benchStart},
		{"memory", benchMemory},
		{"cli", benchCLI},
	} {
		b.Run(part.name, func(b *testing.B) {
			part.run(b, bin, tab)
			b.ReportMetric(0, "ns/op") // the figures are in the RESULT lines
		})
	}
	fmt.Printf("\n%s\nload average before %s, after %s\n", tab.markdown(), load, loadAverage())
}
