package plugin

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
)

func collect() (*lineWriter, *[]string, *bytes.Buffer) {
	var lines []string
	var log bytes.Buffer
	l := hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace, DisableTime: true})
	return newLineWriter(l, func(s string) { lines = append(lines, s) }), &lines, &log
}

func TestLinesAreWholeHoweverTheyArrive(t *testing.T) {
	w, lines, _ := collect()
	for _, piece := range []string{"a", "b\nc\r\n\n  \n", "d", "\ne"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.flush()
	if got := fmt.Sprintf("%q", *lines); got != `["ab" "c" "d" "e"]` {
		t.Fatal(got)
	}
}

func TestALineIsBounded(t *testing.T) {
	w, lines, _ := collect()
	long := strings.Repeat("x", 10*maxLine)
	for i := 0; i < len(long); i += 1000 {
		_, _ = io.WriteString(w, long[i:min(i+1000, len(long))])
	}
	if cap(w.line) > 2*maxLine {
		t.Fatalf("%d bytes are held", cap(w.line))
	}
	_, _ = io.WriteString(w, "\nshort\n")
	if len(*lines) != 2 || !strings.HasSuffix((*lines)[0], fmt.Sprintf(" … (%d bytes more)", 9*maxLine)) || len((*lines)[0]) > maxLine+40 {
		t.Fatalf("%d lines, the first ends %q", len(*lines), (*lines)[0][len((*lines)[0])-40:])
	}
}

func TestLinesAreLimitedInRateButLastWordsAreKept(t *testing.T) {
	w, lines, log := collect()
	now := time.Unix(0, 0)
	w.now = func() time.Time { return now }
	w.limit = newBucket(linesPerSecond, lineBurst, now)
	for i := range 5000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	if len(*lines) != lineBurst {
		t.Fatalf("%d lines were logged", len(*lines))
	}
	if got := w.last(2); got != "line 4998 | line 4999" {
		t.Fatalf("last words %q", got)
	}
	if got := strings.Split(w.last(1000), " | "); len(got) != keepLines || got[0] != "line 4950" {
		t.Fatalf("%d lines are kept, from %q", len(got), got[0])
	}
	now = now.Add(time.Second)
	fmt.Fprintln(w, "later")
	if !strings.Contains(log.String(), "lines=4000") {
		t.Fatalf("the log does not count what was dropped: %s", log)
	}
}

func TestLastWordsOfAPanicAreItsCause(t *testing.T) {
	w, _, _ := collect()
	fmt.Fprintln(w, "panic: runtime error: index out of range [3]")
	for i := range 200 {
		fmt.Fprintf(w, "main.f(%d)\n", i)
	}
	if got := w.last(5); got != "panic: runtime error: index out of range [3]" {
		t.Fatal(got)
	}
}

func TestAPanicThatWasSurvivedIsNotTheLastWord(t *testing.T) {
	w, _, _ := collect()
	fmt.Fprintln(w, "panic: recovered by somebody")
	fmt.Fprintln(w, `{"@level":"info","@message":"and on it goes"}`)
	fmt.Fprintln(w, "out of disk")
	if got := w.last(2); got != "and on it goes | out of disk" {
		t.Fatal(got)
	}
}

func TestAnyLineOfStderrBecomesALogLine(t *testing.T) {
	cases := []struct{ line, want string }{
		{`{"@level":"warn","@message":"slow","@timestamp":"2026-01-01T00:00:00.000000Z","@module":"m","ms":5,"path":"a b"}`, "[WARN]  slow: ms=5 path=\"a b\""},
		{`{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"slog","n":1}`, "[ERROR] slog: n=1"},
		{`{"time":"2026-01-01T00:00:00Z","level":"DEBUG-4","msg":"fine"}`, "[DEBUG] fine"},
		{`{"@message":5}`, `[INFO]  {"@message":5}`},
		{`{"@message":"x","@level":7}`, `[INFO]  {"@message":"x","@level":7}`},
		{`{"@message":"x","@level":"info","@timestamp":9}`, `[INFO]  x`},
		{`{"a":{"b":[1,`, `[INFO]  {"a":{"b":[1,`},
		{`{"msg":"x","msg":"y","level":"INFO"}`, `[INFO]  {"msg":"x","msg":"y","level":"INFO"}`},
		{`{"@message":"x","@level":"info","k\u001b[2J":"v\u001b[2J"}`, "[INFO]  x: k\uFFFD[2J=\"v\uFFFD[2J\""},
		{`{"@message":"x","@level":"info","in":{"a\u001b":["\u001b[2J"]}}`, `[INFO]  x: in="map[a\x1b:[\x1b[2J]]"`},
		{`{"@message":"x","@level":"info","n":5,"f":1.5,"b":true,"z":null}`, "[INFO]  x: b=true f=1.5 n=5 z=<nil>"},
		{`{"@message":"x","@level":"info","stack":"a\n\tb\u001b"}`, "[INFO]  x:\n  stack=\n  | a\n  | \\tb\uFFFD"},
		{`[ERROR] bad`, "[ERROR] bad"},
		{"plain \x1b[31mred\x00", "[INFO]  plain \uFFFD[31mred\uFFFD"},
		{"\xff\xfe", "[INFO]  \uFFFD\uFFFD"},
	}
	for _, c := range cases {
		var out bytes.Buffer
		stderrLog(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Trace, DisableTime: true}))(c.line)
		if got := strings.TrimSpace(out.String()); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.line, got, c.want)
		}
	}
}

func FuzzStderrNeverFailsNorGrows(f *testing.F) {
	f.Add([]byte(`{"@message":5}`+"\n"), 3)
	f.Add([]byte("panic: x\n\ngoroutine 1\n"), 1)
	f.Add([]byte(`{"@message":"x","@level":"info","k\u001b":{"a\u001b":["\u001b"]}}`+"\n"), 7)
	f.Add([]byte("\u009b2J\r\b\x7f\n"), 7)
	f.Add([]byte(`{"@message":"\u009b2J\r\b","k\u007f":"\u0085\u001b"}`+"\n"), 63)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		step = max(1, step%64)
		var log bytes.Buffer
		w := newLineWriter(hclog.NewNullLogger(), stderrLog(hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})))
		for i := 0; i < len(data); i += step {
			_, _ = w.Write(data[i:min(i+step, len(data))])
		}
		w.flush()
		// Oracle: everything that could steer a terminal was replaced.
		if i := bytes.IndexFunc(log.Bytes(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
			t.Fatalf("at %d of %q a control character reached the log", i, log.Bytes())
		}
		if n := len(w.last(1000)); n > keepLines*(keepBytes+10) {
			t.Fatalf("%d bytes of last words", n)
		}
	})
}

func TestTheHandshakeIsFoundAmongNoise(t *testing.T) {
	const line = "1|1|unix|/tmp/p1/plugin2|grpc|"
	for _, c := range []struct{ name, out, noise string }{
		{"alone", line + "\n", ""},
		{"noise before", "Loading model…\nwarning: x\n" + line + "\n", "Loading model…,warning: x"},
		{"noise after", line + "\nhello\n" + strings.Repeat("y", 300_000) + "\n", "hello"},
		{"long noise before", strings.Repeat("z", 200_000) + "\n" + line + "\n", "zzz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, lines, _ := collect()
			h := newHandshake(w)
			for i := 0; i < len(c.out); i += 777 {
				_, _ = h.Write([]byte(c.out[i:min(i+777, len(c.out))]))
			}
			got, err := io.ReadAll(h.reader)
			if err != nil || string(got) != line+"\n" {
				t.Fatalf("go-plugin reads %q, %v", got, err)
			}
			h.end()
			if !strings.HasPrefix(strings.Join(*lines, ","), c.noise) {
				t.Fatalf("noise %q", *lines)
			}
			if h.wrong() != nil {
				t.Fatal(h.wrong())
			}
		})
	}
}

func TestALineThatWasBegunIsNotLostWithItsProcess(t *testing.T) {
	w, lines, _ := collect()
	h := newHandshake(w)
	_, _ = io.WriteString(h, "first\nno such")
	_, _ = io.WriteString(h, " library")
	h.end()
	w.flush()
	if got := fmt.Sprintf("%q", *lines); got != `["first" "no such library"]` {
		t.Fatal(got)
	}
}

func TestAHandshakeOfAnotherProtocolIsToldFromACrash(t *testing.T) {
	for line, want := range map[string]string{
		"2|1|unix|/s|grpc":         "core protocol",
		"1|7|unix|/s|grpc":         "plugin protocol 7",
		"1|1|tcp|127.0.0.1:1|grpc": "only unix sockets",
		"1|1|unix|/s|netrpc":       "netrpc",
		"1|1|unix|/s":              "speaks grpc",
	} {
		w, _, _ := collect()
		h := newHandshake(w)
		_, _ = io.WriteString(h, line+"\n")
		if err := h.wrong(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
		h.end()
	}
}
