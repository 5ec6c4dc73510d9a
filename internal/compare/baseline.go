package compare

import (
	"fmt"
	"math/bits"
	"slices"

	"kedr/internal/leak"
)

// Baseline is the findings that were there before, and that nobody wants to hear of.
type Baseline struct {
	file    string
	reports []*leak.Report
}

// NewBaseline makes a baseline of the reports of a file.
func NewBaseline(file string, reports []*leak.Report) *Baseline {
	return &Baseline{file: file, reports: reports}
}

// Apply marks what a report has in common with the baseline: of each fingerprint, and in
// each load, as many objects or releases as one load of the baseline had at most. What is
// beyond that counts. What is suppressed is left as it is.
func (b *Baseline) Apply(r *leak.Report) {
	r.Baseline = b.file
	known := byName(b.reports, r.Target.Name)
	note := ""
	switch {
	case known == nil:
		note = fmt.Sprintf("the baseline %s has no report of %s: all is new", b.file, r.Target.Name)
		known = new(leak.Report)
	case known.Incomplete():
		note = fmt.Sprintf("the baseline %s is incomplete: what is new here may have been there, and not been seen", b.file)
	}
	// A report that was saved may have it.
	if note != "" && !slices.Contains(r.Notes, note) {
		r.Notes = append(r.Notes, note)
	}
	was := tally(known, everything)
	type share struct {
		fingerprint string
		load        uint32
	}
	left := make(map[share]uint64)
	take := func(fingerprint string, load uint32, count uint64) uint64 {
		f := was.by[fingerprint]
		if f == nil {
			return 0
		}
		s := share{fingerprint, load}
		if _, ok := left[s]; !ok {
			left[s] = f.most().count
		}
		n := min(left[s], count)
		left[s] -= n
		return n
	}
	for i := range r.PossibleLeaks {
		l := &r.PossibleLeaks[i]
		if l.Known, l.KnownBytes = 0, 0; l.Suppressed == "" {
			l.Known = take(l.Fingerprint, l.Load, l.Count)
			l.KnownBytes = part(l.Bytes, l.Known, l.Count)
		}
	}
	for i := range r.UnallocatedFrees {
		w := &r.UnallocatedFrees[i]
		if w.Known = 0; w.Suppressed == "" {
			w.Known = take(w.Fingerprint, w.Load, w.Count)
		}
	}
}

// part is n/of of the bytes: nobody knows which of the objects are the new ones.
func part(b, n, of uint64) uint64 {
	if n >= of {
		return b
	}
	hi, lo := bits.Mul64(b, n)
	q, _ := bits.Div64(hi, lo, of)
	return q
}
