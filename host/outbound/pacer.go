package outbound

import (
	"sync"
	"time"
)

// Pacer spaces the sends of one member on one broker. It starts unlimited: only
// the broker's own refusal teaches it a rate (ARCHITECTURE 5), and a reconnect
// makes it forget. Safe for concurrent use by the member's lanes.
type Pacer struct {
	mu       sync.Mutex
	interval time.Duration // 0: unlimited
	next     time.Time
}

// Wait returns how long the caller must wait before the next send; 0 takes the
// turn.
func (p *Pacer) Wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interval == 0 {
		return 0
	}
	if d := p.next.Sub(now); d > 0 {
		return d
	}
	p.next = now.Add(p.interval)
	return 0
}

// Pause is Wait for who only wants to know: it takes no turn.
func (p *Pacer) Pause(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interval == 0 {
		return 0
	}
	return max(p.next.Sub(now), 0)
}

// Limited takes a rate-limit answer: the next send waits one interval of the
// rate that it named, 60 a minute if it named none (PROTOCOL 1.7).
func (p *Pacer) Limited(now time.Time, perMinute float64) {
	if perMinute <= 0 {
		perMinute = 60
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interval = time.Duration(float64(time.Minute) / perMinute)
	if t := now.Add(p.interval); t.After(p.next) {
		p.next = t
	}
}

// Forget makes the pacer unlimited again.
func (p *Pacer) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interval, p.next = 0, time.Time{}
}
