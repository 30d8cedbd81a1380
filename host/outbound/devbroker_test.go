package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/broker"
	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/wire"
	"github.com/meshhost/meshhost/sdk"
)

// memberLink is a member's connection to the dev broker.
type memberLink struct{ m *broker.Mesh }

func (l *memberLink) Ready() bool { return l.m.Member().Ready() }

func (l *memberLink) Send(m Message, done func(Outcome)) {
	l.m.Member().SendAsync(&broker.Send{
		ID: m.ID, ClientMessageID: m.ClientMessageID, RequestFingerprint: m.Fingerprint, TargetSpec: m.Target,
		Priority: m.Priority, Nonce: m.Nonce, Ciphertext: m.Ciphertext,
	}, func(r broker.SendResult) {
		verdict, ok := map[broker.Outcome]Verdict{
			broker.Accepted: Accepted, broker.RateLimited: RateLimited, broker.NoPeer: NoPeer, broker.Permanent: Refused,
			broker.Transient: Transient, broker.NotSent: NotSent,
		}[r.Outcome]
		if !ok {
			verdict = Unknown
		}
		done(Outcome{Verdict: verdict, MessageID: r.MessageID, Detail: r.Text, PerMinute: float64(r.Rate.PerMinute)})
	})
}

func (l *memberLink) Delivered(ctx context.Context, id string) (bool, time.Time, error) {
	st, err := l.m.Member().MessageStatus(ctx, id)
	var remote *broker.RemoteError
	switch {
	case errors.As(err, &remote) && remote.Code == "not_found":
		return false, time.Time{}, ErrUnknownMessage
	case err != nil:
		return false, time.Time{}, err
	}
	return st.Delivered, time.Time{}, nil
}

// town is a dev broker, an Outbound at member a and a peer b, in virtual time.
type town struct {
	t     *testing.T
	seed  devbroker.Seed
	opts  devbroker.Options
	ka    *identity.Key
	kb    *identity.Key
	store *store
	out   *Outbound

	mu  sync.Mutex
	srv *devbroker.Broker // nil: nobody answers
	// got are the client_message_ids that b received, in order.
	got []string
	// silent keeps b from acknowledging.
	silent bool
	frames []string // of the broker's log
}

func (w *town) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, string(line))
	return len(line), nil
}

// logged counts the frames of the log that hold all of these words.
func (w *town) logged(words ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, f := range w.frames {
		if !slices.ContainsFunc(words, func(s string) bool { return !strings.Contains(f, s) }) {
			n++
		}
	}
	return n
}

func (w *town) received() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

func (w *town) setSilent(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
}

// open starts a broker that knows the members and nothing else.
func (w *town) open() {
	w.t.Helper()
	w.opts.Seed, w.opts.LogWriter = w.seed, w
	srv, err := devbroker.New(w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.srv = srv
	w.mu.Unlock()
}

// crash ends the broker with all that it knew.
func (w *town) crash() {
	w.mu.Lock()
	srv := w.srv
	w.srv = nil
	w.mu.Unlock()
	if err := srv.Abort(); err != nil {
		w.t.Error(err)
	}
}

func (w *town) dial(ctx context.Context) (net.Conn, error) {
	w.mu.Lock()
	srv := w.srv
	w.mu.Unlock()
	if srv == nil {
		return nil, errors.New("nobody answers")
	}
	return srv.Dialer()(ctx, "tcp", "127.0.0.1:7900")
}

func (w *town) join(id string, key *identity.Key, h broker.Handlers) *broker.Mesh {
	w.t.Helper()
	m, err := broker.New(broker.Options{
		MeshID: "MESH1", Slug: "team", MemberID: id, Key: key, URL: "ws://127.0.0.1:7900/ws",
		Presence: broker.Presence{SessionID: "s" + id, PID: 42, Cwd: "/" + id}, Dial: w.dial, Logger: hclog.NewNullLogger(), Handlers: h,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// inTown runs a test with both members connected.
func inTown(t *testing.T, opts devbroker.Options, test func(w *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, opts: opts, store: newStore()}
		var keys [2]*identity.Key
		for i := range keys {
			k, err := identity.Generate()
			if err != nil {
				t.Fatal(err)
			}
			keys[i] = k
		}
		w.ka, w.kb = keys[0], keys[1]
		w.seed = devbroker.Seed{Meshes: []devbroker.SeedMesh{{MeshID: "MESH1", Slug: "team", Members: []devbroker.SeedMember{
			{MemberID: "A", DisplayName: "a", PublicKey: w.ka.Public().String(), Role: "admin"},
			{MemberID: "B", DisplayName: "b", PublicKey: w.kb.Public().String(), Role: "member"},
		}}}}
		w.open()
		defer w.crash()
		l := &memberLink{}
		a := w.join("A", w.ka, broker.Handlers{
			OnState: func(_ *broker.Conn, st broker.State) { w.out.Online("team", st.Phase == link.Ready, true) },
		})
		l.m = a
		b := w.join("B", w.kb, broker.Handlers{OnPush: func(c *broker.Conn, pushes []*broker.Push) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, p := range pushes {
				if p.Subtype == "" {
					w.got = append(w.got, p.ClientMessageID)
					if !w.silent {
						c.ClientAck(p.ClientMessageID, p.MessageID)
					}
				}
			}
		}})
		var err error
		w.out, err = New(Options{
			Meshes:   []Mesh{{Name: "team", Key: w.ka, Link: l, Outbox: "box"}},
			Outboxes: map[string]Backend{"box": {Outbox: w.store, Durable: func() bool { return true }}},
			Owner:    "me", Incarnation: "1", Names: &peers{keys: map[string]string{"b": w.kb.Public().String()}},
			Logger: hclog.NewNullLogger(), Publish: func(string, string, any) {}, Relist: func(string) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = b.Run(ctx) })
		w.out.Start(ctx)
		wg.Go(func() { _ = a.Run(ctx) })
		time.Sleep(2 * time.Second)
		test(w)
		closing, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		if err := w.out.Close(closing); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
	})
}

func (w *town) send(key string) string {
	w.t.Helper()
	rep, err := w.out.Accept(w.t.Context(), Request{To: "b", Message: "hello", ClientMessageID: key})
	if err != nil {
		w.t.Fatal(err)
	}
	return rep.ID
}

// The broker's limit is 10 at once and one a second; 120 messages take what
// that takes, none is refused for good, and none passes another.
func TestARateLimitOfTheBrokerIsKeptToAndCostsNothingElse(t *testing.T) {
	inTown(t, devbroker.Options{SendBurst: 10, SendPerMinute: 60}, func(w *town) {
		const n = 120
		var want []string
		begin := time.Now()
		for i := range n {
			want = append(want, fmt.Sprintf("m%03d", i))
			w.send(want[i])
		}
		last := w.store.all()[n-1].ID
		ctx, cancel := waitAtMost(w.t, 10*time.Minute)
		defer cancel()
		e, err := w.out.Wait(ctx, last, sdk.StateAccepted)
		took := time.Since(begin)
		if err != nil || e.State != sdk.StateAccepted {
			w.t.Fatalf("%+v %v", e, err)
		}
		time.Sleep(time.Minute)
		dead, attempts := 0, 0
		for _, e := range w.store.all() {
			if e.State != sdk.StateAccepted && e.State != sdk.StateDelivered {
				dead++
			}
			attempts += e.Attempts
		}
		order := slices.Equal(w.received(), want)
		fmt.Printf("RESULT rate_limit messages=%d seconds=%.1f dead=%d in_order=%v time=virtual limit_answers=%d asks=%d\n",
			n, took.Seconds(), dead, order, w.logged(`"out"`, "rate_limit:"), w.logged(`"in"`, wire.TypeMessageStatus))
		if l := w.logged(`"out"`, "rate_limit:"); l == 0 || l > n/10 {
			w.t.Errorf("the broker had to refuse %d sends; want some, until its rate is learned", l)
		}
		if took > n*time.Second || dead > 0 || attempts > 0 || !order || w.logged(`"in"`, wire.TypeMessageStatus) == 0 {
			w.t.Errorf("attempts %d, received %v", attempts, w.received())
		}
	})
}

func TestTheBrokerTellsOfADelivery(t *testing.T) {
	inTown(t, devbroker.Options{}, func(w *town) {
		w.setSilent(true)
		held := w.send("held")
		synctest.Wait()
		w.setSilent(false)
		done := w.send("done")
		time.Sleep(6 * time.Second)
		if h, d := w.store.state(held), w.store.state(done); h != sdk.StateAccepted || d != sdk.StateDelivered {
			w.t.Errorf("b kept silent about one, which is %s, and acknowledged the other, which is %s", h, d)
		}
	})
}

// A broker that comes back without what it had acked: the message goes again by
// itself, and its peer knows it by its client_message_id.
func TestABrokerThatLosesWhatItAckedIsSentItAgain(t *testing.T) {
	inTown(t, devbroker.Options{}, func(w *town) {
		w.setSilent(true)
		id := w.send("key")
		synctest.Wait()
		first := w.store.entry(id).BrokerMessageID
		w.crash()
		time.Sleep(time.Second)
		w.setSilent(false)
		w.open()
		time.Sleep(2 * time.Minute)
		e := w.store.entry(id)
		if e.State != sdk.StateDelivered || first == "" || e.BrokerMessageID == first || len(e.Body) != 0 {
			w.t.Errorf("%+v, the first id was %q", e, first)
		}
		if got := w.received(); !slices.Equal(got, []string{"key", "key"}) {
			w.t.Errorf("b received %v", got)
		}
		tr, err := w.out.Trace(w.t.Context(), id)
		if err != nil || !strings.Contains(way(tr), "resent sent accepted") {
			w.t.Errorf("%v %v", tr, err)
		}
	})
}
