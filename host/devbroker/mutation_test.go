package devbroker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json"
)

// TestTranscriptMutations shows that the comparison of TestTranscript catches a broker that behaves otherwise. Each
// scenario is played once; then the recording is changed 500 times by one thing that is compared, and the changed recording
// is held against what the broker had really said. It is the comparer that is tested, which is the same code in both tests.
func TestTranscriptMutations(t *testing.T) {
	const total = 500
	type played struct {
		s   *scenario
		out playback
	}
	var all []played
	for _, s := range loadScenarios(t) {
		if !slices.Contains(due, number2(s.name)) {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			out := play(t, s)
			if diff := out.differences(s.lines); len(diff) > 0 { // or every mutation would count as caught
				t.Fatalf("%s differs before anything is changed:\n%s", s.name, strings.Join(diff, "\n"))
			}
			all = append(all, played{s, out})
		})
	}
	rng := rand.New(rand.NewPCG(20261122, 5)) // the same mutations every time
	caught, kinds := 0, map[string]int{}
	for n := 0; n < total; {
		p := all[rng.IntN(len(all))]
		kind := mutations[n%len(mutations)]
		mutant, what := kind.change(rng, p.s.lines)
		if mutant == nil {
			continue // the scenario has nothing of that kind: draw again
		}
		n++
		kinds[kind.name]++
		if len(p.out.differences(mutant)) > 0 {
			caught++
		} else {
			t.Logf("not caught: %s: %s: %s", p.s.name, kind.name, what)
		}
	}
	fmt.Printf("RESULT transcript_mutations total=%d caught=%d rate=%.3f\n", total, caught, float64(caught)/total)
	t.Logf("by kind: %v", kinds)
	if caught*100 < total*99 {
		t.Errorf("%d of %d mutations caught; at least 99 %% must be", caught, total)
	}
}

// mutation changes one thing of what is compared. It returns nil if these lines have no place for it.
type mutation struct {
	name   string
	change func(rng *rand.Rand, lines []line) (mutant []line, what string)
}

var mutations = []mutation{
	{"drop a field", dropField},
	{"change a value", changeValue},
	{"change an id", changeID},
	{"drop a frame", dropFrame},
	{"add a frame", addFrame},
	{"swap neighbours", swapNeighbours},
}

func observedIndexes(lines []line) (out []int) {
	for i, l := range lines {
		if l.observed() {
			out = append(out, i)
		}
	}
	return out
}

// spot is one value inside a frame that can be changed or dropped.
type spot struct {
	path string
	get  any
	set  func(v any)
	drop func() // nil for an element of an array
}

// spots lists the values of a decoded frame, in a stable order.
func spots(path string, v any) (out []spot) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, spot{path + "." + k, v[k], func(n any) { v[k] = n }, func() { delete(v, k) }})
			out = append(out, spots(path+"."+k, v[k])...)
		}
	case []any:
		for i := range v {
			out = append(out, spot{fmt.Sprintf("%s[%d]", path, i), v[i], func(n any) { v[i] = n }, nil})
			out = append(out, spots(fmt.Sprintf("%s[%d]", path, i), v[i])...)
		}
	}
	return out
}

// inFrame picks a spot that ok takes, in any frame, and applies change to it.
func inFrame(rng *rand.Rand, lines []line, ok func(s spot) bool, change func(s spot)) ([]line, string) {
	at := observedIndexes(lines)
	rng.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
	for _, i := range at {
		frame := object(lines[i].Frame)
		places := slices.DeleteFunc(spots("", frame), func(s spot) bool { return !ok(s) })
		if frame == nil || len(places) == 0 {
			continue
		}
		place := places[rng.IntN(len(places))]
		change(place)
		raw, err := json.Marshal(frame)
		if err != nil {
			return nil, ""
		}
		out := slices.Clone(lines)
		out[i].Frame = raw
		return out, fmt.Sprintf("t=%d %s %s", lines[i].T, lines[i].Conn, place.path)
	}
	return nil, ""
}

func dropField(rng *rand.Rand, lines []line) ([]line, string) {
	return inFrame(rng, lines, func(s spot) bool { return s.drop != nil }, func(s spot) { s.drop() })
}

// isVolatile is a time or ciphertext; neither is mutated.
func isVolatile(path string, v any) bool {
	s, _ := v.(string)
	return isoTime.MatchString(s) || path[max(0, len(path)-11):] == ".ciphertext"
}

// changeValue changes a leaf that is no id, or the code, reason or payload of a close or control frame.
func changeValue(rng *rand.Rand, lines []line) ([]line, string) {
	if rng.IntN(6) == 0 {
		at := slices.DeleteFunc(observedIndexes(lines), func(i int) bool { return lines[i].Frame != nil })
		if len(at) > 0 {
			i := at[rng.IntN(len(at))]
			out := slices.Clone(lines)
			switch l := &out[i]; {
			case l.Data != nil:
				l.Data = new(*l.Data + "x")
			case rng.IntN(2) == 0:
				l.Code++
			default:
				l.Reason += "x"
			}
			return out, fmt.Sprintf("t=%d %s close or control frame", lines[i].T, lines[i].Conn)
		}
	}
	ok := func(s spot) bool {
		if isVolatile(s.path, s.get) {
			return false
		}
		switch v := s.get.(type) {
		case map[string]any, []any:
			return false
		case string:
			return idClass(v) == ""
		}
		return true
	}
	return inFrame(rng, lines, ok, func(s spot) {
		switch v := s.get.(type) {
		case string:
			s.set(v + "x")
		case float64:
			s.set(v + 1)
		case bool:
			s.set(!v)
		default:
			s.set("x")
		}
	})
}

// changeID puts another id or key of the scenario, of the same shape, in the place of one.
func changeID(rng *rand.Rand, lines []line) ([]line, string) {
	known := map[string]map[string]bool{"id": {}, "uuid": {}, "key": {}}
	for _, l := range lines {
		for _, s := range spots("", object(l.Frame)) {
			if v, ok := s.get.(string); ok && idClass(v) != "" {
				known[idClass(v)][v] = true
			}
		}
	}
	ok := func(s spot) bool {
		v, is := s.get.(string)
		return is && idClass(v) != "" && len(known[idClass(v)]) > 1 && !isVolatile(s.path, v)
	}
	return inFrame(rng, lines, ok, func(s spot) {
		others := slices.Sorted(maps.Keys(known[idClass(s.get.(string))]))
		others = slices.DeleteFunc(others, func(v string) bool { return v == s.get })
		s.set(others[rng.IntN(len(others))])
	})
}

func dropFrame(rng *rand.Rand, lines []line) ([]line, string) {
	at := observedIndexes(lines)
	i := at[rng.IntN(len(at))]
	return slices.Delete(slices.Clone(lines), i, i+1), fmt.Sprintf("t=%d %s", lines[i].T, lines[i].Conn)
}

// addFrame says something twice, at another place.
func addFrame(rng *rand.Rand, lines []line) ([]line, string) {
	at := observedIndexes(lines)
	from, to := at[rng.IntN(len(at))], at[rng.IntN(len(at))]
	extra := lines[from]
	extra.Conn = lines[to].Conn
	return slices.Insert(slices.Clone(lines), to, extra), fmt.Sprintf("copy of t=%d at t=%d %s", lines[from].T, lines[to].T, extra.Conn)
}

// swapNeighbours swaps two lines of one connection that differ in more than times and ids which appear nowhere else.
func swapNeighbours(rng *rand.Rand, lines []line) ([]line, string) {
	seen := appearances(lines)
	type pair struct{ a, b int }
	var pairs []pair
	last := map[string]int{}
	for _, i := range observedIndexes(lines) {
		if j, ok := last[lines[i].Conn]; ok && !reflect.DeepEqual(blank(lines[i], seen), blank(lines[j], seen)) {
			pairs = append(pairs, pair{j, i})
		}
		last[lines[i].Conn] = i
	}
	if len(pairs) == 0 {
		return nil, ""
	}
	p := pairs[rng.IntN(len(pairs))]
	out := slices.Clone(lines)
	out[p.a], out[p.b] = out[p.b], out[p.a]
	return out, fmt.Sprintf("t=%d and t=%d %s", lines[p.a].T, lines[p.b].T, lines[p.a].Conn)
}

// appearances counts in how many lines each id and key stands.
func appearances(lines []line) map[string]int {
	count := map[string]int{}
	for _, l := range lines {
		ids := map[string]bool{}
		for _, s := range spots("", object(l.Frame)) {
			if v, ok := s.get.(string); ok && idClass(v) != "" {
				ids[v] = true
			}
		}
		for id := range ids {
			count[id]++
		}
	}
	return count
}

// blank is a line without times and without ids that appear nowhere else: any such id can stand for any other.
func blank(l line, seen map[string]int) any {
	frame := object(l.Frame)
	for _, s := range spots("", frame) {
		if v, ok := s.get.(string); ok && (idClass(v) != "" && seen[v] < 2 || isVolatile(s.path, v)) {
			s.set("")
		}
	}
	data := ""
	if l.Data != nil {
		data = *l.Data
	}
	return []any{l.Event, l.Code, l.Reason, data, frame}
}
