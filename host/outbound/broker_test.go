package outbound

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// fakeLink is a connection whose broker answers as a script says.
type fakeLink struct {
	mu    sync.Mutex
	ready bool
	sent  []Message
	at    []time.Time
	// script answers an attempt; nil, or a Verdict of 0, accepts it.
	script func(m Message, n int) Outcome
	// manual holds answers back until answer is called.
	manual  bool
	held    []func(Outcome)
	onWire  map[string]int // by target
	mostOn  int            // the most that were on the wire for one target
	mostAll int
	all     int
	// delivered answers Delivered.
	delivered func(id string) (bool, error)
	// slow, if set, is what Delivered does instead.
	slow func(context.Context) error
}

func newFakeLink() *fakeLink { return &fakeLink{ready: true, onWire: map[string]int{}} }

func (f *fakeLink) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

func (f *fakeLink) setReady(ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = ready
}

func (f *fakeLink) Send(m Message, done func(Outcome)) {
	f.mu.Lock()
	if !f.ready {
		f.mu.Unlock()
		done(Outcome{Verdict: NotSent})
		return
	}
	f.sent, f.at = append(f.sent, m), append(f.at, time.Now())
	n := len(f.sent)
	f.all++
	f.onWire[m.Target]++
	f.mostOn, f.mostAll = max(f.mostOn, f.onWire[m.Target]), max(f.mostAll, f.all)
	finish := func(out Outcome) {
		f.mu.Lock()
		f.all--
		f.onWire[m.Target]--
		f.mu.Unlock()
		done(out)
	}
	if f.manual {
		f.held = append(f.held, finish)
		f.mu.Unlock()
		return
	}
	script := f.script
	f.mu.Unlock()
	out := Outcome{}
	if script != nil {
		out = script(m, n)
	}
	if out.Verdict == 0 {
		out = Outcome{Verdict: Accepted, MessageID: "b" + strconv.Itoa(n)}
	}
	finish(out)
}

// answer settles the oldest attempt that is held back.
func (f *fakeLink) answer(out Outcome) {
	f.mu.Lock()
	done := f.held[0]
	f.held = f.held[1:]
	f.mu.Unlock()
	done(out)
}

// pending is how many attempts are held back.
func (f *fakeLink) pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// reset is a new connection that answers by itself.
func (f *fakeLink) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manual, f.script, f.held = false, nil, nil
}

func (f *fakeLink) setScript(s func(m Message, n int) Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = s
}

func (f *fakeLink) setManual(manual bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manual = manual
}

// messages are what was written, in order.
func (f *fakeLink) messages() []Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Message(nil), f.sent...)
}

// ids are the client_message_ids written to a target, "" for all.
func (f *fakeLink) ids(target string) []string {
	var out []string
	for _, m := range f.messages() {
		if target == "" || m.Target == target {
			out = append(out, m.ClientMessageID)
		}
	}
	return out
}

func (f *fakeLink) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.at...)
}

func (f *fakeLink) Delivered(ctx context.Context, id string) (bool, time.Time, error) {
	f.mu.Lock()
	answer, slow := f.delivered, f.slow
	f.mu.Unlock()
	switch {
	case slow != nil:
		return false, time.Time{}, slow(ctx)
	case answer == nil:
		return false, time.Time{}, nil
	}
	ok, err := answer(id)
	return ok, time.Time{}, err
}
