// Package wording is what reports of all formats say in the same words: the verdict, what
// was missed, and how processes, numbers and files are called.
package wording

import (
	"fmt"
	"slices"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/session"
)

// Verdict is the result in one line.
func Verdict(r *leak.Report) string {
	a := r.Account()
	what, left := Found(a.Counted).String(), leftOut(a)
	switch {
	case what != "":
	case left != "":
		what = "no other leaks"
	case len(r.Loads) == 0:
		what = "nothing to tell: it has not been loaded yet"
	default:
		what = "no leaks"
	}
	what += left
	if r.Incomplete() {
		what += ", but the result is incomplete"
	}
	return fmt.Sprintf("%s on %s: %s", Printable(r.Target.Name), Printable(r.Kernel.Release), what)
}

// Finds says what was found, in words; "": nothing.
type Finds struct{ Leaks, Unallocated, Mismatched string }

// Found says what the figures count.
func Found(n leak.Figures) Finds {
	var f Finds
	if n.Leaks > 0 {
		f.Leaks = fmt.Sprintf("%s of %s in %s", Count(n.Leaks, "possible leak"), Count(n.Bytes, "byte"), Count(n.Stacks, "call stack"))
	}
	if n.Unallocated > 0 {
		f.Unallocated = Count(n.Unallocated, "unallocated free")
	}
	if n.Mismatched > 0 {
		f.Mismatched = Count(n.Mismatched, "mismatched release")
	}
	return f
}

func (f Finds) String() string {
	return strings.Join(slices.DeleteFunc([]string{f.Leaks, f.Unallocated, f.Mismatched}, func(s string) bool { return s == "" }), ", ")
}

// leftOut says in the verdict how much does not count.
func leftOut(a leak.Account) string {
	if what := leak.LeftOut(a.Suppressed.Total(), a.Known.Total()); what != "" {
		return " (" + what + ")"
	}
	return ""
}

// Unsure says why nothing that was not found is known not to be there, a line each.
func Unsure(r *leak.Report) []string {
	lines := Missing(r)
	if len(r.Loads) == 0 {
		lines = append(lines, "the module has not been loaded")
	}
	return lines
}

// Missing says what was not seen, a line each.
func Missing(r *leak.Report) []string {
	var lines []string
	for _, u := range r.Unwatched {
		lines = append(lines, fmt.Sprintf("calls of %s were not seen: %s", Printable(u.Function), Printable(u.Reason)))
	}
	for _, l := range r.Lost {
		lines = append(lines, fmt.Sprintf("%d event(s) lost at %s: %s", l.Count, Printable(l.Function), Printable(l.Reason)))
	}
	return lines
}

// WrongTitle is the ancestor's where there is nothing that it did not know.
func WrongTitle(wrongs []leak.Wrong) string {
	for _, w := range wrongs {
		if w.Wrong != session.Unallocated {
			return "Wrong releases"
		}
	}
	return "Unallocated frees"
}
