package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/meshhost/meshhost/host/wire"
)

// nudgeTimeout bounds one POST.
const nudgeTimeout = 10 * time.Second

// minNudgeGap keeps nudges by wish under the broker's 30 a minute (PROTOCOL 1.7).
const minNudgeGap = 5 * time.Second

// A nudge that failed is repeated after nudgeDelay, doubling to maxNudgeRetry, with jitter: until one gets through, what was
// claimed during the last loss of the connection stays with the broker.
const maxNudgeRetry = 10 * time.Minute

// hookBody is the body of POST /hook/set-status (PROTOCOL 7.14).
type hookBody struct {
	Cwd       string `json:"cwd"`
	PID       int32  `json:"pid"`
	Status    string `json:"status"`
	SessionID string `json:"session_id,omitzero"`
}

// SetNudgeStatus tells nudges which status this presence is meant to have; "idle" until it is called. Call it before the
// set_status frame is written. A status that ends dnd brings a nudge five seconds later, since set_status itself doesn't deliver
// what dnd held (PROTOCOL 4.6).
func (c *Conn) SetNudgeStatus(status string) {
	c.mu.Lock()
	ended := c.status == wire.StatusDND && status != wire.StatusDND
	c.status = status
	c.mu.Unlock()
	if ended {
		select {
		case c.undone <- struct{}{}:
		default: // one is pending
		}
	}
}

// Nudge makes the broker deliver what it holds for this connection, soon and at most every five seconds. Nothing else does
// while nobody writes to us: leases of claims are no timer (PROTOCOL 4.6).
func (c *Conn) Nudge() {
	select {
	case c.nudges <- struct{}{}:
	default: // one is pending
	}
}

// nudgeAfterClaims asks for a nudge when the broker's claims of this moment have ended: after a hello_ack, for what came during
// the loss, and after pushes that were dropped.
func (c *Conn) nudgeAfterClaims() {
	select {
	case c.claims <- struct{}{}:
	default: // one is pending
	}
}

// nudgeLoop nudges 36 s after each ack and after drops, when wished, and after dnd; a nudge that fails is repeated.
func (c *Conn) nudgeLoop(ctx context.Context) {
	afterClaims, wished := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	afterClaims.Stop()
	wished.Stop()
	defer afterClaims.Stop()
	defer wished.Stop()
	var last time.Time
	var due time.Time       // of afterClaims
	var retry time.Duration // before the next try; 0 while they succeed
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.claims:
			retry = 0
			due = time.Now().Add(nudgeDelay)
			afterClaims.Reset(nudgeDelay)
			continue
		case <-c.undone:
			wished.Reset(minNudgeGap) // the set_status frame needs time to get there
			continue
		case <-c.nudges:
			if wait := time.Until(last.Add(minNudgeGap)); wait > 0 {
				wished.Reset(wait)
				continue
			}
		case <-afterClaims.C:
		case <-wished.C:
		}
		if !c.Ready() {
			continue // the next ack sets the timer again
		}
		last = time.Now()
		err := c.nudge(ctx)
		switch {
		case err == nil:
			retry = 0
		case ctx.Err() == nil:
			retry = min(max(2*retry, nudgeDelay), maxNudgeRetry)
			// Never sooner than the one after the ack: before that, claims of the last loss still hold.
			wait := max(retry/2+rand.N(retry/2), time.Until(due))
			afterClaims.Reset(wait)
			c.log.Warn("the broker couldn't be asked to deliver what it holds; tried again", "error", err, "retry_in", wait.String())
		}
	}
}

func (c *Conn) nudge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nudgeTimeout)
	defer cancel()
	c.mu.Lock()
	status := c.status
	c.mu.Unlock()
	if status != wire.StatusDND {
		// "working" by this way would hold back, for 30 s, all but "now": also what the nudge is for. By set_status it holds
		// nothing, and the broker makes "idle" of it at the next drain (PROTOCOL 4.6).
		status = wire.StatusIdle
	}
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
