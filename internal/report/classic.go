package report

import (
	"bufio"
	"fmt"

	"kedr/internal/leak"
	"kedr/internal/report/wording"
	"kedr/internal/session"
)

// writeClassic writes the files info, possible_leaks and unallocated_frees of the first
// KEDR one after the other, for those who parse them: its lines and no others. What it
// did not know (source lines, inlined functions, those that made a tail call) is left
// out. Where that would hide that the result is incomplete, or something that it had no
// words for, the verdict comes last.
func writeClassic(w *bufio.Writer, all *leak.Report, _ Options) {
	r := wording.Listed(all)
	for _, l := range r.Loads {
		totals(w, r, l)
	}
	fmt.Fprintln(w)
	t := text{w: w}
	for _, l := range r.PossibleLeaks {
		t.process(l.Comm, l.PID, l.IRQ, l.Load, 1)
		fmt.Fprintf(w, "Address: %#x, size: %s; stack trace of the allocation:\n", uint64(l.Address), size(l.Size))
		classicStack(w, l.Stack)
		if l.Count > 1 {
			fmt.Fprintf(w, "+%d more allocation(s) with the same call stack.\n", l.Count-1)
		}
		w.WriteString(rule)
	}
	var shown uint64
	for _, u := range r.UnallocatedFrees {
		if u.Wrong == session.Mismatched {
			continue
		}
		t.process(u.Comm, u.PID, u.IRQ, u.Load, 1)
		fmt.Fprintf(w, "Address: %#x; stack trace of the deallocation:\n", uint64(u.Address))
		classicStack(w, u.Stack)
		if u.Count > 1 {
			fmt.Fprintf(w, "+%d more deallocation(s) with the same call stack.\n", u.Count-1)
		}
		w.WriteString(rule)
		shown += u.Count
	}
	if shown < r.UnallocatedFreesTotal {
		fmt.Fprintf(w, "The information about only %d of the \"unallocated free\" events is shown above. "+
			"The data for other such events have been discarded to save memory.\n", shown)
	}
	if r.Incomplete() || r.MismatchedTotal > 0 || len(r.Loads) == 0 || r != all {
		fmt.Fprintln(w, wording.Verdict(all))
	}
}

func classicStack(w *bufio.Writer, frames []leak.Frame) {
	for _, f := range frames {
		if !f.Inlined && !f.Inferred {
			fmt.Fprintf(w, "[<%x>] %s\n", uint64(f.Address), location(f))
		}
	}
}
