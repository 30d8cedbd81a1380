package roster

import (
	"context"
	"strings"
	"time"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

const (
	// minPrefix is the shortest hex prefix that stands for a key.
	minPrefix = 8
	// A resolved name is taken again for resolvedFor, so that a thousand sends to one peer search the directory once; at most
	// resolvedMax are kept.
	resolvedFor = time.Second
	resolvedMax = 1024
)

// TargetKind says what a [Target] is.
type TargetKind string

// The kinds of a target (PROTOCOL 4.3).
const (
	TargetDirect    TargetKind = "direct"
	TargetGroup     TargetKind = "group"
	TargetBroadcast TargetKind = "broadcast"
	TargetTopic     TargetKind = "topic"
)

// Where a target was found.
const (
	FromLive      = "live"      // in a list younger than 30 s
	FromDirectory = "directory" // seen before; not in the list, or there is no list
	FromVerbatim  = "verbatim"  // as written
)

// Target is what a message is sent to.
type Target struct {
	Spec string // targetSpec for the wire: the key, or as written
	Key  string // the key to seal for, 64 hex digits; empty unless direct
	Kind TargetKind
	Name string // display name of a direct target; empty if unknown
	From string
}

// row is one key that a name or prefix may stand for.
type row struct {
	key, member, name, role string
	online                  bool
}

// Resolve turns what a person typed into a target. "*", "@all", "@group" and "#topic" stay as written, and so do 64 hex digits,
// known or not; anything else is a display name, case aside, or a hex prefix of 8 digits or more, of one peer in the live list
// and the directory. Errors: [*AmbiguousError], [*NotFoundError], [*OwnKeyError].
func (r *Roster) Resolve(ctx context.Context, mesh, to string) (Target, error) {
	to = strings.TrimSpace(to)
	switch {
	case to == "*" || to == "@all":
		return Target{Spec: to, Kind: TargetBroadcast, From: FromVerbatim}, nil
	case strings.HasPrefix(to, "@") && len(to) > 1:
		return Target{Spec: to, Kind: TargetGroup, From: FromVerbatim}, nil
	case strings.HasPrefix(to, "#") && len(to) > 1:
		return Target{Spec: to, Kind: TargetTopic, From: FromVerbatim}, nil
	}
	if key := strings.ToLower(to); len(key) == 64 && isHex(key) {
		return r.key(mesh, key)
	}
	if t, ok := r.recall(mesh, to); ok {
		return t, nil
	}
	t, err := r.search(ctx, mesh, to)
	if err == nil {
		r.remember(mesh, to, t)
	}
	return t, err
}

// key is a target given in full.
func (r *Roster) key(mesh, key string) (Target, error) {
	if r.opts.Own.IsOwn(mesh, key) {
		return Target{}, &OwnKeyError{Mesh: mesh, To: key}
	}
	t := Target{Spec: key, Key: key, Kind: TargetDirect, From: FromVerbatim}
	if p, ok := r.book.get(mesh, key); ok {
		t.Name, t.From = p.Name, FromDirectory
	}
	rows, at := r.Live(mesh)
	if time.Since(at) < freshList {
		for i := range rows {
			if rows[i].PubKey == key {
				t.Name, t.From = rows[i].DisplayName, FromLive
			}
		}
	}
	return t, nil
}

// search looks a name or prefix up.
func (r *Roster) search(ctx context.Context, mesh, to string) (Target, error) {
	live, listed := r.live(ctx, mesh)
	if err := ctx.Err(); err != nil {
		return Target{}, err
	}
	prefix := strings.ToLower(to)
	if !isPrefix(prefix) {
		prefix = ""
	}
	rows, ourselves := r.rows(mesh, live, func(w *row) bool { return sameName(w.name, to) || begins(w.key, prefix) || begins(w.member, prefix) })
	named := byName(rows, to)
	prefixed := r.byPrefix(mesh, rows, prefix)
	switch {
	case len(named) == 0 && len(prefixed) == 0 && (ourselves || begins(r.opts.Own.MemberKey(mesh), prefix)):
		return Target{}, &OwnKeyError{Mesh: mesh, To: to}
	case len(named) == 0 && len(prefixed) == 0:
		all, _ := r.rows(mesh, live, func(*row) bool { return true })
		return Target{}, &NotFoundError{Mesh: mesh, To: to, Suggestions: suggest(all, to), Listed: listed}
	case len(named) == 0 && len(prefixed) == 1:
		return target(prefixed[0]), nil
	case len(named) == 0:
		return Target{}, ambiguous(mesh, to, prefixed)
	}
	one, ok := r.oneOf(mesh, named)
	for _, p := range prefixed { // somebody may have taken another's prefix for a name
		ok = ok && p.owner() == one.owner()
	}
	if !ok {
		return Target{}, ambiguous(mesh, to, append(named, prefixed...))
	}
	return target(one), nil
}

func target(w row) Target {
	t := Target{Spec: w.key, Key: w.key, Kind: TargetDirect, Name: w.name, From: FromDirectory}
	if w.online {
		t.From = FromLive
	}
	return t
}

// rows joins those of the live list and of the directory that match, the live ones first, without this host's own; ourselves
// is true if one of those matched.
func (r *Roster) rows(mesh string, live []sdk.Peer, match func(*row) bool) (rows []row, ourselves bool) {
	seen := make(map[string]bool)
	add := func(w row) {
		switch {
		case r.opts.Own.IsOwn(mesh, w.key):
			ourselves = true
		case seen[w.key] && !w.online: // known better from the list
		default:
			seen[w.key] = true
			rows = append(rows, w)
		}
	}
	for i := range live {
		p := &live[i]
		w := row{key: p.PubKey, member: p.MemberPubKey, name: p.DisplayName, role: p.Role, online: true}
		if _, err := identity.ParsePublicKey(w.key); err == nil && match(&w) {
			add(w)
		}
	}
	for _, p := range r.book.find(mesh, match) {
		add(row{key: p.Key, member: p.MemberKey, name: p.Name, role: p.Role})
	}
	return rows, ourselves
}

// sameName reports whether a peer is called b. A peer without a name is called nothing, not "".
func sameName(a, b string) bool { return b != "" && strings.EqualFold(strings.TrimSpace(a), b) }

// byName returns the rows with a name. Keys that were only ever announced, so that nobody knows whose they are, count if no
// other row has it: they are mostly past sessions of a peer that is listed under the same name.
func byName(rows []row, name string) []row {
	var known, announced []row
	for _, w := range rows {
		switch {
		case !sameName(w.name, name):
		case w.member == "" && !w.online:
			announced = append(announced, w)
		default:
			known = append(known, w)
		}
	}
	if len(known) == 0 {
		return announced
	}
	return known
}

// byPrefix returns one row for each key, of a peer or of a member, that begins with prefix.
func (r *Roster) byPrefix(mesh string, rows []row, prefix string) []row {
	var out []row
	seen := make(map[string]bool)
	for _, w := range rows {
		if begins(w.key, prefix) && !seen[w.key] {
			seen[w.key] = true
			out = append(out, w)
		}
	}
	for _, w := range rows {
		if begins(w.member, prefix) && !seen[w.member] && !r.opts.Own.IsOwn(mesh, w.member) {
			seen[w.member] = true
			out = append(out, row{key: w.member, member: w.member, name: w.name, online: w.online})
		}
	}
	return out
}

// begins reports whether key has a prefix; the empty one stands for none.
func begins(key, prefix string) bool { return prefix != "" && strings.HasPrefix(key, prefix) }

// oneOf picks the row to send to when all rows of a name are one member's: its only session that is there; else, with
// several or none, the member, whose message any of its connections may take (PROTOCOL 4.3).
func (r *Roster) oneOf(mesh string, rows []row) (row, bool) {
	first := rows[0]
	keys := make(map[string]bool)
	sessions := make(map[string]row) // there, by key: a member key can have several rows
	online := false
	for _, w := range rows {
		if w.owner() != first.owner() {
			return row{}, false
		}
		keys[w.key] = true
		online = online || w.online
		if w.online && w.role != sdk.RoleControlPlane {
			sessions[w.key] = w
		}
	}
	if len(sessions) == 1 {
		for _, w := range sessions {
			return w, true
		}
	}
	member := first.owner()
	if r.opts.Own.IsOwn(mesh, member) {
		// Another machine's sessions of our own member: no key stands for all of them but our own.
		return first, len(keys) == 1
	}
	return row{key: member, member: member, name: first.name, online: online}, true
}

// owner is the member that a row is of, or its key while nobody knows.
func (w row) owner() string {
	if w.member == "" {
		return w.key
	}
	return w.member
}

func isPrefix(s string) bool { return len(s) >= minPrefix && len(s) < 64 && isHex(s) }

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// resolved is a name that was looked up.
type resolved struct {
	target Target
	until  time.Time
}

func (r *Roster) recall(mesh, to string) (Target, bool) {
	r.mu.Lock()
	res, ok := r.resolved[peerKey{mesh, to}]
	r.mu.Unlock()
	if !ok || time.Now().After(res.until) || r.opts.Own.IsOwn(mesh, res.target.Key) {
		return Target{}, false
	}
	return res.target, true
}

func (r *Roster) remember(mesh, to string, t Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.resolved) >= resolvedMax {
		clear(r.resolved)
	}
	r.resolved[peerKey{mesh, to}] = resolved{target: t, until: time.Now().Add(resolvedFor)}
}
