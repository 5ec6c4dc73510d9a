// Package near finds the names that somebody may have meant who wrote another one.
package near

import (
	"cmp"
	"slices"
	"strings"
)

// Names returns those of the candidates that are near to name, the nearest first, three
// at most.
func Names(name string, candidates []string) []string {
	type guess struct {
		name     string
		distance int
	}
	var guesses []guess
	for _, c := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(c))
		// Of a short name another one is never far: half of it has to be right.
		limit := min(3, max(len(name), len(c))/2)
		if d > limit && !(len(name) >= 3 && strings.Contains(strings.ToLower(c), strings.ToLower(name))) {
			continue
		}
		guesses = append(guesses, guess{c, d})
	}
	slices.SortFunc(guesses, func(a, b guess) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	guesses = slices.Compact(guesses)
	var names []string
	for _, g := range guesses[:min(len(guesses), 3)] {
		names = append(names, g.name)
	}
	return names
}

// Hint is the end of an error message: "; did you mean a or b?", or nothing.
func Hint(name string, candidates []string) string {
	names := Names(name, candidates)
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(names, " or ") + "?"
}

// distance is how many letters have to be put in, left out, changed or swapped with
// the next one.
func distance(a, b string) int {
	const far = 64 // names in BTF are longer than what anybody types wrong
	if len(a) > far || len(b) > far {
		return far
	}
	var rows [3][far + 1]int
	before, last, row := rows[0][:], rows[1][:], rows[2][:]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
