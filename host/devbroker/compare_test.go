package devbroker

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// names pairs ids and keys of the recording with those of this run, one to one.
type names struct {
	ours   map[string]string // recorded -> ours
	theirs map[string]string // ours -> recorded
}

func newNames() *names { return &names{ours: map[string]string{}, theirs: map[string]string{}} }

func (n *names) clone() *names {
	c := newNames()
	for k, v := range n.ours {
		c.know(k, v)
	}
	return c
}

func (n *names) know(recorded, ours string) { n.ours[recorded], n.theirs[ours] = ours, recorded }

var (
	brokerID = regexp.MustCompile(`^[0-9A-Za-z]{32}$`)
	uuidID   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// idClass is "" for what is no id; ids pair within their class only.
func idClass(s string) string {
	switch {
	case hexKey.MatchString(s):
		return "key"
	case brokerID.MatchString(s):
		return "id"
	case uuidID.MatchString(s):
		return "uuid"
	}
	return ""
}

// rewrite translates every string of a frame that is a known id or key, one in upper case, "#" and an id, or a prefix of
// one that is long enough to be meant.
func (n *names) rewrite(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = n.rewrite(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = n.rewrite(e)
		}
		return out
	case string:
		return n.rewriteText(v)
	}
	return v
}

var shortID = regexp.MustCompile(`^[0-9A-Za-z]{8,31}$`)

func (n *names) rewriteText(s string) string {
	if ours, ok := n.ours[s]; ok {
		return ours
	}
	if ours, ok := n.ours[strings.ToLower(s)]; ok && strings.ToUpper(s) == s {
		return strings.ToUpper(ours)
	}
	if id, ok := strings.CutPrefix(s, "#"); ok {
		return "#" + n.rewriteText(id)
	}
	if shortID.MatchString(s) {
		for recorded, ours := range n.ours {
			if strings.HasPrefix(recorded, s) && idClass(recorded) != "" && idClass(recorded) != "uuid" {
				return ours[:len(s)]
			}
		}
	}
	return s
}

// knowAll pairs what a client wrote itself: its ids, and the strings that were translated.
func (n *names) knowAll(recorded, ours any) {
	switch r := recorded.(type) {
	case map[string]any:
		for k, e := range r {
			n.knowAll(e, ours.(map[string]any)[k])
		}
	case []any:
		for i, e := range r {
			n.knowAll(e, ours.([]any)[i])
		}
	case string:
		if o, ok := ours.(string); ok && (r != o || idClass(r) != "") {
			n.know(r, o)
		}
	}
}

// differences compares a recording with what was heard: frame by frame, in order per connection.
func (p *playback) differences(recorded []line) (diff []string) {
	n := p.names.clone()
	next := map[string]int{}
	for _, r := range recorded {
		if !r.observed() {
			continue
		}
		i := next[r.Conn]
		next[r.Conn]++
		h := p.heard[r.Conn]
		if h == nil || i >= len(h.list) {
			diff = append(diff, fmt.Sprintf("t=%d %s: missing: %s", r.T, r.Conn, r))
			continue
		}
		if why := n.compare(r, h.list[i]); why != "" {
			diff = append(diff, fmt.Sprintf("t=%d %s [%d]: %s\n  recorded %s\n  ours     %s", r.T, r.Conn, i, why, r, h.list[i]))
		}
	}
	for name, h := range p.heard {
		for _, l := range h.list[min(next[name], len(h.list)):] {
			diff = append(diff, fmt.Sprintf("%s: not recorded: %s", name, l))
		}
	}
	return diff
}

// untimely lists what came at another moment than recorded, such as a ping or a peer_left: virtual time has no latency, the
// recorded broker answered within a quarter of a second.
func (p *playback) untimely(recorded []line) (diff []string) {
	next := map[string]int{}
	for _, r := range recorded {
		if h := p.heard[r.Conn]; r.observed() && h != nil && next[r.Conn] < len(h.list) {
			o := h.list[next[r.Conn]]
			next[r.Conn]++
			if o.T > r.T+5 || o.T < r.T-250 {
				diff = append(diff, fmt.Sprintf("%s: came at t=%d, recorded at t=%d: %s", r.Conn, o.T, r.T, r))
			}
		}
	}
	return diff
}

func (l line) String() string {
	s := fmt.Sprintf("%s%s %d %q %s", l.Event, l.Label, l.Code, l.Reason, l.Frame)
	return s[:min(len(s), 1200)]
}

// compare tells how our line differs from the recorded one, "" if it does not.
func (n *names) compare(r, o line) string {
	switch {
	case (r.Event == "close") != (o.Event == "close"):
		return "one is a close"
	case r.Event == "close":
		if r.Code != o.Code || r.Reason != o.Reason {
			return "code or reason"
		}
		return ""
	case (r.Data == nil) != (o.Data == nil):
		return "one is a control frame"
	case r.Data != nil:
		if r.Label != o.Label || *r.Data != *o.Data {
			return "control frame"
		}
		return ""
	}
	var rv, ov any
	if json.Unmarshal(r.Frame, &rv) != nil || json.Unmarshal(o.Frame, &ov) != nil {
		return "not JSON"
	}
	return n.value("", rv, ov)
}

// volatile are the fields whose value is a time. Ciphertext passes the broker as it came, so it is compared like any text.
var volatile = []string{"createdAt", "connectedAt", "lastSeenAt", "deliveredAt", "updatedAt", "joinedAt", "lastReadAt", "revokedAt"}

func (n *names) value(path string, r, o any) string {
	switch r := r.(type) {
	case map[string]any:
		m, ok := o.(map[string]any)
		if !ok {
			return path + ": no object"
		}
		for k := range m {
			if _, ok := r[k]; !ok {
				return path + "." + k + ": not recorded"
			}
		}
		for k, e := range r {
			f, ok := m[k]
			if !ok {
				return path + "." + k + ": missing"
			}
			if why := n.value(path+"."+k, e, f); why != "" {
				return why
			}
		}
		return ""
	case []any:
		a, ok := o.([]any)
		if !ok || len(a) != len(r) {
			return path + ": other length"
		}
		for i := range r {
			if why := n.value(fmt.Sprintf("%s[%d]", path, i), r[i], a[i]); why != "" {
				return why
			}
		}
		return ""
	case string:
		s, ok := o.(string)
		if !ok {
			return path + ": no string"
		}
		return n.text(path, r, s)
	}
	if r != o {
		return fmt.Sprintf("%s: %v, recorded %v", path, o, r)
	}
	return ""
}

func (n *names) text(path, r, o string) string {
	field := path[strings.LastIndex(path, ".")+1:]
	if slices.Contains(volatile, field) && isoTime.MatchString(r) {
		if !isoTime.MatchString(o) {
			return path + ": no time"
		}
		return ""
	}
	if want, ok := n.ours[r]; ok {
		if want != o {
			return fmt.Sprintf("%s: %.80q, recorded %.80q is %.80q here", path, o, r, want)
		}
		return ""
	}
	if class := idClass(r); class != "" {
		if _, taken := n.theirs[o]; taken || idClass(o) != class {
			return fmt.Sprintf("%s: %q already stands for another id, or is none", path, o)
		}
		n.know(r, o)
		return ""
	}
	if r != o {
		return fmt.Sprintf("%s: %.80q, recorded %.80q", path, o, r)
	}
	return ""
}
