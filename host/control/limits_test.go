package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestWaitEndsInTime(t *testing.T) {
	ts := start(t, &fake{wait: func(ctx context.Context, _ string, _ sdk.EntryState) (*sdk.Entry, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("wait: %w", ctx.Err())
	}})
	_, err := ts.client.OutboxWait(t.Context(), "e1", sdk.StateAccepted, 20*time.Millisecond)
	var ae *APIError
	if !errors.As(err, &ae) || ae.Code != "wait_timeout" || ae.Status != 504 {
		t.Fatalf("OutboxWait: %v, want wait_timeout", err)
	}
}

func TestShutdownEndsWaitsAndStreams(t *testing.T) {
	waiting := make(chan struct{})
	ts := start(t, &fake{wait: func(ctx context.Context, _ string, _ sdk.EntryState) (*sdk.Entry, error) {
		close(waiting)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	waited, streamed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := ts.client.OutboxWait(context.Background(), "e1", sdk.StateAccepted, time.Minute)
		waited <- err
	}()
	open := make(chan struct{})
	go func() {
		streamed <- ts.client.Events(context.Background(), nil, "", func() error { close(open); return nil }, func(StreamEvent) error { return nil })
	}()
	<-waiting
	<-open
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	var ae *APIError
	if err := <-waited; !errors.As(err, &ae) || ae.Code != "stopping" {
		t.Errorf("the wait ended with %v, want stopping", err)
	}
	var gone *UnreachableError
	if err := <-streamed; !errors.As(err, &gone) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestWaitersAreBounded(t *testing.T) {
	ts := start(t, &fake{})
	for range maxWaiters {
		ts.waiters <- struct{}{}
	}
	status, body := ts.ask(t, "GET", "/v1/outbox/e1/wait", "")
	if err := holds(body, `{"error":"busy"}`); status != 503 || err != nil {
		t.Errorf("%d %v", status, err)
	}
}

func TestMetricsAreText(t *testing.T) {
	ts := start(t, &fake{})
	status, body := ts.ask(t, "GET", "/metrics", "")
	if status != 200 || !strings.Contains(body, "meshhost_test_total 3") {
		t.Errorf("%d %s", status, body)
	}
}

func TestProcessesOfOthersAreTurnedAway(t *testing.T) {
	path := shortDir(t) + "/s"
	ln, err := listen(t, path, true)
	if err != nil {
		t.Fatal(err)
	}
	ts := start(t, &fake{})
	checked := 0
	g := newGate(ln, ts.stopping, ts.log)
	g.check = func(*net.UnixConn) error {
		if checked++; checked == 1 {
			return admitUID(4711, 1000)
		}
		return nil
	}
	first, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	c, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	answer, err := io.ReadAll(first)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403 ") || !strings.Contains(string(answer), `"error":"wrong_user"`) {
		t.Errorf("the stranger got %q, %v", answer, err)
	}
	if len(g.slots) != 0 {
		t.Errorf("%d slots are still taken", len(g.slots))
	}
}

func TestHostMayBeEmpty(t *testing.T) {
	ts := start(t, &fake{})
	got := ts.raw(t, "GET /v1/version HTTP/1.1\r\nHost:\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("an empty Host was answered with %q", got)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	ts := start(t, &fake{})
	got := ts.raw(t, "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 2*maxHeaderBytes)+"\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("a header of %d bytes was answered with %q", 2*maxHeaderBytes, got)
	}
}

func TestNewWantsEveryRoom(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New without rooms succeeded")
	}
}

func TestASilentConnectionDoesNotHoldShutdownUp(t *testing.T) {
	ts := start(t, &fake{})
	c, err := net.Dial("unix", ts.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := ts.client.Version(t.Context()); err != nil { // the silent one was accepted before it
		t.Fatal(err)
	}
	begin := time.Now()
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("Shutdown took %s", d)
	}
}
