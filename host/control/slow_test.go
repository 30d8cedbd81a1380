package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/host/event"
	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener in memory, so that the server's time can be virtual.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// piped runs test in virtual time with a server of f, and dial to reach it.
func piped(t *testing.T, f *fake, test func(t *testing.T, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		bus := event.New()
		s, err := New(Options{
			Outbound: f, Outbox: f, Peers: f, Features: f, Plugins: f, Overview: f, Reloader: f, Events: bus, Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		ln := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		test(t, func() net.Conn {
			ours, theirs := net.Pipe()
			ln.conns <- theirs
			return ours
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		bus.Close()
	})
}

// post asks on a connection of one's own and returns the answer.
func post(t *testing.T, c net.Conn, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(c); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

func TestACallMayTakeLongerThanItsRequestMay(t *testing.T) {
	work := 4 * bodyTimeout // a plugin with timeouts { call = … } of its own
	piped(t, &fake{callFor: func(ctx context.Context) (jsontext.Value, error) {
		select {
		case <-time.After(work):
			return jsontext.Value(`{"done":true}`), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		defer c.Close()
		resp, body := post(t, c, "/v1/features/state/list", "{}")
		if resp.StatusCode != http.StatusOK || body != `{"done":true}` {
			t.Errorf("a call of %s was answered with %d %s", work, resp.StatusCode, body)
		}
		time.Sleep(answerTimeout - time.Second) // virtual; the connection is still kept, the answer's time is nearly over
		if resp, body = post(t, c, "/v1/features/state/list", "{}"); resp.StatusCode != http.StatusOK {
			t.Errorf("the next one on this connection was answered with %d %s", resp.StatusCode, body)
		}
	})
}

func TestABodyThatDoesNotComeIsGivenUp(t *testing.T) {
	piped(t, &fake{}, func(t *testing.T, dial func() net.Conn) {
		c := dial()
		defer c.Close()
		begin := time.Now()
		if _, err := io.WriteString(c, "POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if took := time.Since(begin); resp.StatusCode != http.StatusBadRequest || took > 2*bodyTimeout {
			t.Errorf("half a body was answered with %d after %s", resp.StatusCode, took)
		}
	})
}

func TestAClientThatReadsNothingIsCutOff(t *testing.T) {
	big := jsontext.Value(`{"text":"` + strings.Repeat("x", 1<<20) + `"}`)
	for name, request := range map[string]string{
		"call":    "POST /v1/features/state/list HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
		"error":   "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"metrics": "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		ask := func(t *testing.T) {
			piped(t, &fake{callFor: func(context.Context) (jsontext.Value, error) { return big, nil }}, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				defer c.Close()
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
				time.Sleep(answerTimeout + time.Second) // virtual
				synctest.Wait()
				got, err := io.ReadAll(c)
				if err != nil || len(got) > 0 {
					t.Errorf("%d bytes and %v after %s without a read, want the end", len(got), err, answerTimeout)
				}
			})
		}
		t.Run(name, ask)
	}
}

func TestAConnectionThatComesWithTheEndIsHungUpOn(t *testing.T) {
	ln := &pipes{conns: make(chan net.Conn, 1), over: make(chan struct{})}
	g := newGate(lateListener{ln}, make(chan struct{}), hclog.NewNullLogger())
	ours, theirs := net.Pipe()
	defer ours.Close()
	ln.conns <- theirs
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Accept gave %v and %v after Close, want net.ErrClosed", c, err)
	}
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection reads %v, want its end", err)
	}
	if len(g.slots) != 0 {
		t.Errorf("%d slots are still taken", len(g.slots))
	}
}

// lateListener has accepted a connection when it is closed.
type lateListener struct{ *pipes }

func (l lateListener) Accept() (net.Conn, error) { return <-l.conns, nil }
