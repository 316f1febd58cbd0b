package fleet

import "strings"

// nearest returns the candidate with the fewest edits to s, the first of equals,
// where a candidate of which s is a part counts as one edit away. It is empty
// where there are no candidates.
func nearest(s string, candidates []string) string {
	best, least := "", -1
	for _, c := range candidates {
		d := distance(strings.ToLower(s), c)
		if len(s) > 2 && strings.Contains(c, strings.ToLower(s)) {
			d = min(d, 1)
		}
		if least < 0 || d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the edits from a to b: a character put in, left out or
// replaced, or two neighbours swapped.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 {
		x = x[:64]
	}
	older, old, cur := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(x); i++ {
		cur[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			cur[j] = min(old[j]+1, cur[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				cur[j] = min(cur[j], older[j-2]+1)
			}
		}
		older, old, cur = old, cur, older
	}
	return old[len(y)]
}
