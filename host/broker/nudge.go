package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// nudgeTimeout bounds one POST.
const nudgeTimeout = 10 * time.Second

// minNudgeGap keeps nudges by wish under the broker's 30 a minute (PROTOCOL 1.7).
const minNudgeGap = 5 * time.Second

// hookBody is the body of POST /hook/set-status (PROTOCOL 7.14).
type hookBody struct {
	Cwd       string `json:"cwd"`
	PID       int32  `json:"pid"`
	Status    string `json:"status"`
	SessionID string `json:"session_id,omitzero"`
}

// SetNudgeStatus sets the status that nudges carry: the one that this presence is meant to have. "idle" until it is called.
func (c *Conn) SetNudgeStatus(status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

// Nudge makes the broker deliver what it holds for this connection, soon and at most every five seconds. Nothing else does
// while nobody writes to us: leases of claims are no timer (PROTOCOL 4.6).
func (c *Conn) Nudge() {
	select {
	case c.nudges <- struct{}{}:
	default: // one is pending
	}
}

// nudgeLoop nudges 36 s after each ack, and when wished.
func (c *Conn) nudgeLoop(ctx context.Context) {
	afterAck, wished := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	afterAck.Stop()
	wished.Stop()
	defer afterAck.Stop()
	defer wished.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.acked:
			afterAck.Reset(nudgeDelay)
			continue
		case <-c.nudges:
			if wait := time.Until(last.Add(minNudgeGap)); wait > 0 {
				wished.Reset(wait)
				continue
			}
		case <-afterAck.C:
		case <-wished.C:
		}
		if !c.Ready() {
			continue // the next ack sets the timer again
		}
		last = time.Now()
		if err := c.nudge(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the broker couldn't be asked to deliver what it holds", "error", err)
		}
	}
}

func (c *Conn) nudge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nudgeTimeout)
	defer cancel()
	c.mu.Lock()
	status := c.status
	c.mu.Unlock()
	body, err := json.Marshal(hookBody{Cwd: c.presence.Cwd, PID: c.presence.PID, Status: status, SessionID: c.presence.SessionID})
	if err != nil {
		return fmt.Errorf("nudge: %w", err)
	}
	target, err := hookURL(c.mesh.opts.URL)
	if err != nil {
		return fmt.Errorf("nudge: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("nudge: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	transport := c.httpTransport()
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("nudge: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("nudge: read answer: %w", err)
	}
	var result struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || resp.StatusCode/100 != 2 || !result.OK {
		return fmt.Errorf("nudge: broker answered %s %q", resp.Status, result.Error)
	}
	return nil
}

func (c *Conn) httpTransport() *http.Transport {
	config := &tls.Config{}
	if c.mesh.opts.TLS != nil {
		config = c.mesh.opts.TLS.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	t := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	if dial := c.mesh.opts.Dial; dial != nil {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	} else {
		t.Proxy = http.ProxyFromEnvironment
	}
	return t
}

// hookURL is the broker's address with http for ws and the trailing /ws replaced (PROTOCOL 1.1).
func hookURL(broker string) (string, error) {
	u, err := url.Parse(broker)
	if err != nil {
		return "", err
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	u.Path = strings.TrimSuffix(u.Path, "/ws") + "/hook/set-status"
	return u.String(), nil
}
