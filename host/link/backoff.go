package link

import (
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// Numbers of ARCHITECTURE 7 and of the close-code policy.
const (
	healthyAfter    = 60 * time.Second // with an ack and a broker ping: the series of delays is forgotten
	capacityMin     = 2 * time.Minute
	capacityMax     = 10 * time.Minute
	skewMin         = time.Minute
	skewMax         = 5 * time.Minute
	serverBusyMin   = 5 * time.Second // close codes 1012 and 1013
	twinWindow      = 5 * time.Minute
	twinMin         = 10 * time.Minute
	twinMax         = 12 * time.Minute
	takeoverPause   = time.Second // lets the broker evict the deaf presence (PROTOCOL 3.7, step 3)
	maxRetryAfter   = time.Hour
	reasonTwin      = "twin"
	reasonReplaced  = "session_replaced"
	reasonWatchdog  = "watchdog"
	reasonDeaf      = "deaf_socket"
	reasonSkew      = "timestamp_skew"
	reasonNoSession = "sessions_unsupported"
)

// backoffCaps are the upper ends of the delays; each is drawn uniformly from zero to its cap, so the jitter comes after the cap.
var backoffCaps = [...]time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second}

// terminal are the hello rejections that trying again doesn't cure (PROTOCOL 2.5, 3.5).
var terminal = map[string]bool{
	"malformed": true, "bad_signature": true, "unauthorized": true, "revoked": true, "bad_session_pubkey": true,
	"bad_parent_pubkey": true, "attestation_mismatch": true, "parent_member_id_mismatch": true,
}

// ending says how a connection, or the attempt at one, came to its end.
type ending struct {
	err        error
	rejected   string               // code of the error frame that answered the hello
	close      websocket.StatusCode // -1 without a close frame
	closeText  string               // its reason
	status     int                  // HTTP status of a refused upgrade; 0 otherwise
	retryAfter time.Duration        // of a refused upgrade; 0 without
	reason     string               // our own decision: watchdog, deaf_socket, hello_timeout …
	healthy    bool                 // was ready for 60 s and saw a broker ping
	offset     time.Duration        // broker's clock minus ours, from the upgrade's Date header
	offsetOK   bool
}

// step is what to do next.
type step struct {
	suspend bool          // no attempt before Resume, or before delay if that isn't zero
	delay   time.Duration // until the next attempt
	reason  string
	adopt   bool // take over ending.offset as the clock's correction
}

// policy turns endings into steps. It is pure but for the random source: no clock, no I/O.
type policy struct {
	random   func() float64 // [0,1)
	session  bool
	attempts int         // since the last healthy connection
	replaced []time.Time // of the last session_replaced closes; at most two
	skewed   bool        // the clock was corrected since the last healthy connection
}

func (p *policy) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.random()*float64(high-low))
}

// backoff draws the next delay of the series. attempts counts the attempt that has just failed.
func (p *policy) backoff() time.Duration {
	i := min(max(p.attempts-1, 0), len(backoffCaps)-1)
	return p.between(0, backoffCaps[i])
}

func (p *policy) next(e ending, now time.Time) step {
	if e.healthy {
		p.attempts = 1
		p.skewed = false
	}
	code := e.rejected
	if code == "" && e.close == websocket.StatusPolicyViolation {
		code = e.closeText // the error frame got lost; the close carries the same word (PROTOCOL 1.5)
	}
	switch {
	case e.close == 4001:
		return step{suspend: true, reason: "kicked"}
	case e.close == 4002 || code == "revoked":
		return step{suspend: true, reason: "banned"}
	case p.session && (code == "no_hello" || code == "unknown_message_type"):
		return step{suspend: true, reason: reasonNoSession} // PROTOCOL 3.6
	case code == "timestamp_skew" || code == "expired" || code == "ttl_too_long":
		return p.skew(e)
	case code == "capacity":
		return step{delay: p.between(capacityMin, capacityMax), reason: code}
	case terminal[code]:
		return step{suspend: true, reason: code}
	case e.close == websocket.StatusNormalClosure && e.closeText == reasonReplaced:
		return p.twin(now)
	case e.reason == reasonDeaf:
		return step{delay: takeoverPause, reason: reasonDeaf}
	}
	s := step{delay: p.backoff(), reason: e.word()}
	if e.close == websocket.StatusServiceRestart || e.close == websocket.StatusTryAgainLater {
		s.delay = max(s.delay, serverBusyMin)
	}
	if e.retryAfter > 0 {
		s.delay = e.retryAfter + p.between(0, backoffCaps[0]) // everybody was told the same moment
	}
	return s
}

// skew: the broker's clock differs by more than 60 s from what the hello said. Its Date header, if it has one, corrects ours
// for one attempt at once; after that, and without a usable header, slow attempts. Those take a correction too: once our
// own clock is set right, the old correction would keep us out for ever.
func (p *policy) skew(e ending) step {
	const unbelievable = 24 * time.Hour
	s := step{reason: reasonSkew, adopt: e.offsetOK && e.offset.Abs() <= unbelievable}
	if !s.adopt || p.skewed {
		s.delay = p.between(skewMin, skewMax)
	}
	p.skewed = p.skewed || s.adopt
	return s
}

// twin: someone else took our place. Once can be a late close of our own old socket; twice in five minutes is a second host
// with the same identity, and each of the two would throw out the other for ever.
func (p *policy) twin(now time.Time) step {
	p.replaced = append(p.replaced, now)
	if len(p.replaced) > 2 {
		p.replaced = p.replaced[1:]
	}
	if len(p.replaced) == 2 && now.Sub(p.replaced[0]) <= twinWindow {
		p.replaced = nil
		return step{suspend: true, delay: p.between(twinMin, twinMax), reason: reasonTwin}
	}
	return step{delay: p.backoff(), reason: reasonReplaced}
}

// word is the stable name of an ordinary ending, for State.Reason.
func (e ending) word() string {
	switch {
	case e.reason != "":
		return e.reason
	case e.rejected != "":
		return e.rejected
	case e.status != 0:
		return "http_" + strconv.Itoa(e.status)
	case e.closeText != "":
		return e.closeText
	case e.close > 0:
		return "close_" + strconv.Itoa(int(e.close))
	}
	return "network"
}

// retryAfter reads the header of a 429 or 503, seconds or a date, and bounds it to an hour; 0 without a usable one.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(seconds), 0), maxRetryAfter/time.Second) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
