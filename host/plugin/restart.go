package plugin

import "time"

// healthyFor is how long a process must have served for its predecessors'
// crashes to count no more for the delay (ARCHITECTURE 4).
const healthyFor = 60 * time.Second

// restarts decides when a plugin that ended starts again. The owner goroutine
// has one.
type restarts struct {
	Restart
	// never is set for an outbox: it keeps trying.
	never bool

	inRow   int         // ends since the last time of health
	crashes []time.Time // within Window, oldest first; at most Crashes of them
}

// ended takes note of an end at now after serving for up, and says how long to
// wait, or that the plugin is quarantined. jitter is in [0,1).
func (r *restarts) ended(now time.Time, up time.Duration, jitter float64) (wait time.Duration, quarantine bool) {
	if up >= healthyFor {
		r.inRow = 0
	}
	r.inRow++
	if r.Crashes > 0 && !r.never {
		r.crashes = append(r.crashes, now)
		for len(r.crashes) > 0 && now.Sub(r.crashes[0]) > r.Window {
			r.crashes = r.crashes[1:]
		}
		if len(r.crashes) >= r.Crashes {
			return 0, true
		}
	}
	if r.inRow == 1 {
		return 0, false
	}
	wait = r.Initial
	for i := 2; i < r.inRow && wait < r.Max; i++ {
		wait *= 2
	}
	wait = min(wait, r.Max)
	// Half fixed, half random: plugins that fell together don't rise together.
	return wait/2 + time.Duration(jitter*float64(wait/2)), false
}
