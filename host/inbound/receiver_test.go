package inbound

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// What a push is, whom it is for and what text it has follow from PROTOCOL 5.1, 5.4 and 6.
func TestWhatAPushIs(t *testing.T) {
	inbox := acker()
	session := generate(t)
	h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
	member, sess := h.keys.member.Public().String(), session.Public().String()

	onSession := func(d Delivery) Delivery { d.Identity = session.Public(); return d }
	plain := func(d Delivery, text string) Delivery {
		d.Ciphertext = base64.StdEncoding.EncodeToString([]byte(text))
		return d
	}
	cases := []struct {
		name     string
		delivery Delivery
		kind     sdk.PushKind
		body     string
		to       string
		toKind   string
		opens    bool
		acked    bool
	}{
		{"direct to the member", h.direct(t, "hi"), sdk.PushDirect, "hi", member, "member", true, true},
		{"direct to a session", onSession(h.directTo(t, h.sender, session, "s")), sdk.PushDirect, "s", sess, "session", true, true},
		{"direct to the member on a session's socket", onSession(h.direct(t, "m")), sdk.PushDirect, "m", member, "member", true, true},
		{"sealed for somebody else", h.directTo(t, h.sender, generate(t), "no"), sdk.PushDirect, "", member, "member", false, true},
		{"plaintext under a nonce from the queue", plain(h.direct(t, "x"), "looks like text"), sdk.PushDirect, "", member, "member", false, true},
		{"a fired reminder", func() Delivery { d := plain(h.direct(t, "x"), "tea"); d.Nonce = ""; return d }(), sdk.PushDirect, "tea", member, "member", true, true},
		{"live broadcast", h.multicast(t, "all"), sdk.PushBroadcast, "all", member, "member", true, false},
		{"live multicast that is no text", plain(h.multicast(t, "x"), "\xff\xfe\x00"), sdk.PushDirect, "", member, "member", false, false},
		{"system", h.system("tick", `{"tick":1}`), sdk.PushSystem, "", member, "member", true, false},
		{"webhook", func() Delivery { d := h.system("ci", `[1]`); d.Subtype, d.Sender = "webhook", "webhook:ci"; return d }(), sdk.PushWebhook, "", member, "member", true, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := h.acks.count()
			h.Accept([]Delivery{c.delivery})
			p := <-inbox.got
			if p.Kind != c.kind || string(p.Body) != c.body || p.Recipient != c.to || p.RecipientKind != c.toKind || p.Undecryptable == c.opens {
				t.Errorf("got %s %q for %s %s, undecryptable %v", p.Kind, p.Body, p.RecipientKind, p.Recipient, p.Undecryptable)
			}
			if acked := h.acks.count() > before; acked != c.acked {
				t.Errorf("acked %v, want %v", acked, c.acked)
			}
			if p.ID == "" || p.Attempt != 1 || p.ReceivedAt.IsZero() || !p.CreatedAt.Equal(c.delivery.CreatedAt) || len(p.DedupKeys) == 0 {
				t.Errorf("incomplete: %+v", p)
			}
			if c.kind == sdk.PushDirect && c.delivery.SenderName == "" && p.SenderName != "name-of-"+p.Sender[:4] {
				t.Errorf("sender's name %q is not the directory's", p.SenderName)
			}
		})
	}
}

// Promise 3, with its keys: c|mesh|recipient|sender|client id and b|mesh|recipient|message id.
func TestWhatIsTheSameMessage(t *testing.T) {
	session := generate(t)
	type made struct{ first, second Delivery }
	cases := []struct {
		name string
		make func(h *host) made
		same bool
	}{
		{"another message", func(h *host) made { return made{h.direct(t, "a"), h.direct(t, "b")} }, false},
		{"the same push again", func(h *host) made { d := h.direct(t, "a"); return made{d, d} }, true},
		{"sent twice by the sender: same client id", func(h *host) made {
			a, b := h.direct(t, "a"), h.direct(t, "a")
			b.ClientMessageID = a.ClientMessageID
			return made{a, b}
		}, true},
		{"same client id from another sender", func(h *host) made {
			a, b := h.direct(t, "a"), h.directTo(t, generate(t), h.keys.member, "b")
			b.ClientMessageID = a.ClientMessageID
			return made{a, b}
		}, false},
		{"same client id for another recipient", func(h *host) made {
			a, b := h.direct(t, "a"), h.directTo(t, h.sender, session, "a")
			b.ClientMessageID, b.Identity = a.ClientMessageID, session.Public()
			return made{a, b}
		}, false},
		{"member mail on two sockets", func(h *host) made {
			a := h.direct(t, "a")
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, true},
		{"same message id without a client id", func(h *host) made {
			a := h.direct(t, "a")
			a.ClientMessageID = ""
			return made{a, a}
		}, true},
		{"a broadcast for two identities of ours", func(h *host) made {
			a := h.multicast(t, "a")
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, false},
		{"a system event on two sockets", func(h *host) made {
			a := h.system("tick", `{}`)
			b := a
			b.Identity = session.Public()
			return made{a, b}
		}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inbox := acker()
			h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
			m := c.make(h)
			h.Accept([]Delivery{m.first})
			h.Accept([]Delivery{m.second})
			h.idle(t)
			want := 2
			if c.same {
				want = 1
			}
			if len(inbox.got) != want {
				t.Errorf("handed out %d times, want %d", len(inbox.got), want)
			}
			acked := 0
			for _, d := range []Delivery{m.first, m.second} {
				if d.ackable() {
					acked++
				}
			}
			if h.acks.count() != acked {
				t.Errorf("%d acks, want %d: duplicates are acked too, or they come back for ever", h.acks.count(), acked)
			}
		})
	}
}

func TestAnEchoIsAckedAndDropped(t *testing.T) {
	inbox := acker()
	session := generate(t)
	h := start(t, setup{keys: &keyring{member: generate(t), sessions: []*identity.Key{session}}, handlers: []Handler{{Name: "inbox", Push: inbox}}})
	echo := h.direct(t, "x")
	echo.Sender = h.keys.member.Public().String()
	sibling := h.directTo(t, h.keys.member, session, "from a sibling") // a real message of one identity of ours to another
	sibling.Identity = session.Public()
	h.Accept([]Delivery{echo, sibling})
	if got := inbox.bodies(t, 1); got[0] != "from a sibling" {
		t.Errorf("got %q", got)
	}
	h.idle(t)
	if s := h.Stats(); s.Echoes != 1 || h.acks.count() != 2 || len(inbox.got) != 0 {
		t.Errorf("%+v, %d acks", s, h.acks.count())
	}
}

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

func TestPlaintextIsSealedInTheJournal(t *testing.T) {
	block := make(chan struct{})
	h := start(t, setup{handlers: []Handler{{Name: "stuck", Push: handler(func(*sdk.Push) sdk.Outcome { <-block; return sdk.Outcome{Decision: sdk.Ack} })}}})
	defer close(block)
	session := generate(t)
	h.keys.sessions = append(h.keys.sessions, session)
	toSession := h.directTo(t, h.sender, session, "SECRET-4")
	toSession.Identity = session.Public()
	h.Accept([]Delivery{h.direct(t, "SECRET-1"), h.multicast(t, "SECRET-2"), h.system("watch_triggered", `{"newValue":"SECRET-3"}`), toSession})
	<-h.acks.c
	<-h.acks.c
	frames, err := h.store.Frames(t.Context(), []int64{1, 2, 3, 4})
	if err != nil || len(frames) != 4 {
		t.Fatal(frames, err)
	}
	for _, f := range frames {
		text := string(f.Frame)
		for i := 1; i <= 4; i++ {
			secret := fmt.Sprint("SECRET-", i)
			if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
				t.Errorf("frame %d holds %s in the clear", f.Seq, secret)
			}
		}
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

type hangs func(ctx context.Context)

func (f hangs) Handle(ctx context.Context, _ []sdk.Push) ([]sdk.Outcome, error) {
	f(ctx)
	return nil, ctx.Err()
}

func TestManyConnectionsAtOnceLoseNothing(t *testing.T) {
	inbox := acker()
	h := start(t, setup{handlers: []Handler{{Name: "inbox", Push: inbox}, {Name: "flaky", Push: flaky()}}})
	var batches [8][]Delivery
	for i := range batches {
		for range 200 {
			batches[i] = append(batches[i], h.directTo(t, h.sender, h.keys.member, fmt.Sprint(i)))
		}
	}
	var wg sync.WaitGroup
	for _, b := range batches {
		wg.Go(func() {
			for i := range b {
				h.Accept(b[i : i+1])
			}
		})
	}
	wg.Wait()
	inbox.bodies(t, 1600)
	h.idle(t)
	if h.acks.count() != 1600 {
		t.Errorf("%d acks", h.acks.count())
	}
}

// flaky fails now and then, as a whole and by item.
func flaky() sdk.PushHandler {
	var n atomic.Int64
	return flakyFunc(func(pushes []sdk.Push) ([]sdk.Outcome, error) {
		if n.Add(1)%5 == 0 {
			return nil, sdk.ErrUnavailable
		}
		out := make([]sdk.Outcome, len(pushes))
		for i := range out {
			out[i] = sdk.Outcome{Decision: sdk.Ack}
			if n.Add(1)%50 == 0 {
				out[i] = sdk.Outcome{Decision: sdk.Retry, After: time.Millisecond}
			}
		}
		return out, nil
	})
}

type flakyFunc func([]sdk.Push) ([]sdk.Outcome, error)

func (f flakyFunc) Handle(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return f(pushes)
}

func BenchmarkInbound(b *testing.B) {
	inbox := acker()
	h := start(b, setup{handlers: []Handler{{Name: "inbox", Push: inbox}}})
	from := make([]*identity.Key, 16)
	for i := range from {
		from[i] = generate(b)
	}
	body := strings.Repeat("x", 200)
	const n = 5000
	for b.Loop() {
		b.StopTimer()
		batches := make([][]Delivery, 0, n/50)
		for range n / 50 {
			var batch []Delivery
			for i := range 50 {
				batch = append(batch, h.directTo(b, from[i%len(from)], h.keys.member, body))
			}
			batches = append(batches, batch)
		}
		b.StartTimer()
		for _, batch := range batches {
			h.Accept(batch)
		}
		for range n {
			<-h.acks.c
		}
		for range n {
			<-inbox.got
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "pushes/s")
	if s := h.Stats(); s.Refused+s.Dropped > 0 {
		b.Fatalf("%+v", s)
	}
}
