package devbroker

import (
	"bufio"
	"crypto/sha1" // the WebSocket handshake is defined with it
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxHead     = 64 << 10 // bytes of request line and headers
	maxHookBody = 65536    // PROTOCOL 1.2
)

// accept reads the HTTP request. It answers the HTTP routes itself; for /ws it upgrades and returns the buffered reader.
// Any other path loses its TCP connection without an HTTP response (PROTOCOL 1.1).
func (b *Broker) accept(c *conn) (*bufio.Reader, bool) {
	_ = c.nc.SetDeadline(time.Now().Add(headWait))
	limit := &io.LimitedReader{R: c.nc, N: maxHead}
	br := bufio.NewReaderSize(limit, 8<<10)
	req, err := http.ReadRequest(br)
	if err != nil {
		return nil, false
	}
	limit.N = math.MaxInt64
	if !isUpgrade(req) {
		b.plainHTTP(c, req)
		return nil, false
	}
	key := req.Header.Get("Sec-Websocket-Key")
	if req.RequestURI != "/ws" || req.Method != http.MethodGet || key == "" {
		return nil, false
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 1.3
	c.mu.Lock()
	c.ws = true
	c.mu.Unlock()
	_, err = fmt.Fprintf(c.nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nDate: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]), b.opts.Now().UTC().Format(http.TimeFormat))
	if err != nil {
		return nil, false
	}
	_ = c.nc.SetDeadline(time.Time{})
	return br, true
}

func isUpgrade(req *http.Request) bool {
	return strings.EqualFold(req.Header.Get("Upgrade"), "websocket") &&
		strings.Contains(strings.ToLower(req.Header.Get("Connection")), "upgrade")
}

func (b *Broker) plainHTTP(c *conn, req *http.Request) {
	switch {
	case req.RequestURI == "/hook/set-status" && req.Method == http.MethodPost:
		body, err := io.ReadAll(io.LimitReader(req.Body, maxHookBody+1))
		if err != nil {
			return
		}
		if len(body) > maxHookBody {
			reply(c, http.StatusRequestEntityTooLarge, hookReply{Error: "payload too large"})
			return
		}
		status, answer := b.hookStatus(body)
		reply(c, status, answer)
	case req.RequestURI == "/health" && (req.Method == http.MethodGet || req.Method == http.MethodHead):
		reply(c, http.StatusOK, struct {
			Status  string `json:"status"`
			DB      string `json:"db"`
			Version string `json:"version"`
			GitSha  string `json:"gitSha"`
			Uptime  int64  `json:"uptime"`
		}{"ok", "up", "devbroker", "", int64(b.opts.Now().Sub(b.started) / time.Second)})
	}
}

// reply answers one HTTP request and lets the connection end: the hook comes once per reconnect.
func reply(c *conn, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(c.nc, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(raw), raw)
}

// hookDesk is what `POST /hook/set-status` remembers.
type hookDesk struct {
	mu      sync.Mutex
	buckets map[string]*bucket // by "pid:cwd"; burst 30, 30 a minute (PROTOCOL 1.7)
	pending []pendingHook
}

// pendingHook is a status for a presence that may connect within 10 s (PROTOCOL 7.14).
type pendingHook struct {
	pid    number
	cwd    string
	status string
	until  time.Time
}

const (
	hookPending    = 10 * time.Second
	maxPending     = 1000
	maxHookBuckets = 10_000
)

func (h *hookDesk) allow(key string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.buckets[key]
	if k == nil {
		if len(h.buckets) >= maxHookBuckets {
			return false
		}
		k = &bucket{}
		h.buckets[key] = k
	}
	return k.take(now, 30, 30)
}

func (h *hookDesk) hold(p pendingHook, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) >= maxPending {
		h.pending = h.pending[1:]
	}
	p.until = now.Add(hookPending)
	h.pending = append(h.pending, p)
}

// claim returns the status that waits for a presence with this pid and cwd, if any.
func (h *hookDesk) claim(pid number, cwd string, now time.Time) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, p := range h.pending {
		if p.pid == pid && p.cwd == cwd && now.Before(p.until) {
			h.pending = append(h.pending[:i:i], h.pending[i+1:]...)
			return p.status, true
		}
	}
	return "", false
}

// prune forgets what has run out.
func (h *hookDesk) prune(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := h.pending[:0]
	for _, p := range h.pending {
		if now.Before(p.until) {
			keep = append(keep, p)
		}
	}
	h.pending = keep
	for key, k := range h.buckets {
		if now.Sub(k.last) > time.Minute { // full again by then
			delete(h.buckets, key)
		}
	}
}

type hookReply struct {
	OK         bool   `json:"ok"`
	PresenceID string `json:"presence_id,omitzero"`
	Pending    bool   `json:"pending,omitzero"`
	Error      string `json:"error,omitzero"`
}

// hookStatus is `POST /hook/set-status`: it finds a live presence by exact (cwd, pid) over all meshes, else the newest
// with that cwd, sets its status and drains it. Nobody has to say who they are (PROTOCOL 7.14).
func (b *Broker) hookStatus(body []byte) (int, hookReply) {
	var f struct {
		Cwd    text   `json:"cwd"`
		Status text   `json:"status"`
		PID    number `json:"pid"`
	}
	if err := unmarshal(body, &f); err != nil {
		return http.StatusInternalServerError, hookReply{Error: "body is not JSON: " + err.Error()}
	}
	if f.Cwd.S == "" || f.Status.S == "" {
		return http.StatusOK, hookReply{Error: "cwd and status required"}
	}
	if !validStatus(f.Status.S) {
		return http.StatusOK, hookReply{Error: "status must be idle, working or dnd"}
	}
	now := b.opts.Now()
	pid := ""
	if f.PID.OK {
		pid = f.PID.String()
	}
	if !b.hooks.allow(pid+":"+f.Cwd.S, now) {
		return http.StatusTooManyRequests, hookReply{Error: "rate limited"}
	}
	best := b.findByProcess(f.PID, f.Cwd.S)
	if best == nil {
		b.hooks.hold(pendingHook{pid: f.PID, cwd: f.Cwd.S, status: f.Status.S}, now)
		return http.StatusOK, hookReply{OK: true, Pending: true}
	}
	best.mesh.turn(nil, func(t *turn) {
		if best.gone {
			return
		}
		best.setHookStatus(f.Status.S, t.now)
		t.drain(best)
	})
	return http.StatusOK, hookReply{OK: true, PresenceID: best.id}
}

func (b *Broker) findByProcess(pid number, cwd string) (best *presence) {
	exact := false
	for _, m := range b.order {
		m.mu.Lock()
		for _, p := range m.live {
			hit := pid.OK && p.pid == pid
			if p.cwd != cwd || exact && !hit {
				continue
			}
			if best == nil || hit && !exact || p.connectedAt.After(best.connectedAt) {
				best, exact = p, exact || hit
			}
		}
		m.mu.Unlock()
	}
	return best
}
