package plugin

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxLine bounds one line; the rest of a longer one is counted and dropped.
	maxLine = 64 << 10
	// keepLines and keepBytes bound the memory of last words.
	keepLines = 50
	keepBytes = 1 << 10
	// reportLines is how many of them a crash report has: it is one line.
	reportLines = 5
	// linesPerSecond and lineBurst bound what a plugin can put into the log.
	linesPerSecond = 200
	lineBurst      = 1000
)

// lineWriter turns a stream into log lines: bounded in length and rate. It
// never fails and never blocks on anything but the log.
type lineWriter struct {
	emit func(line string)
	log  hclog.Logger // for the count of what was dropped
	now  func() time.Time

	mu      sync.Mutex
	line    []byte
	cut     int // bytes of this line that were dropped
	ring    [keepLines]string
	next    int    // place of the next line in ring
	cause   string // the line that began a panic
	limit   bucket
	dropped int
}

func newLineWriter(log hclog.Logger, emit func(string)) *lineWriter {
	w := &lineWriter{emit: emit, log: log, now: time.Now}
	w.limit = newBucket(linesPerSecond, lineBurst, w.now())
	return w
}

// Write takes a piece of the stream.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			w.add(rest)
			break
		}
		w.add(rest[:i])
		w.endLine()
		rest = rest[i+1:]
	}
	return len(p), nil
}

// flush ends a line that has no newline.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.line) > 0 {
		w.endLine()
	}
	w.tellDropped()
}

func (w *lineWriter) add(p []byte) {
	room := min(len(p), maxLine-len(w.line))
	w.line = append(w.line, p[:room]...)
	w.cut += len(p) - room
}

func (w *lineWriter) endLine() {
	line := strings.TrimRight(string(w.line), "\r")
	if w.cut > 0 {
		line += fmt.Sprintf(" … (%d bytes more)", w.cut)
	}
	if cap(w.line) > 4<<10 {
		w.line = nil // one long line must not hold 64 KiB for ever
	}
	w.line, w.cut = w.line[:0], 0
	if strings.TrimSpace(line) == "" {
		return
	}
	// Last words are kept whatever the rate: they are the crash report.
	w.ring[w.next%keepLines] = clip(line, keepBytes)
	w.next++
	switch {
	case w.cause == "" && isPanic(line):
		w.cause = clip(line, keepBytes)
	case w.cause != "" && parseLog(line).record: // it lives, and logs
		w.cause = ""
	}
	if !w.limit.take(w.now(), 1) {
		w.dropped++
		return
	}
	w.tellDropped()
	w.emit(line)
}

func (w *lineWriter) tellDropped() {
	if w.dropped > 0 {
		w.log.Warn("plugin writes too much; lines were dropped", "lines", w.dropped, "limit_per_second", linesPerSecond)
		w.dropped = 0
	}
}

// last returns the last n lines in one, oldest first; of a panic its cause,
// which the stack may have pushed out.
func (w *lineWriter) last(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != "" {
		return printable(w.cause)
	}
	var lines []string
	for i := w.next - 1; i >= max(0, w.next-keepLines) && len(lines) < n; i-- {
		// What a log library says below info explains no death.
		if l := parseLog(w.ring[i%keepLines]); l.level >= hclog.Info {
			lines = append(lines, l.message)
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, " | ")
}

// clip shortens s to at most n bytes, at a rune's edge.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// bucket is a token bucket; its user locks it.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

func newBucket(rate, burst float64, now time.Time) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst, at: now}
}

// take removes n tokens if they are there.
func (b *bucket) take(now time.Time, n float64) bool {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.at = now
	}
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}
