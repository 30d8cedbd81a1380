package plugin

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/go-hclog"
)

// logLine is a line of a plugin's stderr, understood as far as it could be.
type logLine struct {
	level   hclog.Level
	message string
	args    []any
	record  bool // it was one of a log library
}

// parseLog understands hclog's and slog's JSON and plain text with a level in
// brackets. Whatever a line holds it never fails: a line that is odd is text.
func parseLog(line string) logLine {
	if strings.HasPrefix(line, "{") {
		var raw map[string]any
		if json.Unmarshal([]byte(line), &raw) == nil {
			if l, ok := structured(raw); ok {
				return l
			}
		}
	}
	l := logLine{level: hclog.Info, message: printable(line)}
	for prefix, level := range plainLevels {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			l.level, l.message = level, printable(strings.TrimSpace(rest))
			return l
		}
	}
	return l
}

var plainLevels = map[string]hclog.Level{
	"[TRACE]": hclog.Trace, "[DEBUG]": hclog.Debug, "[INFO]": hclog.Info,
	"[WARN]": hclog.Warn, "[ERROR]": hclog.Error,
	"panic: ": hclog.Error, "fatal error: ": hclog.Error,
}

// isPanic reports whether the Go runtime begins its last words.
func isPanic(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

// structured reads a record of hclog (@message, @level) or slog (msg, level). A
// field of a wrong type makes it no such record.
func structured(raw map[string]any) (logLine, bool) {
	for _, names := range [][3]string{{"@message", "@level", "@timestamp"}, {"msg", "level", "time"}} {
		message, ok := raw[names[0]].(string)
		if !ok {
			continue
		}
		level, ok := raw[names[1]].(string)
		if !ok {
			continue
		}
		for _, n := range names {
			delete(raw, n)
		}
		delete(raw, "@module") // our logger's name says it
		delete(raw, "@caller")
		l := logLine{level: levelOf(level), message: printable(message), record: true}
		for _, k := range slices.Sorted(maps.Keys(raw)) {
			v := raw[k]
			if s, ok := v.(string); ok {
				v = printableLines(s)
			}
			l.args = append(l.args, printable(k), v)
		}
		return l, true
	}
	return logLine{}, false
}

// levelOf maps both libraries' words; slog has levels such as "INFO+2".
func levelOf(s string) hclog.Level {
	word, _, _ := strings.Cut(strings.ToLower(s), "+")
	word, _, _ = strings.Cut(word, "-")
	if l := hclog.LevelFromString(word); l != hclog.NoLevel && l != hclog.Off {
		return l
	}
	return hclog.Info
}

// printableLines is printable for a value that may have several lines, such as a
// stack: our logger indents or escapes them.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// printable replaces what could steer a terminal.
func printable(s string) string {
	odd := func(r rune) bool { return r == unicode.ReplacementChar || (unicode.IsControl(r) && r != '\t') }
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if odd(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// stderrLog forwards lines to log. After the start of a panic everything plain is
// an error until a record comes.
func stderrLog(log hclog.Logger) func(string) {
	panicking := false
	return func(line string) {
		l := parseLog(line)
		switch {
		case isPanic(line):
			panicking = true
			l.message = printable(line)
		case l.record:
			panicking = false
		}
		if panicking {
			l.level = hclog.Error
		}
		log.Log(l.level, l.message, l.args...)
	}
}

// stdoutLog forwards lines that a plugin printed.
func stdoutLog(log hclog.Logger) func(string) {
	return func(line string) { log.Info("plugin wrote to stdout", "line", printable(line)) }
}
