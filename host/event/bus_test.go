package event

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEventsArriveInOrderWithTheirData(t *testing.T) {
	b := New()
	defer b.Close()
	s := b.Subscribe(10)
	b.Publish("a", "team", map[string]int{"n": 1})
	b.Publish("b", "", nil)
	b.Publish("c", "", jsontext.Value(`{"raw":true}`))
	b.Publish("d", "", make(chan int)) // not JSON: the event still comes
	want := []string{`{"n":1}`, `{}`, `{"raw":true}`}
	for i, data := range want {
		ev := <-s.C
		if ev.Seq != uint64(i+1) || string(ev.Data) != data {
			t.Errorf("event %d: got seq %d %s, want %s", i, ev.Seq, ev.Data, data)
		}
	}
	if ev := <-s.C; ev.Kind != "d" || !strings.Contains(string(ev.Data), "error") {
		t.Errorf("got %s %s, want an event that says its data is lost", ev.Kind, ev.Data)
	}
}

// Promise 6: one slow SSE reader never stalls another part, and promise 7: it learns that it missed something.
func TestASlowReaderLosesEventsAndFindsAMarkerInTheirPlace(t *testing.T) {
	b := New()
	defer b.Close()
	slow, quick := b.Subscribe(2), b.Subscribe(100)
	for range 6 {
		b.Publish("k", "", nil)
	}
	if len(quick.C) != 6 {
		t.Fatalf("the quick reader has %d events, want 6", len(quick.C))
	}
	kinds := func() (got string) {
		for len(slow.C) > 0 {
			ev := <-slow.C
			got += ev.Kind + string(rune('0'+ev.Seq)) + " "
			if ev.Kind == KindDropped && ev.Seq == 3 && string(ev.Data) != `{"after":2}` {
				t.Errorf("marker data %s", ev.Data)
			}
		}
		return got
	}
	if got := kinds(); got != "k1 k2 dropped3 " {
		t.Errorf("got %q: the marker must be there even if nothing is published any more", got)
	}
	for range 3 {
		b.Publish("k", "", nil)
	}
	if got := kinds(); got != "k7 k8 dropped9 " {
		t.Errorf("a second gap: got %q", got)
	}
}

func TestCloseEndsReadersAndLaterPublishesDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		s, gone := b.Subscribe(1), b.Subscribe(1)
		ended := make(chan struct{})
		go func() {
			for range s.C {
			}
			close(ended)
		}()
		gone.Close()
		gone.Close()
		b.Close()
		<-ended
		b.Publish("k", "", nil)
		if _, open := <-b.Subscribe(1).C; open {
			t.Error("a subscription to a closed bus must be closed")
		}
		s.Close()
	})
}
