package devbroker

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// due are the recorded scenarios that the broker must replay frame by frame. The others beside them pass as well.
var due = []string{"01", "02", "05", "08", "10", "11", "12", "14", "15", "18", "19", "22", "23"}

// line is one line of a transcript: what a client did, what it saw, or a note.
type line struct {
	T      int64          `json:"t"`
	Conn   string         `json:"conn"`
	Dir    string         `json:"dir"` // send, recv, event, note
	Label  string         `json:"label"`
	Event  string         `json:"event"`
	Code   int            `json:"code"`
	Reason string         `json:"reason"`
	Frame  jsontext.Value `json:"frame"`
	Data   *string        `json:"data"`
}

// scenario is a transcript made ready for replay. Every connection has a name of its own: "X" becomes X#1, X#2 …
type scenario struct {
	name  string
	lines []line // without notes
	gaps  omission
	keys  []string // public keys of the scenario, lowercase hex, in order of appearance
	base  int64    // recorded wall clock at t=0, ms
}

func number2(name string) string { return name[:2] }

func loadScenarios(t *testing.T) []*scenario {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*.jsonl")
	if err != nil || len(files) < len(due) {
		t.Fatalf("transcripts: %d files, error %v", len(files), err)
	}
	var all []*scenario
	for _, f := range files {
		all = append(all, loadScenario(t, f))
	}
	return all
}

func loadScenario(t *testing.T, file string) *scenario {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{name: strings.TrimSuffix(filepath.Base(file), ".jsonl")}
	s.gaps = leftOut[number2(s.name)]
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, 4<<20)
	for sc.Scan() {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if l.Dir == "note" || l.Event == "upgrade" || l.Event == "wait-timeout" {
			continue
		}
		s.lines = append(s.lines, l)
	}
	if err := sc.Err(); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	s.nameConnections()
	s.findKeys()
	s.findBase()
	s.fill(t)
	return s
}

func (s *scenario) nameConnections() {
	count := map[string]int{}
	for i := range s.lines {
		l := &s.lines[i]
		if l.Event == "open" || l.Event == "error" {
			count[l.Conn]++
		}
		l.Conn += "#" + string(rune('0'+count[l.Conn]/10)) + string(rune('0'+count[l.Conn]%10))
	}
}

var hexKey = regexp.MustCompile(`^[0-9a-f]{64}$`)

// findKeys collects what stands where a public key stands; fingerprints look alike and are none.
func (s *scenario) findKeys() {
	for _, l := range s.lines {
		if l.Dir != "send" || l.Frame.Kind() != '{' {
			continue
		}
		f := object(l.Frame)
		for _, field := range []string{"pubkey", "sessionPubkey", "parentMemberPubkey", "targetSpec"} {
			k, _ := f[field].(string)
			if k = strings.ToLower(k); hexKey.MatchString(k) && !slices.Contains(s.keys, k) {
				s.keys = append(s.keys, k)
			}
		}
		if a, ok := f["parentAttestation"].(map[string]any); ok {
			if k, _ := a["sessionPubkey"].(string); hexKey.MatchString(k) && !slices.Contains(s.keys, k) {
				s.keys = append(s.keys, k)
			}
		}
	}
	for _, k := range s.gaps.otherKeys {
		if !slices.Contains(s.keys, k) {
			s.keys = append(s.keys, k)
		}
	}
}

// findBase takes the median over all hellos of what a clock must have shown at t=0: some of their timestamps lie on purpose.
func (s *scenario) findBase() {
	var at []int64
	for _, l := range s.lines {
		if l.Dir == "send" && l.Frame.Kind() == '{' {
			if ts, ok := object(l.Frame)["timestamp"].(float64); ok {
				at = append(at, int64(ts)-l.T)
			}
		}
	}
	slices.Sort(at)
	if len(at) > 0 {
		s.base = at[len(at)/2]
	}
}

func object(v jsontext.Value) map[string]any {
	var m map[string]any
	if err := json.Unmarshal(v, &m); err != nil {
		return nil
	}
	return m
}

// seed is the mesh that the recorded broker must have had: whoever was let in, who was revoked, and whom the table names.
func (s *scenario) seed(gen map[string]testKey) Seed {
	m := SeedMesh{Slug: s.gaps.slug}
	if m.Slug == "" {
		m.Slug = "recorded"
	}
	names := map[string]string{} // by recorded key
	ids := map[string]string{}
	asked := map[string]map[string]any{} // by connection: its last hello
	for _, l := range s.lines {
		f := object(l.Frame)
		switch {
		case f == nil:
		case l.Dir == "send" && (f["type"] == "hello" || f["type"] == "session_hello"):
			asked[l.Conn] = f
		case l.Dir == "recv" && f["type"] == "hello_ack" && asked[l.Conn] != nil:
			h := asked[l.Conn]
			m.MeshID, _ = h["meshId"].(string)
			key, _ := h["pubkey"].(string)
			if h["type"] == "session_hello" || ids[key] != "" {
				continue
			}
			ids[key], _ = h["memberId"].(string)
			names[key] = s.gaps.names[key]
			if h["displayName"] == nil {
				names[key], _ = f["memberDisplayName"].(string)
			}
		}
	}
	for _, p := range s.gaps.members {
		ids[p.key], names[p.key] = p.id, p.name
	}
	for _, k := range s.keys {
		if ids[k] == "" {
			continue
		}
		role := "member"
		if len(m.Members) == 0 { // the first to connect administers the recorded meshes
			role = "admin"
		}
		m.Members = append(m.Members, SeedMember{
			MemberID: ids[k], DisplayName: names[k], PublicKey: gen[k].pub, Role: role, Revoked: slices.Contains(s.gaps.revoked, k),
		})
	}
	return Seed{Meshes: []SeedMesh{m}}
}
