package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/plugins/internal/outboxstate"
	"github.com/meshhost/meshhost/sdk"
)

func message(n int) *sdk.Entry {
	id := fmt.Sprintf("id-%06d", n)
	return &sdk.Entry{ID: id, ClientMessageID: id, Mesh: "m", Sender: "s", Lane: "l", Target: fmt.Sprint(n % 7), Body: []byte("x")}
}

func send(t *testing.T, s *store, ops ...sdk.Op) []sdk.OpResult {
	t.Helper()
	res, err := s.Apply(context.Background(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestTheOldestRecordsAreForgottenAndNothingElse(t *testing.T) {
	s := newStore(outboxstate.Limits{Rows: 1000, Bytes: 1 << 20, Entry: 1 << 10}, 50, time.Now)
	kept := []string{}
	for n := range 300 {
		e := message(n)
		ops := []sdk.Op{{Kind: sdk.OpAppend, Entry: e}}
		switch n % 30 {
		case 0: // stays in its queue
			kept = append(kept, e.ID)
		case 1: // keeps its body for requeue
			ops = append(ops, sdk.Op{Kind: sdk.OpCancel, ID: e.ID})
			kept = append(kept, e.ID)
		default:
			ops = append(ops, sdk.Op{Kind: sdk.OpAccepted, ID: e.ID, Final: true})
		}
		send(t, s, ops...)
	}
	if s.records > 50 || len(s.byID) != int(s.records)+len(kept) || len(s.byKey) != len(s.byID) || s.order.len() != len(s.byID) {
		t.Fatalf("%d records, %d rows by id, %d by key, %d in order", s.records, len(s.byID), len(s.byKey), s.order.len())
	}
	got, err := s.Get(context.Background(), append(kept, "id-000299", "id-000002"))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range got {
		if want := i != len(got)-1; (e != nil) != want {
			t.Errorf("row %d: there %v, want %v", i, e != nil, want)
		}
	}
}

func TestAnAnswerDoesNotChangeWithTheCallersMemory(t *testing.T) {
	s := newStore(outboxstate.Limits{}, 10, time.Now)
	e := message(1)
	send(t, s, sdk.Op{Kind: sdk.OpAppend, Entry: e})
	e.Body[0] = 'y'
	got, err := s.Get(context.Background(), []string{e.ID})
	if err != nil || string(got[0].Body) != "x" {
		t.Fatalf("got %q, %v", got[0].Body, err)
	}
}

func TestAForgottenLaneComesBackWithAHigherEpoch(t *testing.T) {
	at := time.Now()
	s := newStore(outboxstate.Limits{}, 10, func() time.Time { return at })
	acquire := func(incarnation string) int64 {
		t.Helper()
		lease, err := s.Acquire(context.Background(), sdk.AcquireRequest{Lane: "l", Owner: "o", Incarnation: incarnation, TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return lease.Epoch
	}
	acquire("1")
	last := acquire("2")
	at = at.Add(60 * 24 * time.Hour)
	if _, err := s.Prune(context.Background(), sdk.PruneRequest{Before: at, Limit: 1}); err != nil || len(s.lanes) != 0 {
		t.Fatalf("%d lanes are remembered: %v", len(s.lanes), err)
	}
	if epoch := acquire("3"); epoch <= last {
		t.Fatalf("epoch %d after %d", epoch, last)
	}
}

func TestConfigureAgainKeepsWhatIsQueued(t *testing.T) {
	var box outbox
	p := box.plugin()
	if p.Durable {
		t.Fatal("memory says that it is durable")
	}
	configure := func(rows int) {
		t.Helper()
		config := fmt.Sprintf(`{"max_rows":%d,"max_bytes":1048576,"max_entry":262144,"max_records":5}`, rows)
		if d, err := p.Config.Configure(context.Background(), jsontext.Value(config), sdk.Env{}); err != nil || d.HasErrors() {
			t.Fatal(d, err)
		}
	}
	configure(10)
	send(t, box.store, sdk.Op{Kind: sdk.OpAppend, Entry: message(1)})
	configure(1)
	res := send(t, box.store, sdk.Op{Kind: sdk.OpAppend, Entry: message(1)}, sdk.Op{Kind: sdk.OpAppend, Entry: message(2)})
	if res[0].Code != sdk.OpExists || res[1].Code != sdk.OpFull {
		t.Fatalf("got %+v", res)
	}
}
