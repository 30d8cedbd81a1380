package devbroker

import (
	"fmt"
	"time"
)

// bucket is a token bucket; the zero value is full at its first use.
type bucket struct {
	tokens float64
	last   time.Time
}

// take spends a token if there is one.
func (k *bucket) take(now time.Time, burst, perMinute int) bool {
	if k.last.IsZero() {
		k.tokens = float64(burst)
	} else if passed := now.Sub(k.last); passed > 0 {
		k.tokens = min(float64(burst), k.tokens+passed.Minutes()*float64(perMinute))
	}
	k.last = now
	if k.tokens < 1 {
		return false
	}
	k.tokens--
	return true
}

// rateText is the failing ack's error (PROTOCOL 4.4); the dash is U+2014.
func rateText(burst, perMinute int) string {
	return fmt.Sprintf("rate_limit: max %d msg/min (burst %d) — slow down", perMinute, burst)
}
