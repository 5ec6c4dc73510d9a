// Package compare holds reports against earlier ones: what is new, what is gone, what was
// known. Findings are the same if their fingerprints are.
package compare

import (
	"kedr/internal/leak"
)

// finding is what has one fingerprint in one report: more than one call stack if these
// differ in lines or in the kernel's functions only, or are of several loads.
type finding struct {
	first Finding // but for its state, and one report's figures as the new ones
	loads map[uint32]*figures
}

type figures struct{ count, bytes uint64 }

// most is the figures of the load with the most objects or releases. A module that was
// loaded ten times has not got ten times worse: loads are what can be compared.
func (f *finding) most() figures {
	var m figures
	for _, l := range f.loads {
		if l.count > m.count || l.count == m.count && l.bytes > m.bytes {
			m = *l
		}
	}
	return m
}

// findings are those of a report, by fingerprint, and the order in which they were met.
type findings struct {
	by    map[string]*finding
	order []string
}

func (t *findings) add(first Finding, load uint32, count, bytes uint64) {
	f := t.by[first.Fingerprint]
	if f == nil {
		f = &finding{first: first, loads: make(map[uint32]*figures)}
		t.by[first.Fingerprint] = f
		t.order = append(t.order, first.Fingerprint)
	}
	l := f.loads[load]
	if l == nil {
		l = new(figures)
		f.loads[load] = l
	}
	l.count += count
	l.bytes += bytes
}

// tally sums a report up. Those for which skip is true, by what suppressed them, stay out.
func tally(r *leak.Report, skip func(suppressed string) bool) findings {
	t := findings{by: make(map[string]*finding)}
	for i := range r.PossibleLeaks {
		if l := &r.PossibleLeaks[i]; !skip(l.Suppressed) {
			t.add(Finding{
				Fingerprint: l.Fingerprint, What: "leak", Kind: l.Kind, Function: l.Function, Stack: l.Stack,
			}, l.Load, l.Count, l.Bytes)
		}
	}
	for i := range r.UnallocatedFrees {
		if w := &r.UnallocatedFrees[i]; !skip(w.Suppressed) {
			t.add(Finding{
				Fingerprint: w.Fingerprint, What: w.Wrong, Kind: w.Kind, Function: w.Function, Stack: w.Stack,
			}, w.Load, w.Count, 0)
		}
	}
	return t
}

func everything(string) bool { return false }

func suppressed(by string) bool { return by != "" }
