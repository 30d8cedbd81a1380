package outbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

func TestASenderHearsOfItOnlyWhenTheMessageIsStored(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		gate := make(chan struct{})
		h.store.set(nil, func(method string, _ []sdk.Op) error {
			if method == "apply" {
				<-gate
			}
			return nil
		})
		told := make(chan Reply, 1)
		go func() {
			rep, err := h.out.Accept(context.Background(), Request{To: "ann", Message: "hi"})
			if err != nil {
				t.Error(err)
			}
			told <- rep
		}()
		synctest.Wait()
		select {
		case <-told:
			t.Fatal("the sender was told before the backend had answered")
		default:
		}
		close(gate)
		rep := <-told
		if rep.Status != "queued" || !rep.Durable || rep.ClientMessageID != rep.ID || h.store.state(rep.ID) != sdk.StatePending {
			t.Errorf("reply %+v, stored as %q", rep, h.store.state(rep.ID))
		}
	})
}

func TestWhatIsStoredIsSealedAndWhatIsSentOpensForThePeerAlone(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.start()
		defer h.close()
		dm, all := h.send("ann", "dm"), h.send("@all", "all")
		synctest.Wait()
		for _, id := range []string{dm, all} {
			if body := string(h.store.entry(id).Body); strings.Contains(body, "hello") || strings.Contains(body, "aGVsbG8g") {
				t.Errorf("the stored body is readable: %q", body)
			}
		}
		sent := h.link.messages()
		if len(sent) != 2 || sent[0].Target != h.names.keys["ann"] || len(sent[0].Fingerprint) != 64 || sent[0].ID != dm {
			t.Fatalf("sent %+v", sent)
		}
		if sent[1].Ciphertext != "aGVsbG8gYWxs" {
			t.Errorf("a broadcast is plain on the wire: %q", sent[1].Ciphertext)
		}
	})
}

// The table of PROTOCOL 10.4, each state with the same text and with another.
func TestARepeatedClientMessageIDIsAnsweredByTheTable(t *testing.T) {
	cases := []struct {
		state     sdk.EntryState
		inflight  bool
		status    string // with the same text; "" is a conflict
		duplicate bool
		word      string
	}{
		{state: sdk.StatePending, status: "queued", word: "pending"},
		{state: sdk.StateWaiting, status: "queued", word: "pending"},
		{state: sdk.StatePending, inflight: true, status: "inflight", word: "inflight"},
		{state: sdk.StateAccepted, status: "done", duplicate: true, word: "done"},
		{state: sdk.StateDelivered, status: "done", duplicate: true, word: "done"},
		{state: sdk.StateDead, word: "dead"},
		{state: sdk.StateExpired, word: "dead"},
		{state: sdk.StateCancelled, word: "aborted"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s inflight=%v", c.state, c.inflight), func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				if c.inflight {
					h.link.manual = true
					h.start()
				} else {
					h.startOffline()
				}
				defer h.close()
				id := h.send("ann", "key")
				synctest.Wait()
				h.store.mu.Lock()
				h.store.find(id).State, h.store.find(id).BrokerMessageID = c.state, "b7"
				prefix := fmt.Sprintf("%x", h.store.find(id).Fingerprint[:8])
				h.store.mu.Unlock()

				rep, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "hello key", ClientMessageID: "key"})
				var conflict *Conflict
				switch {
				case c.status == "" && (!errors.As(err, &conflict) || conflict.Kind != "outbox_"+c.word+"_fingerprint_match"):
					t.Errorf("same text: %+v %v", rep, err)
				case c.status != "" && (err != nil || rep.Status != c.status || rep.Duplicate != c.duplicate || rep.ID != id || rep.BrokerMessageID != "b7"):
					t.Errorf("same text: %+v %v", rep, err)
				}
				_, err = h.out.Accept(t.Context(), Request{To: "ann", Message: "something else", ClientMessageID: "key"})
				if !errors.As(err, &conflict) || conflict.Kind != "outbox_"+c.word+"_fingerprint_mismatch" || conflict.FingerprintPrefix != prefix || conflict.BrokerMessageID != "b7" {
					t.Errorf("another text: %#v", err)
				}
				if n := len(h.store.all()); n != 1 {
					t.Errorf("%d rows, want 1", n)
				}
				if c.inflight {
					h.link.answer(Outcome{Verdict: Accepted, MessageID: "b"})
				}
			})
		})
	}
}

func TestTwoAppendsOfOneClientMessageIDAtOnceStoreOneAndAnswerTheOtherByTheTable(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		gate := make(chan struct{})
		var once bool
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "apply" && !once {
				once = true
				<-gate
			}
			return nil
		}, nil)
		errs := make(chan error, 3)
		for _, text := range []string{"a", "a", "b"} {
			go func() {
				_, err := h.out.Accept(context.Background(), Request{To: "ann", Message: text, ClientMessageID: "key"})
				errs <- err
			}()
			synctest.Wait() // all are past the look-up, which finds nothing
		}
		close(gate)
		conflicts := 0
		for range 3 {
			var conflict *Conflict
			if err := <-errs; errors.As(err, &conflict) {
				conflicts++
				if want := fmt.Sprintf("%x", h.store.all()[0].Fingerprint[:8]); conflict.FingerprintPrefix != want {
					t.Errorf("prefix %s, want the stored message's %s", conflict.FingerprintPrefix, want)
				}
			} else if err != nil {
				t.Error(err)
			}
		}
		if conflicts != 1 || len(h.store.all()) != 1 {
			t.Errorf("%d conflicts and %d rows, want 1 and 1", conflicts, len(h.store.all()))
		}
	})
}

func TestWhatCanNotBeSentIsRefusedAtOnce(t *testing.T) {
	cases := map[string]struct {
		req    Request
		reason string
	}{
		"48,000 bytes":         {Request{To: "ann", Message: strings.Repeat("x", 48000)}, ""},
		"48,000 to a group":    {Request{To: "@g", Message: strings.Repeat("x", 48000)}, ""},
		"48,001 bytes":         {Request{To: "ann", Message: strings.Repeat("x", 48001)}, "payload_too_large"},
		"128 bytes of id":      {Request{To: "ann", ClientMessageID: strings.Repeat("i", 128)}, ""},
		"129 bytes of id":      {Request{To: "ann", ClientMessageID: strings.Repeat("i", 129)}, "bad_client_message_id"},
		"id not UTF-8":         {Request{To: "ann", ClientMessageID: "a\xff"}, "bad_client_message_id"},
		"the frame too large":  {Request{To: "ann", Message: strings.Repeat("x", 48000), ClientMessageID: strings.Repeat("\x01", 128), ReplyToID: "r"}, ""},
		"escapes in the frame": {Request{To: "@" + strings.Repeat("\x01", 500), Message: strings.Repeat("x", 48000)}, "payload_too_large"},
		"text not UTF-8":       {Request{To: "ann", Message: "\xc3("}, "invalid_text"},
		"target not UTF-8":     {Request{To: "@\xff", Message: "x"}, "bad_name"},
		"target too long":      {Request{To: "@" + strings.Repeat("x", 512), Message: "x"}, "bad_name"},
		"no target":            {Request{Message: "x"}, "to_required"},
		"priority":             {Request{To: "ann", Priority: "urgent"}, "bad_priority"},
		"low":                  {Request{To: "ann", Priority: "low"}, ""},
		"meta":                 {Request{To: "ann", Meta: jsontext.Value(`{"a":1}`)}, ""},
		"meta not an object":   {Request{To: "ann", Meta: jsontext.Value(`[1]`)}, "bad_meta"},
		"meta not JSON":        {Request{To: "ann", Meta: jsontext.Value(`{`)}, "bad_meta"},
		"no such mesh":         {Request{Mesh: "other", To: "ann"}, "mesh_not_attached"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(t *testing.T, h *house) {
				h.startOffline()
				defer h.close()
				_, err := h.out.Accept(t.Context(), c.req)
				if got := reason(err); got != c.reason || (err == nil) != (c.reason == "") {
					t.Errorf("got %q (%v), want %q", got, err, c.reason)
				}
				if stored := len(h.store.all()) == 1; stored != (c.reason == "") {
					t.Errorf("stored: %v", stored)
				}
			})
		})
	}
}

func TestALimitOfTheBackendIsSaidAndNothingIsStored(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		h.store.full = true
		_, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x"})
		if !errors.Is(err, sdk.ErrFull) {
			t.Errorf("got %v", err)
		}
	})
}

func TestALookUpThatGetsNoAnswerSaysThatNothingWasStored(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		for _, failure := range []error{errDown, errUnknown, context.DeadlineExceeded} {
			h.store.set(func(method string, _ []sdk.Op) error {
				if method == "lookup" {
					return failure
				}
				return nil
			}, nil)
			_, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x", ClientMessageID: "k"})
			if reason(err) != "outbox_unavailable" || !errors.Is(err, sdk.ErrUnavailable) {
				t.Errorf("%v: got %v", failure, err)
			}
		}
		h.store.set(nil, nil)
		h.names.err = fmt.Errorf("list: %w", context.DeadlineExceeded)
		if _, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x"}); reason(err) != "target_unresolved" {
			t.Errorf("a resolution that timed out: %v", err)
		}
		h.names.err = sdk.ErrNotFound
		if _, err := h.out.Accept(t.Context(), Request{To: "ann", Message: "x"}); !errors.Is(err, sdk.ErrNotFound) {
			t.Errorf("nobody of that name: %v", err)
		}
		if len(h.store.all()) != 0 {
			t.Errorf("%d rows", len(h.store.all()))
		}
	})
}

func TestNothingIsAcceptedBeforeTheStartAndAfterClose(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		out, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Accept(t.Context(), Request{To: "ann"}); reason(err) != "starting" {
			t.Errorf("before: %v", err)
		}
		if err := out.Close(t.Context()); err != nil {
			t.Errorf("close without start: %v", err)
		}
		h.start()
		h.close()
		if _, err := h.out.Accept(t.Context(), Request{To: "ann"}); reason(err) != "stopping" {
			t.Errorf("after: %v", err)
		}
		if err := h.out.Close(t.Context()); err != nil {
			t.Errorf("a second close: %v", err)
		}
	})
}

func TestConcurrentLookUpsShareCalls(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		h.startOffline()
		defer h.close()
		h.store.set(func(method string, _ []sdk.Op) error {
			if method == "lookup" {
				time.Sleep(time.Millisecond)
			}
			return nil
		}, nil)
		done := make(chan error)
		for i := range 50 {
			go func() {
				_, err := h.out.Accept(context.Background(), Request{To: "ann", Message: "x", ClientMessageID: fmt.Sprint(i)})
				done <- err
			}()
		}
		for range 50 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := h.store.count("lookup"); n > 10 {
			t.Errorf("%d calls for 50 look-ups at once", n)
		}
	})
}
