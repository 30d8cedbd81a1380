package main

// nearest returns the word that typed was probably meant to be; empty if none
// is near.
func nearest(typed string, words []string) string {
	best, bestAt := "", max(1, len(typed)/3)+1
	for _, w := range words {
		if d := distance(typed, w); d < bestAt {
			best, bestAt = w, d
		}
	}
	return best
}

// didYouMean is the sentence for it, with a leading space, or nothing.
func didYouMean(typed string, words []string) string {
	if w := nearest(typed, words); w != "" {
		return ` Did you mean "` + w + `"?`
	}
	return ""
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
