package inbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// bubble runs a test in virtual time: hours of backing off pass at once. Channels must be made inside, or the clock stands.
func bubble(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { f(t, dir) })
}

func TestARetryDelaysItsSenderAlone(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		failing := true
		inbox := handler(func(p *sdk.Push) sdk.Outcome {
			if string(p.Body) == "a1" && failing {
				failing = false
				return sdk.Outcome{Decision: sdk.Retry, After: time.Minute}
			}
			return sdk.Outcome{Decision: sdk.Ack}
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: inbox}}})
		other := generate(t)
		h.Accept([]Delivery{h.direct(t, "a1")})
		first := <-inbox.got
		begun := time.Now()
		h.Accept([]Delivery{h.direct(t, "a2"), h.directTo(t, other, h.keys.member, "b1"), h.direct(t, "a3")})
		if got := inbox.bodies(t, 1); got[0] != "b1" || time.Since(begun) > time.Second {
			t.Errorf("%v after %s: another sender must not wait", got, time.Since(begun))
		}
		again := <-inbox.got
		if waited := time.Since(begun); waited != time.Minute || again.Attempt != 2 || again.ID != first.ID || !slices.Equal(again.DedupKeys, first.DedupKeys) {
			t.Errorf("came again after %s as attempt %d", waited, again.Attempt)
		}
		if got := inbox.bodies(t, 2); got[0] != "a2" || got[1] != "a3" {
			t.Errorf("behind the retried one: %v", got)
		}
		h.idle(t)
	})
}

func TestRetriesBackOffAndEndAsADeadLetter(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		inbox := handler(func(p *sdk.Push) sdk.Outcome {
			if string(p.Body) == "poison" {
				return sdk.Outcome{Decision: sdk.Retry, Reason: "can't"}
			}
			return sdk.Outcome{Decision: sdk.Ack}
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: inbox}}})
		h.Accept([]Delivery{h.direct(t, "poison"), h.direct(t, "next")})
		last := time.Now()
		var gaps []time.Duration
		for attempt := 1; attempt <= 20; {
			p := <-inbox.got
			if string(p.Body) != "poison" {
				continue // in the same batch as the first attempt
			}
			if p.Attempt != attempt {
				t.Fatalf("attempt %d, want %d", p.Attempt, attempt)
			}
			gaps = append(gaps, time.Since(last))
			last = time.Now()
			attempt++
		}
		for i, gap := range gaps[1:] {
			if top := min(time.Second<<i, 5*time.Minute); gap < top/2 || gap > top {
				t.Errorf("wait %d was %s, want between %s and %s", i+1, gap, top/2, top)
			}
		}
		time.Sleep(time.Hour)
		if len(inbox.got) != 0 || h.events.count("dead_letter") != 1 || h.Stats().Dead != 1 {
			t.Errorf("after 20 attempts: %d more, events %v", len(inbox.got), h.events.got)
		}
		letters, err := h.store.DeadLetters(t.Context(), 10)
		if err != nil || len(letters) != 1 || letters[0].Attempts != 20 || letters[0].Reason != "can't" || letters[0].Handler != "inbox" {
			t.Errorf("dead letters %+v %v", letters, err)
		}
	})
}

func TestAHandlerThatIsDownBurnsNoAttemptAndWakes(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		up := false
		calls := 0
		got := make(chan sdk.Push, 10)
		h1 := flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
			calls++
			if !up {
				return nil, fmt.Errorf("push(inbox): %w", sdk.ErrUnavailable)
			}
			out := make([]sdk.Outcome, len(pushes))
			for i := range out {
				out[i].Decision = sdk.Ack
				got <- pushes[i]
			}
			return out, nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}})
		h.Accept([]Delivery{h.direct(t, "a"), h.direct(t, "b")})
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if most := int(24*time.Hour/(maxDown/2)) + 10; calls < 100 || calls > most {
			t.Errorf("%d calls in a day of being down, want at most %d", calls, most)
		}
		before := calls
		for range 100 { // new work is no reason to ask more often
			h.Accept([]Delivery{h.direct(t, "x")})
		}
		synctest.Wait()
		if calls > before+2 {
			t.Errorf("%d more calls because of new work", calls-before)
		}
		up = true
		begun := time.Now()
		h.Wake("inbox")
		h.Wake("nobody")
		a, b := <-got, <-got
		if string(a.Body)+string(b.Body) != "ab" || a.Attempt != 1 || time.Since(begun) != 0 {
			t.Errorf("got %q %q, attempt %d, %s after Wake", a.Body, b.Body, a.Attempt, time.Since(begun))
		}
		for range 100 {
			<-got
		}
		h.idle(t)
	})
}

// A push that makes the handler fail as a whole is found, and costs its neighbours one attempt.
func TestAPoisonousPushIsIsolated(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		attempts := make(map[string]int)
		done := make(map[string]bool)
		h1 := flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
			out := make([]sdk.Outcome, len(pushes))
			for i := range pushes {
				attempts[string(pushes[i].Body)] = pushes[i].Attempt
				if string(pushes[i].Body) == "poison" {
					return nil, errors.New("panic in the plugin")
				}
				out[i].Decision = sdk.Ack
			}
			for i := range pushes {
				done[string(pushes[i].Body)] = true
			}
			return out, nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}, options: Options{MaxAttempts: 5}})
		var batch []Delivery
		for i := range 5 {
			batch = append(batch, h.directTo(t, generate(t), h.keys.member, fmt.Sprint(i)))
		}
		h.Accept(append(batch, h.direct(t, "poison"), h.direct(t, "behind it")))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(done) != 6 || h.Stats().Dead != 1 || attempts["poison"] != 5 {
			t.Errorf("done %v, attempts %v, %+v", done, attempts, h.Stats())
		}
		for body, n := range attempts {
			if body != "poison" && n > 2 {
				t.Errorf("%q took %d attempts because of its neighbour", body, n)
			}
		}
	})
}

// Promise 5: a handler that fails with everything fails thousands of times a minute; the log tells it now and then.
func TestAHandlerThatAlwaysFailsDoesNotFloodTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		var out bytes.Buffer
		calls := 0
		h1 := flakyFunc(func([]sdk.Push) ([]sdk.Outcome, error) { calls++; return nil, errors.New("no") })
		log := hclog.New(&hclog.LoggerOptions{Output: &out})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}, options: Options{Logger: log}})
		for range 200 {
			h.Accept([]Delivery{h.directTo(t, generate(t), h.keys.member, "x")})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(out.String(), "failed"); calls < 500 || n < 2 || n > 7 || !strings.Contains(out.String(), "more=") {
			t.Errorf("%d calls, %d lines:\n%s", calls, n, out.String())
		}
	})
}

// What mesh.hcl gives the calls of a plugin is what they have, more than the default too.
func TestAHandlerHasTheTimeThatItsBlockGivesIt(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 2 * time.Minute: 2 * time.Minute, time.Second: time.Second} {
		bubble(t, func(t *testing.T, dir string) {
			took := make(chan time.Duration, 100)
			begun := time.Now()
			slow := hangs(func(ctx context.Context) { <-ctx.Done(); took <- time.Since(begun) })
			h := start(t, setup{dir: dir, handlers: []Handler{{Name: "slow", Push: slow, CallTimeout: given}}})
			h.Accept([]Delivery{h.direct(t, "x")})
			if got := <-took; got != want {
				t.Errorf("with %s: cut off after %s, want %s", given, got, want)
			}
		})
	}
}

// The same for one that kills its plugin: whoever was in the batch with it loses no attempt.
func TestAPushThatKillsItsPluginIsIsolated(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		attempts := make(map[string]int)
		deaths := 0
		h1 := flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
			out := make([]sdk.Outcome, len(pushes))
			for i := range pushes {
				attempts[string(pushes[i].Body)] = pushes[i].Attempt
				if string(pushes[i].Body) == "poison" {
					deaths++
					return nil, sdk.Errorf(sdk.CodeUnavailable, plugin.ReasonUnknown, "the process ended during the call")
				}
				out[i].Decision = sdk.Ack
			}
			return out, nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}, options: Options{MaxAttempts: 3}})
		h.Accept([]Delivery{h.directTo(t, generate(t), h.keys.member, "neighbour"), h.direct(t, "poison"), h.direct(t, "behind it")})
		time.Sleep(time.Hour)
		synctest.Wait()
		s := h.Stats()
		if s.Dead != 1 || s.Waiting["inbox"] != 0 || deaths != 4 || attempts["neighbour"] != 1 || attempts["behind it"] != 1 {
			t.Errorf("%d deaths, attempts %v, %+v", deaths, attempts, s)
		}
	})
}

// Nor does it matter that the plugin takes its time to come back: being refused meanwhile clears nobody of the suspicion, or
// the killer would ride in a batch again, at no cost, for ever.
func TestAPushThatKillsItsPluginIsIsolatedThoughThePluginIsSlowToComeBack(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		const senders = 20
		deaths, done := 0, 0
		var back time.Time
		h1 := flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
			if time.Now().Before(back) {
				return nil, sdk.Errorf(sdk.CodeUnavailable, plugin.ReasonDown, "it is starting")
			}
			out := make([]sdk.Outcome, len(pushes))
			for i := range pushes {
				if string(pushes[i].Body) == "poison" {
					deaths++
					back = time.Now().Add(30 * time.Second)
					return nil, sdk.Errorf(sdk.CodeUnavailable, plugin.ReasonUnknown, "the process ended during the call")
				}
				out[i].Decision = sdk.Ack
			}
			done += len(pushes)
			return out, nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}, options: Options{MaxAttempts: 3}})
		batch := []Delivery{h.direct(t, "poison")}
		for range senders {
			batch = append(batch, h.directTo(t, generate(t), h.keys.member, "innocent"))
		}
		h.Accept(batch)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if s := h.Stats(); s.Dead != 1 || s.Waiting["inbox"] != 0 || deaths != 4 || done != senders {
			t.Errorf("%d deaths, %d of %d others handled, %+v", deaths, done, senders, s)
		}
	})
}

func TestAWrongAnswerIsARetry(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		answers := []func(n int) []sdk.Outcome{
			func(n int) []sdk.Outcome { return make([]sdk.Outcome, n+1) },
			func(n int) []sdk.Outcome { return nil },
			func(n int) []sdk.Outcome { return []sdk.Outcome{{Decision: "maybe"}} },
			func(n int) []sdk.Outcome { return []sdk.Outcome{{Decision: sdk.Drop, Reason: "enough"}} },
		}
		calls := 0
		h1 := flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
			calls++
			return answers[calls-1](len(pushes)), nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}})
		h.Accept([]Delivery{h.direct(t, "a")})
		time.Sleep(time.Minute)
		h.idle(t)
		if calls != 4 {
			t.Errorf("%d calls, want 4", calls)
		}
	})
}

func TestAHandlerThatHangsIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		n := 0
		h1 := handlerCtx(func(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
			if n++; n == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []sdk.Outcome{{Decision: sdk.Ack}}, nil
		})
		h := start(t, setup{dir: dir, handlers: []Handler{{Name: "inbox", Push: h1}}})
		h.Accept([]Delivery{h.direct(t, "a")})
		begun := time.Now()
		h.idle(t)
		if waited := time.Since(begun); waited < 30*time.Second || waited > 35*time.Second {
			t.Errorf("done after %s, want the call's 30 s and a second", waited)
		}
	})
}

type handlerCtx func(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error)

func (f handlerCtx) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return f(ctx, pushes)
}

func TestRetriesKeepTheirTimeOverARestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		keys := &keyring{member: generate(t)}
		later := handler(func(*sdk.Push) sdk.Outcome { return sdk.Outcome{Decision: sdk.Retry, After: time.Hour} })
		h := start(t, setup{dir: dir, keys: keys, handlers: []Handler{{Name: "inbox", Push: later}}})
		h.Accept([]Delivery{h.direct(t, "a")})
		<-later.got
		time.Sleep(time.Minute)
		crashed := h.crash(t)
		inbox := acker()
		start(t, setup{dir: crashed, keys: keys, handlers: []Handler{{Name: "inbox", Push: inbox}}})
		begun := time.Now()
		if p := <-inbox.got; p.Attempt != 2 || time.Since(begun).Round(time.Second) != 59*time.Minute {
			t.Errorf("attempt %d after %s, want 2 after 59m", p.Attempt, time.Since(begun))
		}
	})
}

func TestRefusedPushesAreAskedForOnceThereIsRoomAndTheirClaimHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		block := make(chan struct{})
		stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })
		nudged := make(chan time.Time, 10)
		s := setup{dir: dir, handlers: []Handler{{Name: "stuck", Push: stuck}}}
		s.store.JournalRows = 10
		s.options.NeedNudge = func(string, identity.PublicKey) { nudged <- time.Now() }
		h := start(t, s)
		for range 12 {
			h.Accept([]Delivery{h.direct(t, "x")})
		}
		time.Sleep(time.Minute)
		if len(nudged) != 0 {
			t.Error("nudged while the journal is full")
		}
		h.Accept([]Delivery{h.direct(t, "x")})
		synctest.Wait()
		refused := time.Now()
		close(block)
		if waited := (<-nudged).Sub(refused); waited < claimTime || waited > claimTime+2*time.Second {
			t.Errorf("nudged %s after the last refusal", waited)
		}
		time.Sleep(time.Hour)
		if len(nudged) != 0 {
			t.Error("nudged twice for one refusal")
		}
	})
}

func TestLanesKeepOrderWithinAKeyAndShareABatch(t *testing.T) {
	now := time.Now()
	l := newLanes()
	for i := range 200 {
		l.add(item{seq: int64(i), key: 1, size: 100})
	}
	for i := 200; i < 210; i++ {
		l.add(item{seq: int64(i), key: int64(i), size: 100})
	}
	done := map[int64]bool{}
	var order []int64
	for l.count > 0 {
		taken, items, _ := l.take(now, 64, 1<<20)
		if len(items) == 0 {
			t.Fatalf("%d items are left and none is due", l.count)
		}
		if len(done) == 0 && !slices.ContainsFunc(items, func(it item) bool { return it.key == 209 }) {
			t.Error("a long lane keeps others out of the first batch")
		}
		l.settle(taken, func(i int) (item, bool) {
			it := items[i]
			if it.seq%7 == 0 && it.attempts == 0 {
				it.attempts, it.due = 1, now.Add(time.Second)
				return it, true
			}
			if done[it.seq] {
				t.Errorf("%d twice", it.seq)
			}
			done[it.seq] = true
			if it.key == 1 {
				order = append(order, it.seq)
			}
			return it, false
		})
		now = now.Add(2 * time.Second)
	}
	if len(done) != 210 || len(l.byKey) != 0 {
		t.Errorf("%d done, %d lanes left", len(done), len(l.byKey))
	}
	if taken, items, _ := l.take(now, 64, 1); taken != nil || items != nil {
		t.Error("work out of nothing")
	}
	l.add(item{seq: 1, key: 1, size: 500})
	l.add(item{seq: 2, key: 2, size: 500})
	if _, items, _ := l.take(now, 64, 300); len(items) != 1 {
		t.Errorf("%d items, want one even if it is too big, and only one", len(items))
	}
}
