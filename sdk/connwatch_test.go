package sdk

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/stats"
)

func TestConnWatchTellsWhenTheHostIsGone(t *testing.T) {
	begin, end := stats.ConnStats(&stats.ConnBegin{}), stats.ConnStats(&stats.ConnEnd{})
	type step struct {
		after time.Duration
		conn  stats.ConnStats
	}
	for name, c := range map[string]struct {
		steps []step
		want  time.Duration // from the start; 0: never
	}{
		"it never connects":              {nil, 30 * time.Second},
		"it connects and stays":          {[]step{{time.Second, begin}}, 0},
		"it connects and goes":           {[]step{{time.Second, begin}, {time.Second, end}}, 4 * time.Second},
		"it comes back in time":          {[]step{{0, begin}, {0, end}, {1900 * time.Millisecond, begin}}, 0},
		"one of two connections goes":    {[]step{{0, begin}, {0, begin}, {0, end}}, 0},
		"both connections go":            {[]step{{0, begin}, {0, begin}, {time.Second, end}, {time.Second, end}}, 4 * time.Second},
		"it comes back, then goes again": {[]step{{0, begin}, {0, end}, {time.Second, begin}, {time.Second, end}}, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				gone := make(chan time.Duration, 1)
				w := newConnWatch(30*time.Second, 2*time.Second, func() { gone <- time.Since(start) })
				for _, s := range c.steps {
					time.Sleep(s.after)
					w.HandleConn(t.Context(), s.conn)
				}
				time.Sleep(time.Hour)
				w.stop()
				select {
				case at := <-gone:
					if at != c.want {
						t.Errorf("told after %v, want %v", at, c.want)
					}
				default:
					if c.want != 0 {
						t.Errorf("never told, want %v", c.want)
					}
				}
			})
		})
	}
}
