package report

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"kedr/internal/leak"
	"kedr/internal/session"
)

// rule ends every record.
const rule = "----------------------------------------\n"

// writeText writes the ancestor's three files one after the other, in its line
// formats, with source lines below the frames, and a verdict last.
func writeText(out io.Writer, r *leak.Report, o Options) error {
	w := bufio.NewWriter(out)
	for _, l := range r.Loads {
		if len(r.Loads) > 1 {
			fmt.Fprintf(w, "Load %d\n", l.ID)
		}
		fmt.Fprintf(w, "Target module: %q, init area at %x, core area at %x\n", r.Target.Name, uint64(l.Init), uint64(l.Core))
		fmt.Fprintf(w, "Allocations: %d\nPossible leaks: %d\nUnallocated frees: %d\n",
			l.Allocations, l.PossibleLeaks, l.UnallocatedFrees)
		if l.Mismatched > 0 {
			fmt.Fprintf(w, "Mismatched releases: %d\n", l.Mismatched)
		}
		if l.Loaded {
			fmt.Fprintf(w, "The module is still loaded: what is listed below may yet be freed.\n")
		}
		fmt.Fprintln(w)
	}
	if len(r.Loads) == 0 {
		fmt.Fprintf(w, "Target module: %q, not loaded yet\n\n", r.Target.Name)
	}
	t := text{w: w, dir: o.Dir}
	if len(r.PossibleLeaks) > 0 {
		fmt.Fprintf(w, "Possible leaks:\n")
	}
	for _, l := range r.PossibleLeaks {
		fmt.Fprintln(w)
		t.process(l.Comm, l.PID, l.IRQ, l.Load, len(r.Loads))
		size := "unknown"
		if l.Size > 0 {
			size = strconv.FormatUint(l.Size, 10)
		}
		fmt.Fprintf(w, "Address: %#x, size: %s; stack trace of the allocation:\n", uint64(l.Address), size)
		t.stack(l.Stack, l.Cut)
		if l.Count > 1 {
			fmt.Fprintf(w, "+%d more allocation(s) with the same call stack.\n", l.Count-1)
		}
		w.WriteString(rule)
	}
	if len(r.UnallocatedFrees) > 0 {
		if len(r.PossibleLeaks) > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s:\n", wrongTitle(r.UnallocatedFrees))
	}
	var shown uint64
	for _, u := range r.UnallocatedFrees {
		fmt.Fprintln(w)
		t.process(u.Comm, u.PID, u.IRQ, u.Load, len(r.Loads))
		fmt.Fprintf(w, "Address: %#x; stack trace of the deallocation:\n", uint64(u.Address))
		t.stack(u.Stack, u.Cut)
		t.object(u)
		if u.Count > 1 {
			fmt.Fprintf(w, "+%d more deallocation(s) with the same call stack.\n", u.Count-1)
		}
		w.WriteString(rule)
		if u.Wrong != session.Mismatched {
			shown += u.Count
		}
	}
	if shown < r.UnallocatedFreesTotal {
		fmt.Fprintf(w, "The information about only %d of the \"unallocated free\" events is shown above.\n", shown)
	}
	if len(r.PossibleLeaks)+len(r.UnallocatedFrees) > 0 {
		fmt.Fprintln(w)
	}
	t.remarks(r)
	return w.Flush()
}

type text struct {
	w   *bufio.Writer
	dir string
}

// wrongTitle is the ancestor's where there is nothing that it did not know.
func wrongTitle(wrongs []leak.Wrong) string {
	for _, w := range wrongs {
		if w.Wrong != session.Unallocated {
			return "Wrong releases"
		}
	}
	return "Unallocated frees"
}

// object tells what a wrong release was about, where that is known.
func (t text) object(u leak.Wrong) {
	o := u.Object
	if o == nil {
		return
	}
	size := "of unknown size"
	if o.Size > 0 {
		size = fmt.Sprintf("of %s", count(o.Size, "byte"))
	}
	switch u.Wrong {
	case session.Double:
		fmt.Fprintf(t.w, "Double free: %s had released it already; stack trace of that:\n", who(o.First))
		t.stack(o.First.Stack, o.First.Cut)
		fmt.Fprintf(t.w, "The object, %s, came from %s", size, printable(o.Function))
	case session.Mismatched:
		fmt.Fprintf(t.w, "Mismatched release: %s is no match for this object, %s, from %s", printable(u.Function), size, printable(o.Function))
	}
	fmt.Fprintf(t.w, " (%s); stack trace of the allocation by %s:\n", o.Kind, who(&o.Obtained))
	t.stack(o.Obtained.Stack, o.Obtained.Cut)
}

func who(p *leak.Party) string {
	if p.IRQ {
		return "<IRQ>"
	}
	return fmt.Sprintf("%s (PID: %d)", printable(p.Comm), p.PID)
}

func (t text) process(comm string, pid int32, irq bool, load uint32, loads int) {
	if irq {
		fmt.Fprint(t.w, "<IRQ>")
	} else {
		fmt.Fprintf(t.w, "Process: %s (PID: %d)", printable(comm), pid)
	}
	if loads > 1 {
		fmt.Fprintf(t.w, ", load %d", load)
	}
	fmt.Fprintln(t.w)
}

// printable keeps a name that a process gave itself from driving the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func (t text) stack(frames []leak.Frame, cut bool) {
	for _, f := range frames {
		addr := strings.Repeat(" ", 20)
		if f.Address != 0 && !f.Inlined {
			addr = fmt.Sprintf("[<%x>]", uint64(f.Address))
		}
		fmt.Fprintf(t.w, "%s ", addr)
		switch {
		case f.Function == "":
			fmt.Fprintf(t.w, "%#x", uint64(f.Address))
		case f.Inlined, f.Size == 0:
			fmt.Fprint(t.w, printable(f.Function))
		default:
			fmt.Fprintf(t.w, "%s+%#x/%#x", printable(f.Function), f.Offset, f.Size)
		}
		if f.Module != "" {
			fmt.Fprintf(t.w, " [%s]", printable(f.Module))
		}
		if f.Inlined {
			fmt.Fprint(t.w, " (inlined)")
		}
		if f.Inferred {
			fmt.Fprint(t.w, " (inferred: it made a tail call)")
		}
		fmt.Fprintln(t.w)
		if f.File != "" && f.Line > 0 {
			fmt.Fprintf(t.w, "%21s%s:%d\n", "", printable(t.file(f.File)), f.Line)
		}
	}
	if cut {
		fmt.Fprintf(t.w, "%21s... (the stack was cut here)\n", "")
	}
}

func (t text) file(name string) string {
	if t.dir == "" || !filepath.IsAbs(name) {
		return name
	}
	rel, err := filepath.Rel(t.dir, name)
	if err != nil || strings.HasPrefix(rel, "..") {
		return name
	}
	return rel
}

func (t text) remarks(r *leak.Report) {
	w := t.w
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", printable(n))
	}
	if r.Settle > 0 {
		fmt.Fprintf(w, "note: up to %v were allowed for deferred frees after the unload (--settle)\n", r.Settle)
	}
	for _, u := range r.Unwatched {
		fmt.Fprintf(w, "incomplete: calls of %s were not seen: %s\n", u.Function, printable(u.Reason))
	}
	for _, l := range r.Lost {
		fmt.Fprintf(w, "incomplete: %d event(s) lost at %s: %s\n", l.Count, l.Function, l.Reason)
	}
	if r.CutStacks > 0 {
		fmt.Fprintf(w, "note: %d call stack(s) have more frames than are shown\n", r.CutStacks)
	}
	fmt.Fprintln(w, Verdict(r))
}

// Verdict is the result in one line.
func Verdict(r *leak.Report) string {
	var found []string
	if n := r.PossibleLeaksTotal; n > 0 {
		found = append(found, fmt.Sprintf("%s of %s in %s",
			count(n, "possible leak"), count(r.LeakedBytes, "byte"), count(uint64(len(r.PossibleLeaks)), "call stack")))
	}
	if n := r.UnallocatedFreesTotal; n > 0 {
		found = append(found, count(n, "unallocated free"))
	}
	if n := r.MismatchedTotal; n > 0 {
		found = append(found, count(n, "mismatched release"))
	}
	what := strings.Join(found, ", ")
	if what == "" {
		what = "no leaks"
		if len(r.Loads) == 0 {
			what = "nothing to tell: it has not been loaded yet"
		}
	}
	if r.Incomplete() {
		what += ", but the result is incomplete"
	}
	return fmt.Sprintf("%s on %s: %s", r.Target.Name, r.Kernel.Release, what)
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
