package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/meshhost/meshhost/sdk"
)

// echo takes every message but those to nobody.
func echo(r SendRequest) (SendReply, error) {
	if r.To == "nobody" {
		return SendReply{}, sdk.Errorf(sdk.CodeNotFound, "route_failed", "nobody is called %q", r.To)
	}
	return SendReply{
		ID: "i-" + r.Message, ClientMessageID: r.ClientMessageID, Status: StatusQueued, Durable: true,
		Resolved: Resolved{Target: r.Mesh + "/" + r.Priority, From: "live"},
	}, nil
}

func TestABatchHasOneAnswerForEachLineInTheirOrder(t *testing.T) {
	ts := start(t, &fake{send: echo})
	status, body := ts.ask(t, "POST", "/v1/send/batch?mesh=team&priority=low", strings.Join([]string{
		`{"to":"bob","message":"1","client_message_id":"c1"}`,
		``,
		`{"to":"nobody","message":"2"}`,
		`{"to":"bob"}`,
		`{"to":"bob","message":"4","mesh":"lab","priority":"now"}` + "\r",
		`{"to":"bob","message":"5","color":"red"}`,
		`not json`,
		`{"to":"bob","message":"` + strings.Repeat("x", bodySend) + `"}`,
		`{"to":"bob","message":"8"}`, // without an end
	}, "\n"))
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	want := []string{
		`{"line":1,"client_message_id":"c1","id":"i-1","status":"queued","durable":true,"resolved":{"target":"team/low","from":"live"}}`,
		`{"line":3,"http_status":502,"error":"route_failed"}`,
		`{"line":4,"http_status":400,"error":"missing_field","message":"the field \"message\" is missing"}`,
		`{"line":5,"id":"i-4","resolved":{"target":"lab/now","from":"live"}}`,
		`{"line":6,"http_status":400,"error":"invalid_json"}`,
		`{"line":7,"http_status":400,"error":"invalid_json"}`,
		`{"line":8,"http_status":413,"error":"payload_too_large"}`,
		`{"line":9,"id":"i-8"}`,
	}
	got := strings.Split(strings.TrimSpace(body), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d:\n%s", len(got), len(want), body)
	}
	for i := range want {
		if err := holds(got[i], want[i]); err != nil {
			t.Errorf("answer %d: %v", i+1, err)
		}
	}
	if status, body := ts.ask(t, "POST", "/v1/send/batch?priority=urgent", ""); status != http.StatusBadRequest || !strings.Contains(body, "bad_priority") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := ts.ask(t, "POST", "/v1/send/batch", ""); status != http.StatusOK || body != "" {
		t.Errorf("no line: %d %s", status, body)
	}
}

// talk opens a batch whose lines the test writes and whose answers it reads.
func (ts *testServer) talk(t *testing.T) (io.WriteCloser, *bufio.Reader) {
	t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://localhost/v1/send/batch", r)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ts.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close(); w.Close() })
	return w, bufio.NewReader(resp.Body)
}

func TestALineIsAnsweredBeforeTheNextOneIsWritten(t *testing.T) {
	ts := start(t, &fake{send: echo})
	w, answers := ts.talk(t)
	io.WriteString(w, `{"to":"bob","mes`) // half a line holds up none before it
	for i := range 3 {
		if i == 0 {
			io.WriteString(w, `sage":"0"}`+"\n")
		} else {
			fmt.Fprintf(w, `{"to":"bob","message":"%d"}`+"\n"+`{"to":`, i)
		}
		line, err := answers.ReadString('\n')
		if err != nil || holds(line, fmt.Sprintf(`{"line":%d,"id":"i-%d"}`, i+1, i)) != nil {
			t.Fatalf("answer %d: %s %v", i, line, err)
		}
		if i > 0 {
			io.WriteString(w, `"nobody","message":"x"}`+"\n")
			if line, err = answers.ReadString('\n'); err != nil || !strings.Contains(line, "route_failed") {
				t.Fatalf("answer to the rest: %s %v", line, err)
			}
			return
		}
	}
}

func TestManyLinesGoTogether(t *testing.T) {
	var calls, most atomic.Int64
	ts := start(t, &fake{send: echo, many: func(n int) {
		calls.Add(1)
		if int64(n) > most.Load() {
			most.Store(int64(n))
		}
	}})
	const n = 5000
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, `{"to":"bob","message":"%d"}`+"\n", i)
	}
	next := 1
	err := ts.client.SendBatch(t.Context(), strings.NewReader(in.String()), "", "", func(l BatchLine) error {
		var got struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(l.Raw, &got); err != nil || l.Err != nil || l.Line != next || got.ID != fmt.Sprintf("i-%d", next-1) {
			return fmt.Errorf("answer %d is %s: %v", next, l.Raw, err)
		}
		next++
		return nil
	})
	if err != nil || next != n+1 {
		t.Fatalf("%d answers: %v", next-1, err)
	}
	if calls.Load() > n/20 || most.Load() > batchLines+batchLines {
		t.Errorf("%d calls for %d lines, at most %d in one", calls.Load(), n, most.Load())
	}
}

// A client that reads no answers is read no further: what waits for it is
// bounded.
func TestAClientThatDoesNotReadIsNotReadEither(t *testing.T) {
	var taken atomic.Int64
	ts := start(t, &fake{send: func(r SendRequest) (SendReply, error) {
		taken.Add(1)
		return SendReply{ID: strings.Repeat("i", 4000), Status: StatusQueued}, nil
	}})
	w, answers := ts.talk(t)
	written := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 100_000; n++ {
			if _, err := io.WriteString(w, `{"to":"bob","message":"m"}`+"\n"); err != nil {
				break
			}
		}
		written <- n
		w.Close()
	}()
	settled := int64(-1)
	for deadline := time.Now().Add(10 * time.Second); settled != taken.Load() && time.Now().Before(deadline); {
		settled = taken.Load()
		select { // the server has had its time to go on
		case <-time.After(300 * time.Millisecond):
		case n := <-written:
			t.Fatalf("all %d lines were read although no answer was", n)
		}
	}
	if settled > 5000 {
		t.Errorf("%d messages were taken whose answers nobody reads", settled)
	}
	lines := 0
	for {
		if _, err := answers.ReadString('\n'); err != nil {
			break
		}
		lines++
	}
	if n := <-written; n != 100_000 || lines != n {
		t.Errorf("%d lines written, %d answered", n, lines)
	}
}

func TestAStopEndsABatchWithAWordOnWhatWasNotTaken(t *testing.T) {
	ts := start(t, &fake{send: echo})
	w, answers := ts.talk(t)
	io.WriteString(w, `{"to":"bob","message":"1"}`+"\n")
	if line, err := answers.ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := ts.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	line, err := answers.ReadString('\n')
	if err != nil || holds(line, `{"line":2,"http_status":503,"error":"stopping"}`) != nil {
		t.Errorf("%s %v", line, err)
	}
	if line, err := answers.ReadString('\n'); err != io.EOF {
		t.Errorf("behind it %s %v", line, err)
	}
}

func TestABatchThatBreaksOffEndsAndGivesItsPlaceBack(t *testing.T) {
	ts := start(t, &fake{send: echo})
	for range 2 * maxBatches { // each would keep a place if it were not given back
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		go io.WriteString(w, `{"to":"bob","message":"1"}`+"\n")
		err := ts.client.SendBatch(ctx, r, "", "", func(BatchLine) error { cancel(); return nil })
		if err == nil {
			t.Fatal("a batch that was broken off ended well")
		}
		cancel()
		w.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(ts.batches) > 0 && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	if len(ts.batches) != 0 || len(ts.tokens) != 0 {
		t.Errorf("%d batches and %d tokens are still taken", len(ts.batches), len(ts.tokens))
	}
}
