package devbroker

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatsBeyondAllNumbersDoNotEndTheBroker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.data")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{DataFile: file})
		for range 3 {
			a := w.join("a")
			a.send(obj{"type": "set_stats", "stats": obj{"messagesIn": 1.5e308, "errors": -1.5e308, "toolCalls": 2}})
			a.take()
			a.hang()
			// Past the lease, so that the next hello is a new one and hears the sums.
			time.Sleep(graceLease + time.Second)
		}
		a := connect(t, w.b)
		got := a.ask(w.hello("a"))
		wantFrames(t, "the hello after", got, "hello_ack")
		if stats, _ := got[0]["restoredStats"].(obj); stats["toolCalls"] != 6.0 {
			t.Errorf("restored: %v", got[0]["restoredStats"])
		}
	})
}
