package outbound

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// quickStore gives every op its result and keeps nothing but what Prev needs:
// what is measured is this package.
type quickStore struct {
	*store
	mu    sync.Mutex
	seq   int64
	tails map[string]int64
	live  map[string]string // id to target
	rows  map[string]int    // live ones of a target
}

func (s *quickStore) Apply(_ context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]sdk.OpResult, len(ops))
	for i := range ops {
		if e := ops[i].Entry; e != nil {
			s.seq++
			out[i] = sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: s.seq, State: sdk.StatePending}
			if s.rows[e.Target] > 0 {
				out[i].Prev = s.tails[e.Target]
			}
			s.live[e.ID], s.tails[e.Target] = e.Target, s.seq
			s.rows[e.Target]++
			continue
		}
		s.rows[s.live[ops[i].ID]]--
		delete(s.live, ops[i].ID)
		out[i] = sdk.OpResult{Code: sdk.OpApplied, ID: ops[i].ID}
	}
	return out, nil
}

func (s *quickStore) Fetch(context.Context, sdk.FetchRequest) (sdk.FetchResult, error) {
	return sdk.FetchResult{NextDue: -1}, nil
}

// quickLink acks from a goroutine of its own, as a connection's reader does.
type quickLink struct{ acks chan func(Outcome) }

func (l quickLink) Send(_ Message, done func(Outcome)) { l.acks <- done }
func (quickLink) Ready() bool                          { return true }
func (quickLink) Delivered(context.Context, string) (bool, time.Time, error) {
	return false, time.Time{}, nil
}

// From Accept by 64 callers to settled, 64 targets, without a plugin's process
// and a socket: what this package costs of both.
func BenchmarkAcceptSendSettle(b *testing.B) {
	key, err := identity.Generate()
	if err != nil {
		b.Fatal(err)
	}
	names := &peers{keys: map[string]string{}}
	for i := range 64 {
		k, err := identity.Generate()
		if err != nil {
			b.Fatal(err)
		}
		names.keys[fmt.Sprint(i)] = k.Public().String()
	}
	s := &quickStore{store: newStore(), tails: map[string]int64{}, live: map[string]string{}, rows: map[string]int{}}
	link := quickLink{make(chan func(Outcome), maxInflight)}
	settled := make(chan struct{}, 1024)
	// The store has no Fetch: no queue may outgrow the lane's memory.
	room := map[string]chan struct{}{}
	for _, spec := range names.keys {
		room[spec] = make(chan struct{}, maxQueueRows/2)
	}
	out, err := New(Options{
		Meshes:   []Mesh{{Name: "team", Key: key, Link: link, Outbox: "box"}},
		Outboxes: map[string]Backend{"box": {Outbox: s, Durable: func() bool { return true }}},
		Owner:    "me", Incarnation: "1", Names: names, Logger: hclog.NewNullLogger(),
		Publish: func(_, _ string, data any) {
			if target := data.(*change).Target; target != "@warm" {
				<-room[target]
			}
			settled <- struct{}{}
		},
		Relist: func(string) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for done := range link.acks {
			done(Outcome{Verdict: Accepted, MessageID: "m"})
		}
	})
	out.Start(context.Background())
	out.Online("team", true, true)
	// Until the lane has its lease, what is stored is left to Fetch.
	for ready := false; !ready; {
		if _, err := out.Accept(context.Background(), Request{To: "@warm", Message: "x"}); err != nil {
			b.Fatal(err)
		}
		select {
		case <-settled:
			ready = true
		case <-time.After(10 * time.Millisecond):
			s.mu.Lock()
			clear(s.rows)
			s.mu.Unlock()
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for g := range 64 {
		wg.Go(func() {
			to := fmt.Sprint(g)
			for i := g; i < b.N; i += 64 {
				room[names.keys[to]] <- struct{}{}
				if _, err := out.Accept(context.Background(), Request{To: to, Message: "two hundred bytes, more or less"}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		<-settled
	}
	b.StopTimer()
	if err := out.Close(context.Background()); err != nil {
		b.Error(err)
	}
	close(link.acks)
	wg.Wait()
}
