package roster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

var world = []sdk.Peer{
	peer("b0b0b0b0b0", "b0b0b0b0b0", "bob", sdk.RoleControlPlane),
	peer("b1b1b1b1b1", "b0b0b0b0b0", "bob", sdk.RoleSession),
	peer("c0c0c0c0c0", "c0c0c0c0c0", "cat", sdk.RoleControlPlane),
	peer("d1d1d1d1d1", "d0d0d0d0d0", "dora", sdk.RoleSession),
	peer("d2d2d2d2d2", "d0d0d0d0d0", "Dora", sdk.RoleSession),
	peer("e1e1e1e1e1", "e0e0e0e0e0", "twin", sdk.RoleSession),
	peer("f1f1f1f1f1", "f0f0f0f0f0", "twin", sdk.RoleSession),
	{PubKey: ownMember, MemberPubKey: ownMember, DisplayName: "me", Role: sdk.RoleControlPlane},
	{PubKey: ownSession, MemberPubKey: ownMember, DisplayName: "twin", Role: sdk.RoleSession},
	{PubKey: key("abab1"), MemberPubKey: ownMember, DisplayName: "elsewhere", Role: sdk.RoleSession},
	{PubKey: key("abab2"), MemberPubKey: ownMember, DisplayName: "laptops", Role: sdk.RoleSession},
	{PubKey: key("abab3"), MemberPubKey: ownMember, DisplayName: "laptops", Role: sdk.RoleSession},
	peer("99999999aa", "9900000000", "prefixed", sdk.RoleSession),
	peer("99999999bb", "9911111111", "prefixed too", sdk.RoleSession),
	peer("77777777aa", "7700000000", "b1b1b1b1", sdk.RoleSession),
	peer("6666666666", "6600000000", " ", sdk.RoleSession),
}

var past = []store.Peer{
	{Mesh: "m", Key: key("b9b9b9b9b9"), MemberKey: key("b0b0b0b0b0"), Name: "bob", Role: sdk.RoleSession, LastSeen: time.Unix(9, 0)},
	{Mesh: "m", Key: key("8181818181"), MemberKey: key("8080808080"), Name: "olga", Role: sdk.RoleSession, LastSeen: time.Unix(8, 0)},
	{Mesh: "m", Key: key("7171717171"), MemberKey: key("7070707070"), Name: "cat", Role: sdk.RoleSession, LastSeen: time.Unix(7, 0)},
	{Mesh: "m", Key: key("6161616161"), Name: "dora", LastSeen: time.Unix(6, 0)},
	{Mesh: "m", Key: key("5151515151"), Name: "stranger", LastSeen: time.Unix(5, 0)},
	{Mesh: "other", Key: key("4141414141"), MemberKey: key("4141414141"), Name: "foreign", LastSeen: time.Unix(4, 0)},
}

// The rules of names in "send".
func TestNamesAndKeys(t *testing.T) {
	unknown := strings.Repeat("3", 64)
	cases := []struct {
		to   string
		spec string
		kind TargetKind
		from string
		err  error
	}{
		{"*", "*", TargetBroadcast, FromVerbatim, nil},
		{"@all", "@all", TargetBroadcast, FromVerbatim, nil},
		{"@Reviewers", "@Reviewers", TargetGroup, FromVerbatim, nil},
		{"#topic1", "#topic1", TargetTopic, FromVerbatim, nil},
		{"@", "", "", "", sdk.ErrNotFound},
		{"", "", "", "", sdk.ErrNotFound},
		{unknown, unknown, TargetDirect, FromVerbatim, nil},
		{key("b1b1b1b1b1"), key("b1b1b1b1b1"), TargetDirect, FromLive, nil},
		{strings.ToUpper(key("b1b1b1b1b1")), key("b1b1b1b1b1"), TargetDirect, FromLive, nil},
		{key("8181818181"), key("8181818181"), TargetDirect, FromDirectory, nil},
		{"bob", key("b1b1b1b1b1"), TargetDirect, FromLive, nil},           // the session row wins over the control-plane row
		{" BOB ", key("b1b1b1b1b1"), TargetDirect, FromLive, nil},         // case and space aside
		{"dora", key("d0d0d0d0d0"), TargetDirect, FromLive, nil},          // several sessions of one member: the member
		{"olga", key("8080808080"), TargetDirect, FromDirectory, nil},     // offline: the member, whatever session comes back
		{"stranger", key("5151515151"), TargetDirect, FromDirectory, nil}, // only ever announced
		{"elsewhere", key("abab1"), TargetDirect, FromLive, nil},          // our member's session on another machine
		{"laptops", "", "", "", sdk.ErrConflict},                          // two of those: our member key is no target
		{"twin", "", "", "", sdk.ErrConflict},                             // two members
		{"cat", "", "", "", sdk.ErrConflict},                              // one member there, another of that name offline
		{"me", "", "", "", sdk.ErrInvalid},                                // ourselves
		{ownMember, "", "", "", sdk.ErrInvalid},
		{"aaaa0000", "", "", "", sdk.ErrInvalid},
		{"nobody", "", "", "", sdk.ErrNotFound},
		{"foreign", "", "", "", sdk.ErrNotFound}, // of another mesh
		{"c0c0c0c0", key("c0c0c0c0c0"), TargetDirect, FromLive, nil},
		{"C0C0C0C0", key("c0c0c0c0c0"), TargetDirect, FromLive, nil},
		{"d0d0d0d0d", key("d0d0d0d0d0"), TargetDirect, FromLive, nil}, // a member's key that has no row of its own
		{"81818181", key("8181818181"), TargetDirect, FromDirectory, nil},
		{"c0c0c0c", "", "", "", sdk.ErrNotFound},                      // seven digits
		{"99999999", "", "", "", sdk.ErrConflict},                     // two keys
		{"99999999a", key("99999999aa"), TargetDirect, FromLive, nil}, // one of them
		{"b1b1b1b1", "", "", "", sdk.ErrConflict},                     // somebody has taken bob's prefix for a name
	}
	for _, c := range cases {
		t.Run(c.to, func(t *testing.T) {
			r, _ := start(t, &broker{rows: world}, past)
			if _, err := r.List(t.Context(), sdk.PeerQuery{Mesh: "m"}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time from what is remembered
				got, err := r.Resolve(t.Context(), "m", c.to)
				if c.err != nil {
					if !errors.Is(err, c.err) {
						t.Errorf("got %+v, %v; want %v", got, err, c.err)
					}
					continue
				}
				wantKey := ""
				if c.kind == TargetDirect {
					wantKey = c.spec
				}
				if err != nil || got.Spec != c.spec || got.Kind != c.kind || got.From != c.from || got.Key != wantKey {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
}

func TestAnAmbiguousNameListsItsCandidates(t *testing.T) {
	r, _ := start(t, &broker{rows: world}, past)
	_, err := r.Resolve(t.Context(), "m", "cat")
	var ambiguous *AmbiguousError
	want := []Candidate{
		{Name: "cat", Key: key("c0c0c0c0c0"), MemberKey: key("c0c0c0c0c0"), Role: sdk.RoleControlPlane, Online: true},
		{Name: "cat", Key: key("7171717171"), MemberKey: key("7070707070"), Role: sdk.RoleSession},
	}
	if !errors.As(err, &ambiguous) || !slices.Equal(ambiguous.Candidates, want) {
		t.Errorf("%v: %+v", err, ambiguous)
	}
	if !strings.Contains(err.Error(), "online") || !strings.Contains(err.Error(), "c0c0c0c0") {
		t.Errorf("the error doesn't say who: %v", err)
	}
}

func TestAnUnknownNameSuggestsNearOnes(t *testing.T) {
	r, _ := start(t, &broker{rows: world}, past)
	for to, want := range map[string]string{"olgo": "olga", "strange": "stranger", "bbo": "", "elsewher": "elsewhere", "zzzz": ""} {
		_, err := r.Resolve(t.Context(), "m", to)
		var missing *NotFoundError
		if !errors.As(err, &missing) || !missing.Listed {
			t.Fatalf("%s: %v", to, err)
		}
		got := ""
		if len(missing.Suggestions) > 0 {
			got = missing.Suggestions[0]
		}
		if got != want {
			t.Errorf("%s: suggested %q, want %q", to, missing.Suggestions, want)
		}
	}
}

func TestAListServesNamesFor30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{rows: world}
		r, _ := start(t, b, nil)
		asked := func(want int64, what string) {
			t.Helper()
			if _, err := r.Resolve(t.Context(), "m", "bob"); err != nil {
				t.Fatal(err)
			}
			if got := b.asked.Load(); got != want {
				t.Errorf("%s: asked %d times, want %d", what, got, want)
			}
			time.Sleep(resolvedFor + time.Millisecond)
		}
		asked(1, "the first name")
		asked(1, "a fresh list")
		time.Sleep(freshList)
		asked(2, "an old list")
		r.Announced("m", "peer_joined", []byte(`{"name":"new","pubkey":"`+key("1212")+`"}`))
		asked(3, "somebody joined since")
		for range 1000 {
			if _, err := r.Resolve(t.Context(), "m", key("1212")); err != nil {
				t.Fatal(err)
			}
		}
		if b.asked.Load() != 3 {
			t.Error("a key in full needs no list")
		}
	})
}

func TestWithoutABrokerTheDirectoryMustDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{err: sdk.ErrUnavailable}
		r, _ := start(t, b, past)
		got, err := r.Resolve(t.Context(), "m", "olga")
		if err != nil || got.From != FromDirectory || got.Key != key("8080808080") {
			t.Errorf("%+v %v", got, err)
		}
		var missing *NotFoundError
		if _, err := r.Resolve(t.Context(), "m", "zed"); !errors.As(err, &missing) || missing.Listed {
			t.Errorf("%v", err)
		}
		if b.asked.Load() != 1 {
			t.Errorf("asked %d times within %s of a failure", b.asked.Load(), failedList)
		}
	})
}

func TestANameWaitsTwoSecondsForADeafBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{hold: make(chan struct{})}
		r, _ := start(t, b, past)
		begun := time.Now()
		if got, err := r.Resolve(t.Context(), "m", "olga"); err != nil || got.From != FromDirectory || time.Since(begun) != resolveTimeout {
			t.Errorf("%+v %v after %s", got, err, time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Resolve(ctx, "m", "bob"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
