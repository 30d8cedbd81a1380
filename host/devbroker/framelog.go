package devbroker

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// frameLog writes one line per data frame:
//
//	{"mono_ns":CLOCK_MONOTONIC,"at":RFC3339,"conn":n,"dir":"in"|"out","frame":{}}
//
// unbuffered, one write(2) each. An "in" line is written before the frame is handled; an "out" line when the frame is
// handed to its connection, so that the order of a mesh's lines is the order of what the broker did, and after whatever the
// data file holds for it. What was no JSON object stands there as a string.
type frameLog struct {
	mu   sync.Mutex
	w    io.Writer
	file *os.File
	line []byte
	now  func() time.Time
	log  hclog.Logger
	lame bool // a line was not written, and that was said
}

func openFrameLog(o Options) (*frameLog, error) {
	l := &frameLog{w: o.LogWriter, now: o.Now, log: o.Logger}
	if o.LogFile != "" {
		f, err := os.OpenFile(o.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		l.file, l.w = f, f
	}
	if l.w == nil {
		return nil, nil
	}
	return l, nil
}

// write appends one line. A log that can't be written must not stop the broker: it is said once.
func (l *frameLog) write(conn int64, dir string, frame []byte) {
	var ts unix.Timespec
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for an unknown clock only
	b := append(l.line[:0], `{"mono_ns":`...)
	b = strconv.AppendInt(b, ts.Nano(), 10)
	b = append(b, `,"at":"`...)
	b = l.now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","conn":`...)
	b = strconv.AppendInt(b, conn, 10)
	b = append(b, `,"dir":"`...)
	b = append(b, dir...)
	b = append(b, `","frame":`...)
	b = appendLoggable(b, dir == "out", frame)
	b = append(b, '}', '\n')
	if _, err := l.w.Write(b); err != nil && !l.lame {
		l.lame = true
		l.log.Error("frame log not written; lines are missing from now on", "error", err)
	}
	if l.line = b; cap(b) > 1<<20 {
		l.line = nil
	}
}

// appendLoggable embeds the frame's bytes as they are if they are a JSON object on one line. Our own frames are.
func appendLoggable(dst []byte, ours bool, frame []byte) []byte {
	v := jsontext.Value(bytes.Trim(frame, " \t\r\n")) // JSON's own white space
	if ours {
		return append(dst, v...)
	}
	if v.Kind() == '{' && v.IsValid(jsontext.AllowDuplicateNames(true)) {
		if bytes.ContainsAny(v, "\n\r") {
			v = v.Clone()
			if v.Compact(jsontext.AllowDuplicateNames(true)) != nil {
				return append(dst, "null"...)
			}
		}
		return append(dst, v...)
	}
	out, err := jsontext.AppendQuote(dst, bytes.ToValidUTF8(frame, []byte("\uFFFD")))
	if err != nil {
		return append(dst, "null"...)
	}
	return out
}

func (l *frameLog) close() error {
	if l.file == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
