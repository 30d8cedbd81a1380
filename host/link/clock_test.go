package link

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func TestClockSkewIsLearnedFromTheUpgradeAndTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const skew = 7 * time.Minute
		b := &fakeBroker{
			http: func(_ int, w http.ResponseWriter) bool {
				w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
				return false
			},
			serve: func(n int, conn *websocket.Conn, w *peer) {
				said, _ := w.read()
				at, err := time.Parse(time.RFC3339, said[len(`{"type":"hello","at":"`):len(said)-2])
				if err != nil || at.Sub(time.Now().Add(skew)).Abs() > time.Minute {
					w.write(`{"type":"error","code":"timestamp_skew","message":"x"}`)
					_ = conn.Close(1008, "timestamp_skew")
					return
				}
				w.write(ackFrame)
				w.drain()
			},
		}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, func(o *Options) {
			o.Hello = func(now time.Time) ([]byte, error) {
				return []byte(`{"type":"hello","at":"` + now.Format(time.RFC3339) + `"}`), nil
			}
		})
		defer running(l)()
		time.Sleep(time.Second)
		synctest.Wait()
		if s := l.State(); s.Phase != Ready || b.count() != 2 {
			t.Errorf("phase %s after %d dials, want ready at the second", s.Phase, b.count())
		}
	})
}

func TestClockSkewWithoutAUsableDateIsRetriedSlowly(t *testing.T) {
	p := policy{random: func() float64 { return 0 }}
	for _, e := range []ending{{rejected: "timestamp_skew"}, {rejected: "timestamp_skew", offsetOK: true, offset: 25 * time.Hour}} {
		if s := p.next(e, time.Time{}); s.suspend || s.adopt || s.delay < time.Minute {
			t.Errorf("step %+v, want a slow retry", s)
		}
	}
}

// A machine without a battery for its clock: it connects by the broker's time, and then a time server sets its own clock right.
func TestACorrectionThatHasBecomeWrongIsCorrectedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 2 * time.Hour
		var behind atomic.Int64 // of this machine's clock
		behind.Store(int64(slow))
		b := &fakeBroker{
			http: func(_ int, w http.ResponseWriter) bool {
				w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				return false
			},
			serve: func(n int, conn *websocket.Conn, w *peer) {
				said, _ := w.read()
				at, err := time.Parse(time.RFC3339, said[len(`{"type":"hello","at":"`):len(said)-2])
				if err != nil || time.Until(at).Abs() > time.Minute {
					w.write(`{"type":"error","code":"timestamp_skew","message":"x"}`)
					_ = conn.Close(1008, "timestamp_skew")
					return
				}
				w.write(ackFrame)
				if n == 2 { // lost before it was healthy
					behind.Store(0)
					_ = conn.CloseNow()
					return
				}
				defer pinging(w, always)()
				w.drain()
			},
		}
		defer startBroker(t, b)()
		l := testLink(t, b, &recorder{}, func(o *Options) {
			o.Hello = func(now time.Time) ([]byte, error) {
				return []byte(`{"type":"hello","at":"` + now.Format(time.RFC3339) + `"}`), nil
			}
		})
		l.wall = func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }
		defer running(l)()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := l.State(); s.Phase != Ready || b.count() != 4 {
			t.Errorf("phase %s (%s) after %d dials, want ready at the fourth", s.Phase, s.LastError, b.count())
		}
	})
}
