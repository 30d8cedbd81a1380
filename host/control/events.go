package control

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/event"
)

// Numbers of the event stream (PROTOCOL 10.5 for the keepalive).
const (
	keepalive   = 15 * time.Second
	eventBuffer = 1024             // events that a reader may lag behind
	eventBatch  = 64               // events in one write, and about
	eventBytes  = 256 << 10        // so many bytes of them
	eventWrite  = 10 * time.Second // a reader that takes nothing for so long is cut off
	retryBusy   = 5 * time.Second
)

// events is GET /v1/events?kind=a,b&mesh=, server-sent events (PROTOCOL 10.5).
// A reader that lags loses events and gets one "dropped" in their place. A
// plain kind also stands for those of a plugin named so: "inbox" for inbox.new.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	default:
		writeProblem(w, tooMany("readers of events", maxReaders))
		return
	}
	q := r.URL.Query()
	if err := s.attached(r.Context(), q.Get("mesh")); err != nil {
		writeProblem(w, err)
		return
	}
	st := &stream{w: w, rc: http.NewResponseController(w), mesh: q.Get("mesh")}
	for _, k := range strings.Split(q.Get("kind"), ",") {
		if k != "" {
			st.kinds = append(st.kinds, k)
		}
	}
	sub := s.opts.Events.Subscribe(eventBuffer)
	defer sub.Close()
	// The body's deadline would end the stream; errors mean that the client is gone.
	st.rc.SetReadDeadline(time.Time{})
	w.Header()["Content-Type"] = []string{"text/event-stream"}
	w.Header()["Cache-Control"] = []string{"no-store"}
	st.buf = append(st.buf, ": connected\n\n"...)
	if !st.flush() {
		return
	}
	tick := time.NewTicker(keepalive)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		case <-tick.C:
			st.buf = append(st.buf, ": keepalive\n\n"...)
		case ev, ok := <-sub.C:
			if !ok {
				return
			}
			st.add(ev)
			if !st.more(sub.C) {
				st.flush()
				return
			}
		}
		if !st.flush() {
			return
		}
	}
}

// attached refuses a mesh that is not there: its reader would wait for ever.
func (s *Server) attached(ctx context.Context, mesh string) error {
	if mesh == "" {
		return nil
	}
	names, err := s.meshNames(ctx)
	if err != nil || slices.Contains(names, mesh) {
		return err
	}
	return &Problem{
		Status: http.StatusNotFound, Code: "mesh_not_attached", Message: "no mesh " + strconv.Quote(mesh) + " is attached",
		Next: "meshhost status lists the meshes.",
	}
}

// stream is one reader of events.
type stream struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	kinds []string // empty: all
	mesh  string   // empty: all
	n     uint64   // the connection's own counter, PROTOCOL 10.5
	buf   []byte
}

// more adds what waits already, so that a burst costs one write. It reports
// false when the bus is closed.
func (st *stream) more(c <-chan event.Event) bool {
	for range eventBatch {
		if len(st.buf) >= eventBytes {
			return true
		}
		select {
		case ev, ok := <-c:
			if !ok {
				return false
			}
			st.add(ev)
		default:
			return true
		}
	}
	return true
}

func (st *stream) wants(ev *event.Event) bool {
	if ev.Kind == event.KindDropped {
		return true
	}
	if st.mesh != "" && ev.Mesh != "" && ev.Mesh != st.mesh {
		return false
	}
	if len(st.kinds) == 0 {
		return true
	}
	for _, k := range st.kinds {
		if ev.Kind == k || (strings.HasPrefix(ev.Kind, k) && ev.Kind[len(k)] == '.') {
			return true
		}
	}
	return false
}

// add appends one event if it is wanted.
func (st *stream) add(ev event.Event) {
	if !st.wants(&ev) {
		return
	}
	st.n++
	st.buf = append(st.buf, "id: "...)
	st.buf = strconv.AppendUint(st.buf, st.n, 10)
	st.buf = append(st.buf, "\nevent: "...)
	st.buf = append(st.buf, oneLine(ev.Kind)...)
	st.buf = append(st.buf, "\ndata: "...)
	st.buf = appendEventData(st.buf, &ev)
	st.buf = append(st.buf, "\n\n"...)
}

// flush writes what was added.
func (st *stream) flush() bool {
	if len(st.buf) == 0 {
		return true
	}
	st.rc.SetWriteDeadline(time.Now().Add(eventWrite))
	_, err := st.w.Write(st.buf)
	st.buf = st.buf[:0]
	if err != nil {
		return false
	}
	return st.rc.Flush() == nil
}

// oneLine keeps a kind from breaking out of its line.
func oneLine(s string) string {
	if strings.ContainsAny(s, "\r\n") {
		return strings.NewReplacer("\r", " ", "\n", " ").Replace(s)
	}
	return s
}

// appendEventData appends {"ts","seq","mesh"?} and the members of the event's
// data, on one line.
func appendEventData(b []byte, ev *event.Event) []byte {
	b = append(b, `{"ts":"`...)
	b = ev.At.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, ev.Seq, 10)
	if ev.Mesh != "" {
		b = append(b, `,"mesh":`...)
		b = appendString(b, ev.Mesh)
	}
	b = appendMembers(b, ev.Data, ev.Mesh == "")
	return append(b, '}')
}

// appendMembers appends ",name:value" for each member of an object but the
// stream's own.
func appendMembers(b []byte, obj jsontext.Value, keepMesh bool) []byte {
	if len(obj) == 0 {
		return b
	}
	mark := len(b)
	d := jsontext.NewDecoder(bytes.NewReader(obj))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return b
	}
	for d.PeekKind() == jsontext.KindString {
		tok, err := d.ReadToken()
		if err != nil {
			return b[:mark]
		}
		name := tok.String()
		v, err := d.ReadValue()
		if err != nil {
			return b[:mark]
		}
		if name == "ts" || name == "seq" || (name == "mesh" && !keepMesh) {
			continue
		}
		b = append(b, ',')
		b = append(appendString(b, name), ':')
		if bytes.ContainsAny(v, "\r\n") {
			v = v.Clone()
			v.Compact()
		}
		b = append(b, v...)
	}
	return b
}
