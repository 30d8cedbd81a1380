package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func TestRealSocketOnLoopback(t *testing.T) {
	const frames = 5000
	sum := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.CloseNow()
		p := &peer{t: t, c: c}
		_, _ = p.read()
		p.write(ackFrame)
		for i := range frames {
			got, err := p.read()
			if want := fmt.Sprintf(`{"type":"n","n":%d}`, i); err != nil || got != want {
				t.Errorf("frame %d is %q, %v", i, got, err)
				return
			}
		}
		sum <- frames
		p.drain()
	}))
	defer server.Close()
	r := &recorder{stateC: make(chan State, 16)}
	l, err := New(Options{
		URL:     "ws" + strings.TrimPrefix(server.URL, "http") + "/ws",
		Hello:   testHello,
		OnFrame: r.onFrame,
		OnState: r.onState,
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(l)
	defer stop()
	r.await(Ready)
	for i := range frames {
		if err := l.Send(t.Context(), fmt.Appendf(nil, `{"type":"n","n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	<-sum
}

func TestSecureSocketOnLoopback(t *testing.T) {
	echoed := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
			t.Errorf("TLS state %+v", r.TLS)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.CloseNow()
		p := &peer{t: t, c: c}
		_, _ = p.read()
		p.write(ackFrame)
		got, _ := p.read()
		echoed <- got
		p.drain()
	}))
	server.EnableHTTP2 = true // a broker behind a proxy offers it; WebSockets need HTTP/1.1
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	for _, trusted := range []bool{false, true} {
		r := &recorder{stateC: make(chan State, 16)}
		opts := Options{URL: "wss" + strings.TrimPrefix(server.URL, "https") + "/ws", Hello: testHello, OnFrame: r.onFrame, OnState: r.onState}
		if trusted {
			roots := x509.NewCertPool()
			roots.AddCert(server.Certificate())
			opts.TLS = &tls.Config{RootCAs: roots}
		}
		l, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = l.Run(ctx) }()
		if trusted {
			r.await(Ready)
			if err := l.Send(t.Context(), []byte(`{"type":"secret"}`)); err != nil {
				t.Error(err)
			}
			if got := <-echoed; got != `{"type":"secret"}` {
				t.Errorf("the server got %q", got)
			}
		} else if s := r.await(Backoff); !strings.Contains(s.LastError, "certificate") {
			t.Errorf("an untrusted certificate: %q", s.LastError)
		}
		cancel()
		<-done
	}
}
