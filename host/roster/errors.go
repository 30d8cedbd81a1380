package roster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

const (
	maxCandidates  = 20 // in an AmbiguousError
	maxSuggestions = 3
)

// Candidate is one peer that a name may have meant.
type Candidate struct {
	Name      string `json:"name"`
	Key       string `json:"pubkey"`
	MemberKey string `json:"member_pubkey,omitzero"`
	Role      string `json:"role,omitzero"` // empty: only announced, never listed
	Online    bool   `json:"online"`
}

// AmbiguousError says that several peers have the name or prefix. It is [sdk.ErrConflict] to errors.Is.
type AmbiguousError struct {
	Mesh, To   string
	Candidates []Candidate // who is there first; at most 20
}

// Error names the candidates by key.
func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q is %d peers of mesh %q:", e.To, len(e.Candidates), e.Mesh)
	for i, c := range e.Candidates {
		if i > 0 {
			b.WriteByte(',')
		}
		state := "offline"
		if c.Online {
			state = "online"
		}
		fmt.Fprintf(&b, " %s %s (%s)", c.Name, c.Key[:min(16, len(c.Key))], state)
	}
	return b.String()
}

// Unwrap is [sdk.ErrConflict].
func (e *AmbiguousError) Unwrap() error { return sdk.ErrConflict }

func ambiguous(mesh, to string, rows []row) error {
	e := &AmbiguousError{Mesh: mesh, To: to}
	seen := make(map[string]bool)
	for _, w := range rows {
		if !seen[w.key] {
			seen[w.key] = true
			e.Candidates = append(e.Candidates, Candidate{Name: w.name, Key: w.key, MemberKey: w.member, Role: w.role, Online: w.online})
		}
	}
	slices.SortStableFunc(e.Candidates, func(a, b Candidate) int {
		if a.Online != b.Online {
			if a.Online {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	e.Candidates = e.Candidates[:min(len(e.Candidates), maxCandidates)]
	return e
}

// NotFoundError says that nobody has the name or prefix. It is [sdk.ErrNotFound] to errors.Is.
type NotFoundError struct {
	Mesh, To    string
	Suggestions []string // names that look like it, the nearest first
	// Listed is false when the broker could not be asked, so that the directory alone was searched.
	Listed bool
}

// Error says who was looked for and what comes near.
func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("no peer %q in mesh %q", e.To, e.Mesh)
	if !e.Listed {
		s += " is known, and its broker can't be asked now"
	}
	if len(e.Suggestions) > 0 {
		s += fmt.Sprintf("; did you mean %q?", e.Suggestions[0])
	}
	return s
}

// Unwrap is [sdk.ErrNotFound].
func (e *NotFoundError) Unwrap() error { return sdk.ErrNotFound }

// OwnKeyError says that the only match is a key of this host, which is never a target: the broker refuses it (PROTOCOL 4.4).
// It is [sdk.ErrInvalid] to errors.Is.
type OwnKeyError struct{ Mesh, To string }

// Error says that it is this host itself.
func (e *OwnKeyError) Error() string {
	return fmt.Sprintf("%q is this host itself in mesh %q; a message goes to another peer", e.To, e.Mesh)
}

// Unwrap is [sdk.ErrInvalid].
func (e *OwnKeyError) Unwrap() error { return sdk.ErrInvalid }

// suggest returns names near to what was typed: a few letters wrong, or the beginning of a name.
func suggest(rows []row, to string) []string {
	type near struct {
		name string
		cost int
	}
	var found []near
	seen := make(map[string]bool)
	want := []rune(strings.ToLower(to))
	if len(want) > 64 {
		return nil
	}
	for _, w := range rows {
		name := strings.ToLower(w.name)
		if name == "" || len(name) > 256 || seen[name] {
			continue
		}
		seen[name] = true
		cost := distance(want, []rune(name))
		if strings.HasPrefix(name, string(want)) {
			cost = min(cost, 1)
		}
		if cost <= max(1, len(want)/3) {
			found = append(found, near{w.name, cost})
		}
	}
	slices.SortFunc(found, func(a, b near) int { return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.name, b.name)) })
	var names []string
	for _, n := range found[:min(len(found), maxSuggestions)] {
		names = append(names, n.name)
	}
	return names
}

// distance is how many letters must be added, dropped or changed to make b of a.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
