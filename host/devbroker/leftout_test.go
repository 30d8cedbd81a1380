package devbroker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// omission is what the recorder left out of a scenario, written by hand.
type omission struct {
	slug      string            // of the mesh; it shows in the text of `revoked`
	revoked   []string          // recorded keys of members that are revoked from the start
	members   []knownMember     // members that no accepted hello shows
	names     map[string]string // a member's own name, where its hello brought another
	otherKeys []string          // keys that appear in replies only
	binary    map[string]string // label -> the payload of a binary frame
	pings     []line            // pings of clients: T, Conn and Data
	bodies    map[string]string // label -> ciphertext of a send of which only the head was recorded; "" = the push has it
	mute      []string          // connections that answer no ping: their 1006 is the broker's doing
	dropped   []string          // connections that the client terminates: 1006 is its own doing
}

type knownMember struct{ key, id, name string }

var leftOut = map[string]omission{
	"09": {dropped: []string{"SB2#01"}},
	"10": {
		slug:    "err-c6tv6h",
		revoked: []string{"bd030a6b728154d72ba358064fbb47892451088cd3885471509c02532a58909d"},
		members: []knownMember{
			{key: "bd030a6b728154d72ba358064fbb47892451088cd3885471509c02532a58909d", id: "X6cxcx677fnIqsGBgHbuYhGgXKBMD0sC", name: "peer-d"},
			{key: "f50c3f280658d3d4c33ac7a11f1aa1030d2a361e1e79bf147d82c7204c049797", id: "buL55ysvsUQoFpEAGESHiIcC0Tppx5vc", name: "peer-b"},
		},
	},
	"11": {
		binary: map[string]string{"list_peers as BINARY frame": `{"type":"list_peers","_reqId":"bin"}`},
		pings:  []line{{T: 2272, Conn: "A#01", Dir: "ping", Data: new("hey")}},
	},
	"12": {bodies: map[string]string{
		"send exactly 65536": "", "send 65537": "",
		"send ~70 KB": strings.Repeat("A", 70_000), "send 1 MB": strings.Repeat("A", 1_000_000),
	}},
	"18": {dropped: []string{"B#01"}},
	"21": {slug: "kick-2rt77l"},
	"23": {mute: []string{"A#01"}},
}

// fill puts the omissions into the lines.
func (s *scenario) fill(t *testing.T) {
	t.Helper()
	for i := range s.lines {
		l := &s.lines[i]
		if body, ok := s.gaps.binary[l.Label]; ok && l.Dir == "send" {
			l.Frame = jsontext.Value(body)
		}
		if body, ok := s.gaps.bodies[l.Label]; ok && l.Dir == "send" {
			l.Frame = s.rebuild(t, i, body)
		}
	}
	for _, p := range s.gaps.pings {
		at := 0
		for i, l := range s.lines {
			if l.T <= p.T && l.Dir != "recv" {
				at = i + 1
			}
		}
		s.lines = append(s.lines[:at:at], append([]line{p}, s.lines[at:]...)...)
	}
}

// rebuild makes a truncated send whole again, and checks it against the recorded size and head.
func (s *scenario) rebuild(t *testing.T, i int, body string) jsontext.Value {
	t.Helper()
	var cut struct {
		Bytes int    `json:"bytes"`
		Head  string `json:"head"`
	}
	if err := json.Unmarshal(s.lines[i].Frame, &cut); err != nil {
		t.Fatal(err)
	}
	id := strings.Split(cut.Head, `"`)[7]
	target, nonce, print := "", "", ""
	for _, l := range s.lines {
		f := object(l.Frame)
		switch {
		case f["type"] == "hello" && l.Conn == "B#01":
			target, _ = f["pubkey"].(string)
		case f["type"] == "push" && f["client_message_id"] != nil:
			nonce, _ = f["nonce"].(string)
			print, _ = f["request_fingerprint"].(string)
			if f["client_message_id"] == id {
				body, _ = f["ciphertext"].(string)
			}
		}
	}
	frame := fmt.Sprintf(
		`{"type":"send","id":%q,"client_message_id":%q,"request_fingerprint":%q,"targetSpec":%q,"priority":"now","nonce":%q,"ciphertext":%q}`,
		id, id, print, target, nonce, body)
	if len(frame) != cut.Bytes || !strings.HasPrefix(frame, cut.Head) {
		t.Fatalf("%s: rebuilt %d bytes, recorded %d, head %.80s", s.lines[i].Label, len(frame), cut.Bytes, frame)
	}
	return jsontext.Value(frame)
}
