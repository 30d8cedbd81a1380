package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/host/feature"
	"github.com/meshhost/meshhost/host/identity"
)

// listener is a broker that acks each hello as one and the same presence and answers frames as a test says.
type listener struct {
	conns chan net.Conn
	gone  chan struct{}
	hear  func(socket int) bool       // does it read on after the hello?
	reply func(typ, id string) string // "": silence

	mu      sync.Mutex
	sockets []*websocket.Conn
	heard   []string // socket:type
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/ws" {
		_, _ = io.WriteString(w, `{"ok":true}`)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	l.mu.Lock()
	l.sockets = append(l.sockets, c)
	n := len(l.sockets)
	l.mu.Unlock()
	say := func(s string) { _ = c.Write(context.Background(), websocket.MessageText, []byte(s)) }
	for first := true; ; first = false {
		if !first && !l.hear(n) {
			<-l.gone
			return
		}
		_, raw, err := c.Read(context.Background())
		if err != nil {
			return
		}
		var f struct {
			Type  string `json:"type"`
			ReqID string `json:"_reqId"`
		}
		if err := json.Unmarshal(raw, &f); err != nil {
			panic("a client wrote " + string(raw))
		}
		if first {
			say(`{"type":"hello_ack","presenceId":"p","memberDisplayName":"a","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"}}`)
			continue
		}
		l.mu.Lock()
		l.heard = append(l.heard, fmt.Sprintf("%d:%s", n, f.Type))
		l.mu.Unlock()
		if answer := l.reply(f.Type, f.ReqID); answer != "" {
			say(answer)
		}
	}
}

func (l *listener) frames() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

// cut ends the current socket as the network would.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.sockets[len(l.sockets)-1].CloseNow()
}

// follows runs a mesh that tells a listener what is wanted, in virtual time.
func follows(t *testing.T, l *listener, w *wanted, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		l.conns, l.gone = make(chan net.Conn), make(chan struct{})
		key, err := identity.ParseSecret(strings.Repeat("1", 64))
		if err != nil {
			t.Fatal(err)
		}
		me := key.Public().String()
		h := &Host{
			bus: event.New(), features: feature.New(nil, hclog.NewNullLogger()),
			presences: &presences{m: map[presenceKey]*wanted{{"team", me}: w}},
		}
		m := &mesh{
			h: h, cfg: &config.Mesh{Name: "team"}, logger: hclog.NewNullLogger(),
			changed: make(chan struct{}, 1), listWanted: make(chan struct{}, 1), telling: make(turn, 1),
		}
		m.broker, err = broker.New(broker.Options{
			MeshID: "MESH1", Slug: "team", MemberID: "MEMBER1", Key: key, URL: "ws://127.0.0.1:7900/ws", Dial: l.dial,
			Presence: broker.Presence{SessionID: "s1", PID: 4242, Cwd: "/srv"},
			Handlers: broker.Handlers{OnState: func(_ *broker.Conn, st broker.State) {
				m.mu.Lock()
				m.last = st
				m.mu.Unlock()
				select {
				case m.changed <- struct{}{}:
				default:
				}
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: l, ErrorLog: log.New(io.Discard, "", 0)}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(l) })
		wg.Go(func() { m.followStates(ctx) })
		wg.Go(func() { _ = m.broker.Run(ctx) })
		test(t)
		cancel()
		close(l.gone)
		_ = server.Close()
		l.mu.Lock()
		for _, c := range l.sockets {
			_ = c.CloseNow()
		}
		l.mu.Unlock()
		wg.Wait()
		h.bus.Close()
	})
}

func ackOf(id string) string {
	return `{"type":"ack","id":"` + id + `","messageId":"","queued":false,"_reqId":"` + id + `"}`
}

func wishes(t *testing.T, frames ...string) *wanted {
	t.Helper()
	w := &wanted{}
	for _, f := range frames {
		if is, err := w.take([]byte(f)); !is || err != nil {
			t.Fatalf("%s: %v, %v", f, is, err)
		}
	}
	return w
}

// A broker answers nothing to what it doesn't know (PROTOCOL 1.6).
func TestSilenceToOneWishKeepsNothingFromTheRest(t *testing.T) {
	l := &listener{hear: func(int) bool { return true }, reply: func(typ, id string) string {
		if typ == "set_profile" || id == "" {
			return ""
		}
		return ackOf(id)
	}}
	w := wishes(t, `{"type":"set_profile","title":"x"}`, `{"type":"set_status","status":"dnd"}`, `{"type":"set_visible","visible":false}`)
	follows(t, l, w, func(t *testing.T) {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got, want := l.frames(), []string{"1:set_profile", "1:set_status", "1:set_visible"}; len(got) < 3 || !slices.Equal(got[:3], want) {
			t.Errorf("the broker was told %v, want %v", got, want)
		}
	})
}

func TestAWishThatCantBeSentKeepsNothingFromTheRest(t *testing.T) {
	l := &listener{hear: func(int) bool { return true }, reply: func(_, id string) string {
		if id == "" {
			return ""
		}
		return ackOf(id)
	}}
	w := wishes(t, `{"type":"set_profile","bio":"`+strings.Repeat("x", 70_000)+`"}`, `{"type":"set_status","status":"dnd"}`, `{"type":"set_visible","visible":false}`)
	follows(t, l, w, func(t *testing.T) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, want := l.frames(), []string{"1:set_status", "1:set_visible"}; !slices.Equal(got, want) {
			t.Errorf("the broker was told %v, want %v, once", got, want)
		}
	})
}

// Nobody answers set_summary: what was written to a socket that then died may never have arrived, and the broker finds the same
// presence again.
func TestWishesThatDiedWithTheirSocketAreToldOnTheNextOne(t *testing.T) {
	l := &listener{hear: func(socket int) bool { return socket > 1 }, reply: func(_, id string) string {
		if id == "" {
			return ""
		}
		return ackOf(id)
	}}
	w := wishes(t, `{"type":"set_summary","summary":"s"}`, `{"type":"join_group","name":"g"}`)
	follows(t, l, w, func(t *testing.T) {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		l.cut()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got, want := l.frames(), []string{"2:join_group", "2:set_summary"}; !slices.Equal(got, want) {
			t.Errorf("the broker was told %v, want %v", got, want)
		}
	})
}
