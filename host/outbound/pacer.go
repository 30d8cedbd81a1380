package outbound

import (
	"slices"
	"sync"
	"time"
)

// Pacer spaces the sends of one member on one broker. It starts unlimited: only
// the broker's own refusal teaches it a rate (ARCHITECTURE 5), and a reconnect
// makes it forget. The member's lanes take turns. Safe for concurrent use.
type Pacer struct {
	mu       sync.Mutex
	interval time.Duration // 0: unlimited
	next     time.Time
	// line are the lanes that wait, in the order of their coming.
	line []string
}

// turnGrace is the part of an interval that the next lane in line is waited for;
// it may have nothing to send any more.
const turnGrace = 4

// Wait returns how long a lane must wait before its next send; 0 takes the turn.
// A lane that waits is to ask again then.
func (p *Pacer) Wait(lane string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interval == 0 {
		return 0
	}
	if late := now.Sub(p.next) - p.interval/turnGrace; late >= 0 && len(p.line) > 0 && p.line[0] != lane {
		p.line = p.line[1:] // it let its turn go by
	}
	at := slices.Index(p.line, lane)
	if at < 0 {
		at = len(p.line)
		p.line = append(p.line, lane)
	}
	d := p.next.Sub(now)
	switch {
	case at > 0: // those before it may not come
		return max(d+p.interval/turnGrace, p.interval/turnGrace)
	case d > 0:
		return d
	}
	p.line = p.line[1:]
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
	p.interval, p.next, p.line = 0, time.Time{}, nil
}
