package report

import (
	"fmt"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
)

// known says below a finding that is more than the baseline's what the difference is.
func (t text) known(known, all uint64) {
	if known > 0 {
		fmt.Fprintf(t.w, "%d of these %d are known from the baseline.\n", known, all)
	}
}

// account tells what is not listed, and why.
func (t text) account(r *leak.Report) {
	a := r.Account()
	if what := wording.Found(a.Suppressed).String(); what != "" {
		t.remark("", "%s suppressed by %s:", what, wording.Count(uint64(len(r.Suppressions)), "suppression"))
		for _, s := range r.Suppressions {
			fmt.Fprintf(t.w, "%8d  %s (%s:%d)\n", s.Leaks+s.Releases, wording.Printable(s.Name), wording.Printable(s.File), s.Line)
		}
	}
	if what := wording.Found(a.Known).String(); what != "" {
		t.remark("", "%s known from the baseline %s", what, wording.Printable(r.Baseline))
	}
}
