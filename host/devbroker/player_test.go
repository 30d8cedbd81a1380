package devbroker

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/go-json-experiment/json"
)

type testKey struct {
	pub    string
	secret ed25519.PrivateKey
}

func newTestKey() testKey {
	pub, secret, _ := ed25519.GenerateKey(nil) // never fails with the system's random source
	return testKey{hex.EncodeToString(pub), secret}
}

func (k testKey) sign(text string) string {
	return hex.EncodeToString(ed25519.Sign(k.secret, []byte(text)))
}

// heard is what one connection saw, in order.
type heard struct {
	start time.Time // t=0
	mu    sync.Mutex
	list  []line
}

func (h *heard) add(l line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.T = time.Since(h.start).Milliseconds()
	h.list = append(h.list, l)
}

// playback is the outcome of one scenario: what the client side sent, translated, and what it heard.
type playback struct {
	names *names
	heard map[string]*heard
}

// player is the client side of a scenario.
type player struct {
	s     *scenario
	t     *testing.T
	b     *Broker
	start time.Time // virtual moment of t=0
	keys  map[string]testKey
	stray testKey // signs what was signed by a wrong key
	out   playback
	live  *names // also the ids that the broker gave so far; the comparison finds those by itself
	socks map[string]*websocket.Conn
	wires map[string]*net.Conn
	wg    sync.WaitGroup
}

// play replays s in the running synctest bubble.
func play(t *testing.T, s *scenario) playback {
	p := &player{
		s: s, t: t, keys: map[string]testKey{}, stray: newTestKey(), socks: map[string]*websocket.Conn{}, wires: map[string]*net.Conn{},
	}
	p.out = playback{names: newNames(), heard: map[string]*heard{}}
	for _, k := range s.keys {
		p.keys[k] = newTestKey()
		p.out.names.know(k, p.keys[k].pub)
	}
	p.live = p.out.names.clone()
	p.start = time.Now().Add(time.Minute)
	time.Sleep(time.Minute + s.tickPhase() - pingEvery)
	b, err := New(Options{Seed: s.seed(p.keys)})
	if err != nil {
		t.Fatal(err)
	}
	p.b = b
	for _, l := range s.lines {
		if l.Dir == "recv" || l.Event == "close" && p.brokersDoing(l) {
			continue
		}
		time.Sleep(time.Until(p.start.Add(time.Duration(l.T) * time.Millisecond)))
		p.act(l)
		synctest.Wait()
	}
	last := s.lines[len(s.lines)-1].T
	time.Sleep(time.Until(p.start.Add(time.Duration(last+1) * time.Millisecond)))
	synctest.Wait()
	for _, ws := range p.socks {
		_ = ws.CloseNow()
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	p.wg.Wait()
	return p.out
}

// tickPhase is when the broker's ping tick beats, from the first recorded PING; 30 s if none was recorded.
func (s *scenario) tickPhase() time.Duration {
	for _, l := range s.lines {
		if l.Label == "PING" {
			return time.Duration(l.T%30_000) * time.Millisecond
		}
	}
	return pingEvery
}

// brokersDoing says whether a recorded close was none of the client's: it carries a reason, or came without one to a
// client that had stopped answering pings.
func (p *player) brokersDoing(l line) bool {
	if l.Code == 1006 {
		return !slices.Contains(p.s.gaps.dropped, l.Conn)
	}
	return l.Reason != ""
}

func (p *player) act(l line) {
	switch {
	case l.Event == "open":
		p.dial(l.Conn, "/ws", true)
	case l.Event == "error":
		path := strings.TrimPrefix(l.Conn[:strings.LastIndex(l.Conn, "#")], "P ")
		p.dial(l.Conn, path, false)
	case l.Event == "close" && l.Code == 1006:
		_ = p.socks[l.Conn].CloseNow()
	case l.Event == "close":
		// Fails if the broker was faster; what the connection saw tells.
		_ = p.socks[l.Conn].Close(websocket.StatusCode(l.Code), l.Reason)
	case l.Dir == "ping":
		p.ping(l.Conn, *l.Data)
	case l.Dir == "send":
		p.send(l)
	default:
		p.t.Fatalf("no part for %+v", l)
	}
}

func (p *player) dial(name, path string, want bool) {
	h := &heard{start: p.start}
	p.out.heard[name] = h
	wire := new(net.Conn)
	p.wires[name] = wire
	mute := slices.Contains(p.s.gaps.mute, name)
	ws, resp, err := websocket.Dial(context.Background(), "ws://broker"+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := p.b.Dialer()(ctx, network, addr)
				*wire = c
				return c, err
			},
		}},
		OnPingReceived: func(_ context.Context, data []byte) bool {
			h.add(line{Dir: "recv", Label: "PING", Data: new(string(data))})
			return !mute
		},
		OnPongReceived: func(_ context.Context, data []byte) { h.add(line{Dir: "recv", Label: "PONG", Data: new(string(data))}) },
	})
	if err != nil {
		code := 1006
		if resp != nil { // an HTTP answer is not a dropped connection
			code = resp.StatusCode
		}
		h.add(line{Event: "close", Code: code})
		if want {
			p.t.Errorf("%s: dial: %v", name, err)
		}
		return
	}
	ws.SetReadLimit(-1)
	p.socks[name] = ws
	p.wg.Go(func() {
		for {
			_, data, err := ws.Read(context.Background())
			if err != nil {
				l := line{Event: "close", Code: 1006}
				var ce websocket.CloseError
				if errors.As(err, &ce) {
					l.Code, l.Reason = int(ce.Code), ce.Reason
				}
				h.add(l)
				return
			}
			h.add(line{Dir: "recv", Frame: data})
		}
	})
}

// ping writes a masked ping frame past the library, whose own pings have another payload.
func (p *player) ping(name, data string) {
	frame := append([]byte{0x80 | opPing, 0x80 | byte(len(data)), 0, 0, 0, 0}, data...)
	if _, err := (*p.wires[name]).Write(frame); err != nil {
		p.t.Errorf("%s: ping: %v", name, err)
	}
}

func (p *player) send(l line) {
	msg, kind := []byte(l.Frame), websocket.MessageText
	if _, ok := p.s.gaps.binary[l.Label]; ok {
		kind = websocket.MessageBinary
	}
	switch l.Frame.Kind() {
	case '"': // what was no JSON object was recorded as a string
		var raw string
		if err := json.Unmarshal(l.Frame, &raw); err != nil {
			p.t.Fatal(err)
		}
		msg = []byte(raw)
	case '{':
		msg = p.translate(l)
	}
	ws := p.socks[l.Conn]
	if ws == nil {
		p.t.Fatalf("%s sends before it is open", l.Conn)
	}
	if err := ws.Write(context.Background(), kind, msg); err != nil {
		p.t.Errorf("%s: send %s: %v", l.Conn, l.Label, err)
	}
}

// translate turns a recorded frame into one for this run: our keys, the ids that our broker gave out, times with their
// recorded distance from the clock, and signatures as valid or invalid as the recorded ones.
func (p *player) translate(l line) []byte {
	rec := object(l.Frame)
	// Only what came back so far can have been meant; learn it before translating.
	p.learn(l)
	out := p.live.rewrite(rec).(map[string]any)
	shift := func(v any) any {
		switch v := v.(type) {
		case float64:
			return float64(time.Now().UnixMilli() + int64(v) - p.s.base - l.T)
		case string:
			return jsNumber(float64(time.Now().UnixMilli() + parseMillis(v) - p.s.base - l.T))
		}
		return v
	}
	text := func(m map[string]any, k string) string {
		switch v := m[k].(type) {
		case string:
			return v
		case float64:
			return jsNumber(v)
		}
		return ""
	}
	switch rec["type"] {
	case "hello":
		signed := func(m map[string]any) string {
			return text(m, "meshId") + "|" + text(m, "memberId") + "|" + text(m, "pubkey") + "|" + text(m, "timestamp")
		}
		was := signed(rec)
		out["timestamp"] = shift(rec["timestamp"])
		out["signature"] = p.resign(text(rec, "pubkey"), was, text(rec, "signature"), signed(out))
	case "session_hello":
		signed := func(m map[string]any) string {
			return "claudemesh-session-hello|" + text(m, "meshId") + "|" + text(m, "parentMemberPubkey") + "|" +
				text(m, "sessionPubkey") + "|" + text(m, "timestamp")
		}
		was := signed(rec)
		out["timestamp"] = shift(rec["timestamp"])
		out["signature"] = p.resign(text(rec, "sessionPubkey"), was, text(rec, "signature"), signed(out))
		if old, ok := rec["parentAttestation"].(map[string]any); ok {
			signed := func(m map[string]any) string {
				return "claudemesh-session-attest|" + text(m, "parentMemberPubkey") + "|" + text(m, "sessionPubkey") + "|" + text(m, "expiresAt")
			}
			a := out["parentAttestation"].(map[string]any)
			was := signed(old)
			a["expiresAt"] = shift(old["expiresAt"])
			a["signature"] = p.resign(text(old, "parentMemberPubkey"), was, text(old, "signature"), signed(a))
		}
	}
	msg, err := json.Marshal(out)
	if err != nil {
		p.t.Fatal(err)
	}
	// What a client chose stays as it is, both ways.
	p.out.names.knowAll(rec, out)
	p.live.knowAll(rec, out)
	return msg
}

// resign signs text with our key for the recorded one if the recorded signature held, with a stray key if it was one that
// did not hold, and leaves alone what was no signature at all.
func (p *player) resign(recordedPub, recordedText, recordedSig, text string) string {
	pub, err := hex.DecodeString(recordedPub)
	sig, err2 := hex.DecodeString(recordedSig)
	if err != nil || err2 != nil || len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
		return recordedSig
	}
	if strings.Trim(recordedSig, "0") == "" {
		return recordedSig
	}
	if ed25519.Verify(pub, []byte(recordedText), sig) {
		return p.keys[strings.ToLower(recordedPub)].sign(text)
	}
	return p.stray.sign(text)
}

// learn pairs the ids of what was recorded before l with the ids that our broker gave.
func (p *player) learn(l line) {
	next := map[string]int{}
	for _, r := range p.s.lines {
		if r.T > l.T {
			return
		}
		if !r.observed() {
			continue
		}
		h := p.out.heard[r.Conn]
		if h == nil {
			continue
		}
		h.mu.Lock()
		if i := next[r.Conn]; i < len(h.list) {
			_ = p.live.compare(r, h.list[i]) // differences are the comparer's business, later
			next[r.Conn]++
		}
		h.mu.Unlock()
	}
}

// observed says whether a line is something that a connection saw.
func (l line) observed() bool { return l.Dir == "recv" || l.Event == "close" }

var isoTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

func jsNumber(f float64) string { return number{F: f, OK: true}.String() }

func parseMillis(s string) int64 {
	var n int64
	for _, c := range s {
		n = n*10 + int64(c-'0')
	}
	return n
}

func TestTranscript(t *testing.T) {
	passed, want := 0, 0
	for _, s := range loadScenarios(t) {
		must := slices.Contains(due, number2(s.name))
		if must {
			want++
		}
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := play(t, s)
				diff := append(out.differences(s.lines), out.untimely(s.lines)...)
				if len(diff) > 0 {
					t.Errorf("%s differs from the recording:\n%s", s.name, strings.Join(diff, "\n"))
				}
			})
			if must && !t.Failed() {
				passed++
			}
		})
	}
	fmt.Printf("RESULT transcripts scenarios=%d passed=%d\n", want, passed)
	if want != len(due) || passed != want {
		t.Errorf("%d of %d due transcripts pass", passed, len(due))
	}
}
