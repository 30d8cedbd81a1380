package config

import (
	"fmt"
	"strings"
)

// meant is the next step for a name that nothing has: a suggestion if one of the known names is close, else otherwise.
func meant(given string, known []string, otherwise string) string {
	if s := suggest(given, known); s != "" {
		return fmt.Sprintf("Did you mean %q?", s)
	}
	return otherwise
}

// suggest returns the known name closest to given, or "" when none is close. One letter off comes first, then a name that
// has the given one in it or the other way round, then a name of which at most a third differs.
func suggest(given string, known []string) string {
	given = strings.ToLower(given)
	best, off := "", maxName
	for _, k := range known {
		if d := distance(given, strings.ToLower(k)); d < off {
			best, off = k, d
		}
	}
	if off <= 1 && len(given) > 1 {
		return best
	}
	for _, k := range known {
		l := strings.ToLower(k)
		if len(given) >= 3 && strings.Contains(l, given) || len(l) >= 3 && strings.Contains(given, l) {
			return k
		}
	}
	limit := len([]rune(given)) / 3
	if len(given) == 5 {
		limit = 2
	}
	if off <= limit {
		return best
	}
	return ""
}

// maxName bounds what is compared; the cost is the product of two lengths.
const maxName = 64

// distance counts the letters to insert, delete, replace or swap with the next.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > maxName || len(y) > maxName {
		return len(x) + len(y)
	}
	prev2, prev, cur := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		cur[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(y)]
}
