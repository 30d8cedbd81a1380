package inbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// slowJournal holds each transaction until it is let go.
type slowJournal struct {
	*store.Store
	entered chan struct{}
	let     chan error
}

func (s *slowJournal) Journal(ctx context.Context, rows []store.JournalRow, marks []store.Mark) ([]store.JournalResult, store.JournalSize, error) {
	s.entered <- struct{}{}
	if err := <-s.let; err != nil {
		return nil, store.JournalSize{}, err
	}
	return s.Store.Journal(ctx, rows, marks)
}

// Promise 2.
func TestNothingIsAckedOrHandedOutBeforeTheJournalHasIt(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowJournal{Store: st, entered: make(chan struct{}, 100), let: make(chan error, 100)}
	inbox := acker()
	keys := &keyring{member: generate(t)}
	acked := newAcks()
	r, err := New(t.Context(), Options{Journal: slow, Keys: keys, Acker: acked, Handlers: []Handler{{Name: "inbox", Push: inbox}}})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{keys: keys, sender: generate(t)}
	r.Accept([]Delivery{h.direct(t, "a")})
	<-slow.entered
	for i := range 40 { // Accept returns, whatever the disk does
		r.Accept([]Delivery{h.direct(t, fmt.Sprint(i))})
	}
	if acked.count() != 0 || len(inbox.got) != 0 {
		t.Errorf("%d acks and %d pushes handed out before the transaction", acked.count(), len(inbox.got))
	}
	slow.let <- errors.New("disk full")
	<-slow.entered // tried again after a pause
	if acked.count() != 0 {
		t.Error("acked after a failed transaction")
	}
	slow.let <- nil
	<-acked.c
	<-slow.entered // the other 40 in one transaction
	slow.let <- nil
	for range 40 {
		<-acked.c
	}
	inbox.bodies(t, 41)
	for range 100 { // marks
		slow.let <- nil
	}
	if err := errors.Join(r.Close(t.Context()), st.Close()); err != nil {
		t.Fatal(err)
	}
}

// Promises 2 and 3 over a crash.
func TestAcceptedWorkComesAgainAfterACrash(t *testing.T) {
	block := make(chan struct{})
	stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })
	quick := acker()
	session := generate(t)
	keys := &keyring{member: generate(t), sessions: []*identity.Key{session}}
	h := start(t, setup{keys: keys, handlers: []Handler{{Name: "stuck", Push: stuck}, {Name: "quick", Push: quick}}})
	toSession := h.directTo(t, h.sender, session, "for the session")
	toSession.Identity = session.Public()
	batch := []Delivery{h.direct(t, "one"), h.multicast(t, "two"), h.system("peer_joined", `{"name":"x"}`), toSession, h.direct(t, "three")}
	h.Accept(batch)
	quick.bodies(t, len(batch))
	for range 3 {
		<-h.acks.c
	}
	// quick's marks ride with the next transaction.
	h.Accept([]Delivery{h.direct(t, "four")})
	<-h.acks.c
	quick.bodies(t, 1)
	dir := h.crash(t)
	defer close(block)

	stuck2, quick2 := acker(), acker()
	keys2 := &keyring{member: keys.member} // the session is gone with its process
	again := start(t, setup{dir: dir, keys: keys2, handlers: []Handler{{Name: "stuck", Push: stuck2}, {Name: "quick", Push: quick2}}})
	want := []string{"one", "two", "", "for the session", "three", "four"}
	var got []string
	for range want {
		p := <-stuck2.got
		got = append(got, string(p.Body))
		if p.Undecryptable || (p.Body != nil && string(p.Body) == "for the session" && p.Recipient != session.Public().String()) {
			t.Errorf("restored as %+v", p)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("after the crash stuck got %q, want %q", got, want)
	}
	again.idle(t)
	if n := len(quick2.got); n > 1 {
		t.Errorf("quick got %d pushes again, want at most the last one", n)
	}
	again.Accept(batch[:2])
	again.idle(t)
	if s := again.Stats(); s.Duplicates != 2 {
		t.Errorf("redelivered after the crash: %+v, want 2 duplicates", s)
	}
}

func TestASlowHandlerStallsNobodyElse(t *testing.T) {
	block := make(chan struct{})
	stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })
	quick := acker()
	h := start(t, setup{handlers: []Handler{{Name: "stuck", Push: stuck}, {Name: "quick", Push: quick}}})
	for i := range 500 {
		h.Accept([]Delivery{h.direct(t, fmt.Sprint(i))})
	}
	got := quick.bodies(t, 500)
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			t.Fatalf("push %d is %q: out of order", i, got[i])
		}
	}
	close(block)
	stuck.bodies(t, 500)
	h.idle(t)
}

func TestAHandlerGetsWhatItWants(t *testing.T) {
	direct, joins := acker(), acker()
	h := start(t, setup{handlers: []Handler{
		{Name: "direct", Push: direct, Wants: []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushDirect}}}},
		{Name: "joins", Push: joins, Wants: []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushSystem}, Events: []string{"peer_joined"}}}},
	}})
	h.Accept([]Delivery{h.direct(t, "a"), h.system("peer_joined", `{}`), h.system("tick", `{}`), h.multicast(t, "b")})
	h.idle(t)
	if len(direct.got) != 1 || len(joins.got) != 1 {
		t.Errorf("direct got %d, joins got %d, want 1 each", len(direct.got), len(joins.got))
	}
	if got := h.events.count("message") + 10*h.events.count("peer_join") + 100*h.events.count("system"); got != 112 {
		t.Errorf("events %v", h.events.got)
	}
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	if !slices.Equal(h.names.announced, []string{"peer_joined", "tick"}) {
		t.Errorf("announced %v", h.names.announced)
	}
}

// A handler whose plugin has not said yet what it wants has everything kept for it; once it has said so, it gets that alone.
func TestAHandlerGetsWhatItWantsOfWhatWasKeptBeforeItSaidSo(t *testing.T) {
	silent := flakyFunc(func([]sdk.Push) ([]sdk.Outcome, error) { return nil, sdk.ErrUnavailable })
	h := start(t, setup{handlers: []Handler{{Name: "inbox", Push: silent}}})
	h.Accept([]Delivery{h.system("tick", `{}`), h.direct(t, "a"), h.system("tick", `{}`), h.direct(t, "b")})
	<-h.acks.c
	<-h.acks.c
	dir := h.crash(t)
	wants := []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushDirect}}}
	inbox := acker()
	if err := h.SetHandlers(t.Context(), []Handler{{Name: "inbox", Push: inbox, Wants: wants}}); err != nil {
		t.Fatal(err)
	}
	h.idle(t)
	if got := inbox.bodies(t, len(inbox.got)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	inbox = acker()
	again := start(t, setup{dir: dir, keys: h.keys, handlers: []Handler{{Name: "inbox", Push: inbox, Wants: wants}}})
	again.idle(t)
	if got := inbox.bodies(t, len(inbox.got)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after a restart: got %q", got)
	}
}

func TestWorkOfAHandlerThatIsGoneIsDroppedWithAnEvent(t *testing.T) {
	block := make(chan struct{})
	stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Retry, After: time.Hour} })
	quick, other := acker(), acker()
	h := start(t, setup{handlers: []Handler{{Name: "stuck", Push: stuck}, {Name: "quick", Push: quick}}})
	h.Accept([]Delivery{h.direct(t, "a"), h.direct(t, "b")})
	quick.bodies(t, 2)
	close(block)
	stuck.bodies(t, 2)
	if err := h.SetHandlers(t.Context(), []Handler{{Name: "quick", Push: other}, {Name: "new", Push: acker()}}); err != nil {
		t.Fatal(err)
	}
	if h.events.count("handler_work_dropped") != 1 {
		t.Errorf("events %v", h.events.got)
	}
	h.Accept([]Delivery{h.direct(t, "c")})
	if got := other.bodies(t, 1); got[0] != "c" {
		t.Errorf("the replaced handler got %q", got)
	}
	h.idle(t)
	if err := h.SetHandlers(t.Context(), []Handler{{Name: "x", Push: other}, {Name: "x", Push: other}}); err == nil {
		t.Error("one name twice was taken")
	}
}

func TestAFullJournalAsksAgainLaterAndNeverBlocks(t *testing.T) {
	block := make(chan struct{})
	stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })
	h := start(t, setup{store: store.Options{JournalRows: 20}, handlers: []Handler{{Name: "stuck", Push: stuck}}})
	var batch []Delivery
	for i := range 25 {
		batch = append(batch, h.direct(t, fmt.Sprint(i)))
	}
	batch = append(batch, h.multicast(t, "lost"))
	h.Accept(batch)
	for range 20 {
		<-h.acks.c
	}
	close(block)
	stuck.bodies(t, 20)
	h.idle(t)
	s := h.Stats()
	if s.Refused != 5 || s.Dropped != 1 || s.Stored != 20 || h.acks.count() != 20 || h.events.count("journal_full") != 1 {
		t.Errorf("%+v, %d acks, events %v", s, h.acks.count(), h.events.got)
	}
	h.Accept(batch[20:25]) // the broker's next drain
	if got := stuck.bodies(t, 5); got[0] != "20" || got[4] != "24" {
		t.Errorf("with room again: %v", got)
	}
}

// Promise 5: at its bound a journal has room for one push and none for the next, many times a second. The log says it once.
func TestAJournalAtItsBoundSaysSoOnce(t *testing.T) {
	block := make(chan struct{})
	stuck := handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })
	h := start(t, setup{store: store.Options{JournalBytes: 60_000}, handlers: []Handler{{Name: "stuck", Push: stuck}}})
	big := strings.Repeat("x", 42_000)
	h.Accept([]Delivery{h.direct(t, big)})
	<-h.acks.c
	for range 2 {
		h.Accept([]Delivery{h.direct(t, big), h.direct(t, "small")})
		<-h.acks.c
		h.Accept([]Delivery{h.direct(t, "small")})
		<-h.acks.c
	}
	close(block)
	stuck.bodies(t, 5)
	h.idle(t)
	if s := h.Stats(); s.Refused != 2 || s.Stored != 5 || h.events.count("journal_full") != 1 {
		t.Errorf("%+v, events %v", s, h.events.got)
	}
	h.Accept([]Delivery{h.direct(t, big), h.direct(t, big)})
	stuck.bodies(t, 1)
	h.idle(t)
	if h.events.count("journal_full") != 2 {
		t.Errorf("full again after there was room: events %v", h.events.got)
	}
}

func TestCloseKeepsWhatWasAcceptedAndFinishesWhatIsInFlight(t *testing.T) {
	entered, block := make(chan struct{}, 10), make(chan struct{})
	slow := handler(func(*sdk.Push) sdk.Outcome { entered <- struct{}{}; <-block; return sdk.Outcome{Decision: sdk.Ack} })
	dir := t.TempDir()
	st, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys, acked := &keyring{member: generate(t)}, newAcks()
	r, err := New(t.Context(), Options{Journal: st, Keys: keys, Acker: acked, Handlers: []Handler{{Name: "slow", Push: slow}}})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{keys: keys, sender: generate(t)}
	r.Accept([]Delivery{h.direct(t, "in flight")})
	<-entered
	r.Accept([]Delivery{h.direct(t, "queued"), h.direct(t, "queued too")})
	closed := make(chan error, 1)
	go func() { closed <- r.Close(t.Context()) }()
	for range 3 {
		<-acked.c
	}
	close(block)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	r.Accept([]Delivery{h.direct(t, "too late")})
	if s := r.Stats(); s.Refused != 1 {
		t.Errorf("after close: %+v", s)
	}
	ids, _, err := st.Handlers(t.Context(), []string{"slow"})
	if err != nil {
		t.Fatal(err)
	}
	work, err := st.Work(t.Context(), ids["slow"], 0, 10)
	if err != nil || len(work) > 2 {
		t.Errorf("left in the journal: %+v %v; what the handler had acked must be marked", work, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseCutsOffAHandlerThatHangs(t *testing.T) {
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	hang := hangs(func(ctx context.Context) { close(entered); <-ctx.Done() })
	keys := &keyring{member: generate(t)}
	r, err := New(t.Context(), Options{Journal: st, Keys: keys, Acker: newAcks(), Handlers: []Handler{{Name: "hang", Push: hang}}})
	if err != nil {
		t.Fatal(err)
	}
	r.Accept([]Delivery{(&host{keys: keys, sender: generate(t)}).direct(t, "x")})
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	ids, _, _ := st.Handlers(t.Context(), []string{"hang"})
	if work, err := st.Work(t.Context(), ids["hang"], 0, 10); err != nil || len(work) != 1 || work[0].Attempts != 0 {
		t.Errorf("left: %+v %v, want the push without an attempt burnt", work, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// Promise 9: nor does a handler that hangs while it is being taken off keep Close beyond its time.
func TestCloseCutsOffAHandlerThatHangsWhileItIsTakenOff(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		st, err := store.Open(t.Context(), dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		keys := &keyring{member: generate(t)}
		hang := hangs(func(ctx context.Context) { <-ctx.Done() })
		r, err := New(t.Context(), Options{Journal: st, Keys: keys, Acker: newAcks(), Handlers: []Handler{{Name: "hang", Push: hang}}})
		if err != nil {
			t.Fatal(err)
		}
		r.Accept([]Delivery{(&host{keys: keys, sender: generate(t)}).direct(t, "x")})
		synctest.Wait()
		set := make(chan error, 1)
		go func() { set <- r.SetHandlers(t.Context(), nil) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		err = r.Close(ctx)
		if took := time.Since(begun); took > 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("closed after %s: %v", took, err)
		}
		if err := errors.Join(<-set, st.Close()); err != nil {
			t.Error(err)
		}
	})
}

type hangs func(ctx context.Context)

func (f hangs) Handle(ctx context.Context, _ []sdk.Push) ([]sdk.Outcome, error) {
	f(ctx)
	return nil, ctx.Err()
}

func (f flakyFunc) Handle(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return f(pushes)
}
