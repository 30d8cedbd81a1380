package host

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// texts are frames as strings.
func texts(t *testing.T, frames []jsontext.Value, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range frames {
		out = append(out, string(f))
	}
	return out
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// What was set is what a fresh presence is told: the last word on each thing,
// merged where the wire merges.
func TestAPresenceIsTheSumOfItsFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []string
		want []string
	}{
		{"nothing", nil, nil},
		{
			"the last summary",
			[]string{`{"type":"set_summary","summary":"a"}`, `{"type":"set_summary","summary":"b"}`},
			[]string{`{"type":"set_summary","summary":"b"}`},
		},
		{"an empty summary is a wish", []string{`{"type":"set_summary","summary":""}`}, []string{`{"type":"set_summary","summary":""}`}},
		{"false is a wish", []string{`{"type":"set_visible","visible":false,"_reqId":"x"}`}, []string{`{"type":"set_visible","visible":false}`}},
		{
			"profiles merge by field",
			[]string{`{"type":"set_profile","title":"t","bio":"b"}`, `{"type":"set_profile","bio":"c","stranger":1}`},
			[]string{`{"bio":"c","title":"t","type":"set_profile"}`},
		},
		{
			"groups by name, the last role",
			[]string{`{"type":"join_group","name":"z"}`, `{"type":"join_group","name":"a","role":"r"}`, `{"type":"join_group","name":"z","role":"lead"}`},
			[]string{`{"type":"join_group","name":"a","role":"r"}`, `{"type":"join_group","name":"z","role":"lead"}`},
		},
		{
			"a group that was left is left again",
			[]string{`{"type":"join_group","name":"a"}`, `{"type":"leave_group","name":"a"}`},
			[]string{`{"type":"leave_group","name":"a"}`},
		},
		{
			"and joined again",
			[]string{`{"type":"leave_group","name":"a"}`, `{"type":"join_group","name":"a"}`},
			[]string{`{"type":"join_group","name":"a"}`},
		},
		{"all of it in order", []string{
			`{"type":"set_visible","visible":true}`, `{"type":"set_status","status":"dnd"}`, `{"type":"set_summary","summary":"s"}`,
			`{"type":"join_group","name":"g"}`, `{"type":"leave_group","name":"old"}`, `{"type":"set_profile","avatar":"A"}`,
		}, []string{
			`{"avatar":"A","type":"set_profile"}`, `{"type":"leave_group","name":"old"}`, `{"type":"join_group","name":"g"}`,
			`{"type":"set_summary","summary":"s"}`, `{"type":"set_status","status":"dnd"}`, `{"type":"set_visible","visible":true}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w wanted
			for _, f := range c.in {
				if is, err := w.take(jsontext.Value(f)); !is || err != nil {
					t.Fatalf("%s: %v, %v", f, is, err)
				}
			}
			frames, err := w.frames()
			if got := texts(t, frames, err); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestBadPresenceFramesAreRefusedAndChangeNothing(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	p, err := loadPresences(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.record(t.Context(), "m", "k", jsontext.Value(`{"type":"set_status","status":"working"}`)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		`{"type":"set_summary"}`, `{"type":"set_status"}`, `{"type":"set_visible"}`, `{"type":"join_group"}`,
		`{"type":"leave_group","name":""}`, `{"type":"set_visible","visible":"yes"}`, `not JSON`, `{"type":"set_status","type":"x"}`,
	} {
		_, err := p.record(t.Context(), "m", "k", jsontext.Value(f))
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != sdk.CodeInvalid || e.Reason != "bad_frame" {
			t.Errorf("%s: %v", f, err)
		}
	}
	// A nudge with such a status would be refused for ever.
	_, err = p.record(t.Context(), "m", "k", jsontext.Value(`{"type":"set_status","status":"busy"}`))
	if c, reason := code(err); c != sdk.CodeInvalid || reason != "bad_status" {
		t.Errorf("a status that no broker takes: %v", err)
	}
	if is, err := p.record(t.Context(), "m", "k", jsontext.Value(`{"type":"get_state","key":"x"}`)); is || err != nil {
		t.Errorf("a frame of another kind: %v, %v", is, err)
	}
	frames, err := p.frames("m", "k")
	if got := texts(t, frames, err); !slices.Equal(got, []string{`{"type":"set_status","status":"working"}`}) {
		t.Errorf("it became %q", got)
	}
	if p.status("m", "k") != "working" || p.status("m", "other") != "idle" || p.status("other", "k") != "idle" {
		t.Errorf("status %q, %q, %q", p.status("m", "k"), p.status("m", "other"), p.status("other", "k"))
	}
}

func TestAPresenceIsOnDiskBeforeItIsTold(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, dir)
	p, err := loadPresences(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		`{"type":"set_profile","capabilities":["a","b"]}`, `{"type":"join_group","name":"g","role":"r"}`,
		`{"type":"leave_group","name":"h"}`, `{"type":"set_summary","summary":"s"}`,
	} {
		if kept, err := p.record(t.Context(), "team", "k1", jsontext.Value(f)); !kept || err != nil {
			t.Fatal(kept, err)
		}
	}
	if _, err := p.record(t.Context(), "team", "k2", jsontext.Value(`{"type":"set_summary","summary":"another's"}`)); err != nil {
		t.Fatal(err)
	}
	frames, err := p.frames("team", "k1")
	before := texts(t, frames, err)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.record(t.Context(), "team", "k1", jsontext.Value(`{"type":"set_summary","summary":"not stored"}`)); !errors.Is(err, store.ErrClosed) {
		t.Errorf("without a store: %v", err)
	}
	frames, err = p.frames("team", "k1")
	if now := texts(t, frames, err); !slices.Equal(now, before) {
		t.Errorf("what was not stored would be told: %q", now)
	}

	st = openStore(t, dir)
	if p, err = loadPresences(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	frames, err = p.frames("team", "k1")
	if after := texts(t, frames, err); !slices.Equal(after, before) || len(after) != 4 {
		t.Errorf("after a restart %q, before %q", after, before)
	}
	if err := st.PutPresence(t.Context(), store.Presence{Mesh: "team", Identity: "k1", Doc: jsontext.Value(`{"summary":1}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := loadPresences(t.Context(), st); err == nil || !strings.Contains(err.Error(), "k1") || !strings.Contains(err.Error(), "team") {
		t.Errorf("a broken document: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// One wish that no frame can carry would keep all others from every fresh presence.
func TestAPresenceThatNoFrameCanCarryIsRefused(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	p, err := loadPresences(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 40_000)
	if _, err := p.record(t.Context(), "m", "k", jsontext.Value(`{"type":"set_profile","bio":"`+long+`"}`)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		`{"type":"set_profile","avatar":"` + long + `"}`, // fits alone, not with the bio
		`{"type":"set_summary","summary":"` + long + long + `"}`,
	} {
		_, err := p.record(t.Context(), "m", "k", jsontext.Value(f))
		if c, reason := code(err); c != sdk.CodeInvalid || reason != "presence_too_large" {
			t.Errorf("%.40s…: %v", f, err)
		}
	}
	frames, err := p.frames("m", "k")
	if err != nil || len(frames) != 1 || len(frames[0]) > maxWish {
		t.Errorf("%d frames, %v; want the bio alone", len(frames), err)
	}
}

func TestGroupsAreBounded(t *testing.T) {
	var w wanted
	for i := range maxGroups {
		if _, err := w.take(jsontext.Value(fmt.Sprintf(`{"type":"join_group","name":"g%d"}`, i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.take(jsontext.Value(`{"type":"join_group","name":"one more"}`))
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeFull || e.Next == "" {
		t.Errorf("one group too many: %v", err)
	}
	if _, err := w.take(jsontext.Value(`{"type":"join_group","name":"g0","role":"lead"}`)); err != nil {
		t.Errorf("a new role in a group that it is in: %v", err)
	}
	for i := range 3 * maxGroups {
		if _, err := w.take(jsontext.Value(fmt.Sprintf(`{"type":"leave_group","name":"h%d"}`, i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.Left) != maxGroups || len(w.Groups) != maxGroups || !w.Left[fmt.Sprintf("h%d", 3*maxGroups-1)] {
		t.Errorf("%d groups, %d left", len(w.Groups), len(w.Left))
	}
}

// The lists of frames that are kept must agree: what take understands is what
// isPresence says.
func TestPresenceFramesAreTheOnesThatAreKept(t *testing.T) {
	for typ, presence := range map[string]bool{
		"set_summary": true, "set_status": true, "set_visible": true, "set_profile": true, "join_group": true, "leave_group": true,
		"set_stats": false, "get_state": false, "": false,
	} {
		frame := jsontext.Value(fmt.Sprintf(`{"type":%q,"summary":"s","status":"idle","visible":true,"name":"n"}`, typ))
		var w wanted
		if is, err := w.take(frame); is != presence || err != nil || isPresence(typ) != presence {
			t.Errorf("%q: taken %v (%v), isPresence %v", typ, is, err, isPresence(typ))
		}
	}
	if !hasReply("set_visible") || !hasReply("set_profile") || hasReply("set_status") || hasReply("join_group") {
		t.Error("hasReply differs from PROTOCOL 7.1")
	}
}
