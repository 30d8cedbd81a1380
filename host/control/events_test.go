package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/event"
)

var errEnough = errors.New("enough")

// collect reads n events after publish ran.
func collect(t *testing.T, ts *testServer, kinds []string, mesh string, n int, publish func()) []StreamEvent {
	t.Helper()
	var got []StreamEvent
	err := ts.client.Events(t.Context(), kinds, mesh, func() error { publish(); return nil }, func(ev StreamEvent) error {
		if got = append(got, ev); len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("Events: %v after %v", err, got)
	}
	return got
}

func TestEventsArriveInOrderWithTheirData(t *testing.T) {
	ts := start(t, &fake{})
	got := collect(t, ts, nil, "", 3, func() {
		ts.bus.Publish("message", "team", jsontext.Value("{\n\"id\":\"m1\",\"mesh\":\"other\",\"body\":\"a\\nb\"}"))
		ts.bus.Publish("inbox.new", "", map[string]any{"mesh": "kept", "ts": "dropped"})
		ts.bus.Publish("strange", "", jsontext.Value(`[1]`))
	})
	for i, want := range []string{`{"mesh":"team","id":"m1","body":"a\nb","seq":1}`, `{"mesh":"kept","seq":2}`, `{"seq":3}`} {
		if err := holds(string(got[i].Data), want); err != nil {
			t.Errorf("event %d: %v", i, err)
		}
		var ts struct {
			TS time.Time `json:"ts"`
		}
		if err := json.Unmarshal(got[i].Data, &ts); err != nil || ts.TS.IsZero() {
			t.Errorf("event %d: ts: %v in %s", i, err, got[i].Data)
		}
	}
}

func TestEventsAreChosenByKindAndMesh(t *testing.T) {
	ts := start(t, &fake{status: Status{Meshes: []MeshStatus{{Name: "team"}}}})
	got := collect(t, ts, []string{"message", "inbox"}, "team", 3, func() {
		ts.bus.Publish("message", "lab", nil)
		ts.bus.Publish("peer_join", "team", nil)
		ts.bus.Publish("inboxes.new", "team", nil)
		ts.bus.Publish("message", "team", nil)
		ts.bus.Publish("inbox.new", "team", nil)
		ts.bus.Publish("inbox", "", nil)
	})
	var kinds []string
	for _, ev := range got {
		kinds = append(kinds, ev.Kind)
	}
	if s := strings.Join(kinds, " "); s != "message inbox.new inbox" {
		t.Errorf("got %s", s)
	}
}

func TestTheStreamIsServerSentEvents(t *testing.T) {
	ts := start(t, &fake{})
	resp, err := ts.client.http.Get("http://localhost/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %q", ct)
	}
	ts.bus.Publish("message", "team", map[string]string{"a": "b"})
	buf := make([]byte, 4096)
	text := ""
	for !strings.HasSuffix(text, "}\n\n") {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		text += string(buf[:n])
	}
	if !strings.HasPrefix(text, ": connected\n\nid: 1\nevent: message\ndata: {\"ts\":\"") {
		t.Errorf("got %q", text)
	}
}

// quiet is a response writer of memory that hands over what is flushed.
type quiet struct {
	*httptest.ResponseRecorder
	flushed chan string
}

func (q *quiet) Flush() {
	q.flushed <- q.Body.String()
	q.Body.Reset()
}
func (q *quiet) SetReadDeadline(time.Time) error  { return nil }
func (q *quiet) SetWriteDeadline(time.Time) error { return nil }

func TestKeepaliveEvery15Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New()
		s := &Server{opts: Options{Events: bus}, readers: make(chan struct{}, 1), stopping: make(chan struct{})}
		q := &quiet{httptest.NewRecorder(), make(chan string)}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.events(q, httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events", nil))
		}()
		begin := time.Now()
		for i, want := range []string{": connected\n\n", ": keepalive\n\n", ": keepalive\n\n"} {
			if got := <-q.flushed; got != want || time.Since(begin) != time.Duration(i)*15*time.Second {
				t.Errorf("after %s: %q, want %q", time.Since(begin), got, want)
			}
		}
		cancel()
		<-over
		bus.Close()
	})
}

func TestABurstOfLargeEventsIsWrittenInParts(t *testing.T) {
	large := event.Event{Kind: "message", Data: jsontext.Value(`{"body":"` + strings.Repeat("x", 48_000) + `"}`)}
	c := make(chan event.Event, eventBatch)
	for range eventBatch {
		c <- large
	}
	st := &stream{}
	for len(c) > 0 {
		before := len(c)
		if !st.more(c) || len(c) == before {
			t.Fatalf("it stopped with %d events left", len(c))
		}
		if len(st.buf) > eventBytes+49_000 {
			t.Fatalf("%d bytes in one write", len(st.buf))
		}
		st.buf = st.buf[:0]
	}
}

func TestASlowReaderLosesEventsAndStallsNobody(t *testing.T) {
	ts := start(t, &fake{})
	slow, err := net.Dial("unix", ts.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 512)
	if _, err := slow.Read(hello); err != nil { // now it is subscribed
		t.Fatal(err)
	}
	// More than its socket and its buffer hold, while it reads nothing; the
	// quick reader gets each of them before the next is published.
	const n = 3 * eventBuffer
	body := strings.Repeat("x", 4096)
	publish := func() { ts.bus.Publish("message", "team", map[string]string{"body": body}) }
	seen := 0
	err = ts.client.Events(t.Context(), nil, "", func() error { publish(); return nil }, func(ev StreamEvent) error {
		if ev.Kind == event.KindDropped {
			return errors.New("the quick reader lost events")
		}
		if seen++; seen == n {
			return errEnough
		}
		publish()
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("quick reader: %v after %d events", err, seen)
	}
	slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	found := strings.Builder{}
	buf := make([]byte, 64<<10)
	for !strings.Contains(found.String(), "event: dropped\n") {
		k, err := slow.Read(buf)
		if err != nil {
			t.Fatalf("the slow reader was never told: %v", err)
		}
		found.Write(buf[:k])
	}
}

func TestReadersAreBoundedAndGiveTheirPlaceBack(t *testing.T) {
	ts := start(t, &fake{})
	for range maxReaders {
		ts.readers <- struct{}{}
	}
	status, body := ts.ask(t, "GET", "/v1/events", "")
	if err := holds(body, `{"error":"busy"}`); status != 503 || err != nil {
		t.Fatalf("reader %d: %d %v", maxReaders+1, status, err)
	}
	<-ts.readers
	collect(t, ts, nil, "", 1, func() { ts.bus.Publish("message", "", nil) })
}

func TestEventParserKeepsToTheFormat(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"comments and ids", ": hi\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\n", `a {"x":1};`},
		{"no space behind the colon", "event:a\ndata:{}\n\n", `a {};`},
		{"two data lines", "event: a\ndata: {\"x\":\ndata: 1}\n\n", "a {\"x\":\n1};"},
		{"carriage returns", "event: a\r\ndata: {}\r\n\r\n", `a {};`},
		{"no data, no event", "event: a\n\ndata: {}\n\n", ` {};`},
		{"cut off", "event: a\ndata: {}\n", ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			err := readEvents(strings.NewReader(c.in), func(ev StreamEvent) error {
				got += ev.Kind + " " + string(ev.Data) + ";"
				return nil
			})
			if !errors.Is(err, io.EOF) || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	if err := readEvents(strings.NewReader("data: {x\n\n"), nil); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("data that is no JSON: %v", err)
	}
	if err := readEvents(strings.NewReader(strings.Repeat("x", maxEventLine+70000)), nil); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an endless line: %v", err)
	}
}
