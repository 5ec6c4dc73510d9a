package leak

import (
	"fmt"
	"strings"

	"kedr/internal/session"
)

// Suppression is one that left findings out of the count.
type Suppression struct {
	Name     string `json:"name"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Stacks   uint64 `json:"stacks"` // findings, that is
	Leaks    uint64 `json:"possible_leaks"`
	Bytes    uint64 `json:"leaked_bytes"`
	Releases uint64 `json:"wrong_releases"`
}

// Figures are totals of findings. Stacks are those of leaks.
type Figures struct {
	Leaks, Bytes, Stacks uint64
	Unallocated          uint64 // with double frees
	Mismatched           uint64
}

// None says whether there is nothing.
func (f Figures) None() bool { return f.Total() == 0 }

// Total is the number of findings: objects and releases.
func (f Figures) Total() uint64 { return f.Leaks + f.Unallocated + f.Mismatched }

func (f *Figures) addLeaks(count, bytes uint64) {
	if count > 0 {
		f.Leaks += count
		f.Bytes += bytes
		f.Stacks++
	}
}

func (f *Figures) addReleases(w *Wrong, count uint64) {
	if w.Wrong == session.Mismatched {
		f.Mismatched += count
	} else {
		f.Unallocated += count
	}
}

// Account is a report's findings, by what becomes of them. The totals of a report are
// what was seen: all three together.
type Account struct {
	Counted    Figures // what the verdict and the exit status are about
	Suppressed Figures
	Known      Figures // from the baseline
}

// Account returns what counts of the findings, and what does not.
func (r *Report) Account() Account {
	var a Account
	for i := range r.PossibleLeaks {
		l := &r.PossibleLeaks[i]
		if l.Suppressed != "" {
			a.Suppressed.addLeaks(l.Count, l.Bytes)
			continue
		}
		a.Known.addLeaks(l.Known, l.KnownBytes)
		a.Counted.addLeaks(l.New(), l.NewBytes())
	}
	for i := range r.UnallocatedFrees {
		w := &r.UnallocatedFrees[i]
		if w.Suppressed != "" {
			a.Suppressed.addReleases(w, w.Count)
			continue
		}
		a.Known.addReleases(w, w.Known)
	}
	// Releases are counted also where there was no room to list them.
	a.Counted.Unallocated = less(r.UnallocatedFreesTotal, a.Suppressed.Unallocated+a.Known.Unallocated)
	a.Counted.Mismatched = less(r.MismatchedTotal, a.Suppressed.Mismatched+a.Known.Mismatched)
	return a
}

// LeftOut says in words how much does not count; "": all does.
func LeftOut(suppressed, known uint64) string {
	var parts []string
	if suppressed > 0 {
		parts = append(parts, fmt.Sprintf("%d suppressed", suppressed))
	}
	if known > 0 {
		parts = append(parts, fmt.Sprintf("%d known from the baseline", known))
	}
	return strings.Join(parts, ", ")
}

// Clean says whether nothing was found that counts.
func (r *Report) Clean() bool { return r.Account().Counted.None() }

// New is how many of the objects count.
func (l *Leak) New() uint64 {
	if l.Suppressed != "" {
		return 0
	}
	return less(l.Count, l.Known)
}

// NewBytes is their size, as far as it is known.
func (l *Leak) NewBytes() uint64 {
	if l.Suppressed != "" {
		return 0
	}
	return less(l.Bytes, l.KnownBytes)
}

// New is how many of the releases count.
func (w *Wrong) New() uint64 {
	if w.Suppressed != "" {
		return 0
	}
	return less(w.Count, w.Known)
}

// less subtracts what is not larger in a report of ours; one that was read may be anybody's.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// SourceName is the function's name in the source, without what the compiler names its
// variants.
func (f *Frame) SourceName() string { return plain(f.Function) }
