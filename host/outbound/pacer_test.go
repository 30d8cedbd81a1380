package outbound

import (
	"strings"
	"testing"
	"time"
)

// A lane with a long backlog leaves the others of its member their turn, and one
// that has nothing more costs them little.
func TestLanesOfOneMemberTakeTurns(t *testing.T) {
	p := &Pacer{}
	begin := time.Unix(0, 0)
	p.Limited(begin, 60)
	p.Wait("gone", begin) // and comes no more
	left := map[string]int{"a": 30, "b": 5, "c": 5}
	ask := map[string]time.Time{"a": begin, "b": begin, "c": begin}
	var sent []string
	var last time.Time
	now := begin
	for len(left) > 0 {
		for _, lane := range []string{"a", "b", "c"} { // a is always the quickest
			if left[lane] == 0 || now.Before(ask[lane]) {
				continue
			}
			if d := p.Wait(lane, now); d > 0 {
				ask[lane] = now.Add(d)
				continue
			}
			if !last.IsZero() && now.Sub(last) < time.Second {
				t.Fatalf("%s sends %s after the one before", lane, now.Sub(last))
			}
			last = now
			sent = append(sent, lane)
			if left[lane]--; left[lane] == 0 {
				delete(left, lane)
			}
		}
		now = now.Add(10 * time.Millisecond)
	}
	if got := strings.Join(sent[:15], ""); strings.Count(got, "a") > 6 || strings.Count(got, "b") != 5 || strings.Count(got, "c") != 5 {
		t.Errorf("the first fifteen: %s", got)
	}
	if took := last.Sub(begin); took > 45*time.Second {
		t.Errorf("40 sends took %s", took)
	}
}
